"""A model on disk: a MONAI bundle with a manifest of its files' SHA-256.

The folder is trusted only as far as ``manifest.json`` says: every file is hashed before any is
opened, a file read later is hashed again, and the configuration may only name this project's
classes. Weights are safetensors or ONNX, never pickles.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.prediction import ModelIdentity

MANIFEST = "manifest.json"
METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
WEIGHTS = "models/model.safetensors"
ONNX = "models/model.onnx"
GATE_WEIGHTS = "models/gate.safetensors"
GATE_ONNX = "models/gate.onnx"
TERMS = "LICENSE"
MODEL_CARD = "docs/README.md"
AGREEMENT = "docs/pictures/model-agreement.png"
RELIABILITY = "docs/pictures/model-calibration.png"
CURVES = "docs/pictures/model-curves.png"
GATE_ROC = "docs/pictures/gate-roc.png"
PICTURES = (AGREEMENT, RELIABILITY, CURVES, GATE_ROC)
FILES = (METADATA, INFERENCE, WEIGHTS, ONNX, GATE_WEIGHTS, GATE_ONNX, TERMS, MODEL_CARD, *PICTURES)

_TARGETS = frozenset(
    {
        "inference.network.BoneAgeNet",
        "inference.network.BoneAgeEstimator",
        "inference.transforms.ToNetworkInput",
    }
)
_FOLDER_NAME = re.compile(r"(?P<name>.+)-(?P<version>\d+\.\d+\.\d+)")


class BundleInvalid(Exception):
    """A bundle is missing or is not what its manifest says; the message names the file and what to
    do."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle. ``side`` is that of the network's input in pixels. Above a calibrated SD
    of ``indeterminate_above_months`` no bone age is to be stated. ``metadata``: the content of
    ``configs/metadata.json``."""

    folder: Path
    identity: ModelIdentity
    side: int
    indeterminate_above_months: float
    metadata: Mapping[str, Any]
    sha256: Mapping[str, str]

    def read(self, name: str) -> bytes:
        """Bytes of one file, hashed again. Raises :class:`BundleInvalid` when they have changed."""
        return _read_checked(self.folder, name, self.sha256[name])


def load_bundle(folder: Path) -> Bundle:
    """Verify all files of a bundle, then read its metadata and check its configuration.

    Raises :class:`BundleInvalid`.
    """
    sha256 = _manifest(folder)
    for name, expected in sha256.items():
        _read_checked(folder, name, expected)
    try:
        metadata = json.loads(_read_checked(folder, METADATA, sha256[METADATA]))
        configuration = json.loads(_read_checked(folder, INFERENCE, sha256[INFERENCE]))
        _check_configuration(folder, configuration)
        identity = ModelIdentity(
            name=metadata["name"], version=metadata["version"], sha256=sha256[WEIGHTS]
        )
        side = int(metadata["side"])
        indeterminate = float(metadata["calibration"]["indeterminate_above_months"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleInvalid(
            f"{folder}/configs: {error} is missing or wrong; export the bundle again"
        ) from None
    return Bundle(
        folder=folder,
        identity=identity,
        side=side,
        indeterminate_above_months=indeterminate,
        metadata=metadata,
        sha256=sha256,
    )


def find_bundle(models: Path, name: str) -> Path:
    """Folder of ``name-version``, or of the newest version of ``name``, below ``models``.

    Raises :class:`BundleInvalid` when there is none.
    """
    folders = bundle_folders(models)
    for folder in folders:
        if folder.name == name:
            return folder
    versions = [folder for folder in folders if _version(folder) and _name(folder) == name]
    if not versions:
        known = ", ".join(folder.name for folder in folders) or "none"
        raise BundleInvalid(
            f"{models} has no model {name!r}; available: {known}. Set inference.model to one of "
            "them, or to a name without its version for the newest"
        )
    return max(versions, key=_version)


def bundle_folders(models: Path) -> list[Path]:
    """Folders named ``name-version`` below ``models``, in order of name and version."""
    found = [path for path in models.glob("*-*") if path.is_dir() and _version(path)]
    return sorted(found, key=lambda path: (_name(path), _version(path)))


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a new bundle. Raises ``FileNotFoundError`` when one is missing."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def write_manifest(folder: Path, sha256: Mapping[str, str]) -> None:
    """Seal a new bundle."""
    text = json.dumps({"sha256": dict(sha256)}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _name(folder: Path) -> str:
    found = _FOLDER_NAME.fullmatch(folder.name)
    return found["name"] if found else ""


def _version(folder: Path) -> tuple[int, ...]:
    found = _FOLDER_NAME.fullmatch(folder.name)
    return tuple(int(part) for part in found["version"].split(".")) if found else ()


def _manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        sha256 = dict(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except OSError:
        raise BundleInvalid(
            f"{path} cannot be read; install the bundle again or correct inference.model"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise BundleInvalid(f"{path} is no manifest; install the bundle again") from None
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    }
    if set(sha256) != set(FILES) or present != {*FILES, MANIFEST}:
        names = ", ".join(sorted(present ^ {*FILES, MANIFEST} | set(sha256) ^ set(FILES)))
        raise BundleInvalid(f"{folder}: missing or unexpected files {names}; install it again")
    return {name: str(sha256[name]) for name in FILES}


def _read_checked(folder: Path, name: str, expected: str) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except OSError:
        raise BundleInvalid(f"{folder / name} cannot be read; install the bundle again") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise BundleInvalid(
            f"{folder / name} is not the file that {MANIFEST} names (SHA-256 differs); "
            "install the bundle again and do not use this copy"
        )
    return content


def _check_configuration(folder: Path, configuration: object) -> None:
    """MONAI evaluates ``$`` expressions, follows ``%`` to other files and imports ``_target_``:
    allow our classes only."""
    for key, text in _strings("", configuration):
        if text.startswith(("$", "%")) or (key == "_target_" and text not in _TARGETS):
            raise BundleInvalid(
                f"{folder / INFERENCE}: {key} may not run code; use bundles of this project only"
            )


def _strings(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(name, item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(key, item)
