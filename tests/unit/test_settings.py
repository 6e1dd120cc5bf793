"""The configuration is read once, refuses what is wrong by name, and its example says all of it."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dicom_node.settings import (
    DestinationSettings,
    InstitutionSettings,
    Settings,
    SettingsError,
    load_settings,
)

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "node.example.toml"
HOSPITAL = """
[node]
bind = "0.0.0.0"
[receive]
require_known_sender = true
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "pacs.example.org"
port = 104
[[institutions]]
id = "hospital"
name = "Hospital"
calling_ae_titles = ["DX1", "DX2"]
networks = ["10.1.0.0/16", "2001:db8::/32"]
destinations = ["pacs"]
language = "en"
"""


def load(folder: Path, text: str) -> Settings:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(folder, text)
    return str(refused.value)


def enabled_example() -> dict[str, Any]:
    """The example with every commented setting enabled."""
    text = EXAMPLE.read_text(encoding="utf-8")
    return tomllib.loads(re.sub(r"^#(?=[\[a-z])", "", text, flags=re.MULTILINE))


def test_without_a_file_the_defaults_run_on_loopback() -> None:
    settings = load_settings(None)
    assert settings.node.bind == "127.0.0.1"
    assert (settings.node.port, settings.node.ae_title) == (11112, "BONEAGE")
    assert settings.institutions == ()


def test_the_example_as_it_stands_is_the_defaults() -> None:
    assert load_settings(EXAMPLE) == Settings()


def test_the_example_names_every_key_of_every_section_and_no_other() -> None:
    example = enabled_example()
    assert set(example) == set(Settings.model_fields)
    for section, field in Settings.model_fields.items():
        models = get_args(field.annotation)
        block = example[section][0] if models else example[section]
        model = models[0] if models else type(field.default)
        assert list(block) == list(model.model_fields), section


@pytest.mark.parametrize(
    ("section", "model"),
    [("institutions", InstitutionSettings), ("destinations", DestinationSettings)],
)
def test_the_examples_optional_lines_show_the_defaults(
    section: str, model: type[InstitutionSettings] | type[DestinationSettings]
) -> None:
    block = enabled_example()[section][0]
    fields: dict[str, FieldInfo] = model.model_fields
    optional = {name: f.default for name, f in fields.items() if not f.is_required()}
    shown = {name: block[name] for name, default in optional.items() if default is not None}
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in shown.items()} == {
        name: default for name, default in optional.items() if default is not None
    }


def test_the_example_with_everything_enabled_loads() -> None:
    settings = Settings(**enabled_example())
    assert settings.institutions[0].calling_ae_titles == ("EXAMPLE_PACS", "EXAMPLE_DX1")
    assert settings.destinations[0].port == 104


def test_every_setting_of_the_example_has_a_comment_above() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#?[a-z_]+ = ", line):
            assert above.startswith("# "), line


def test_a_hospitals_configuration_is_read(tmp_path: Path) -> None:
    settings = load(tmp_path, HOSPITAL)
    (institution,) = settings.institutions
    assert institution.calling_ae_titles == ("DX1", "DX2")
    assert [network.version for network in institution.networks] == [4, 6]
    assert settings.destinations[0].timeout_seconds == 30


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOM_NODE_NODE__PORT", "11113")
    settings = load(tmp_path, '[node]\nport = 11114\nname = "x"\n')
    assert (settings.node.port, settings.node.name) == (11113, "x")


def test_a_wrong_value_of_the_environment_is_refused_by_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DICOM_NODE_RECEIVE__HIGH_WATER_PERCENT", "101")
    with pytest.raises(SettingsError, match=r"environment: receive\.high_water_percent: .*100"):
        load_settings(None)


def test_a_list_of_the_environment_that_is_no_json_is_refused_by_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DICOM_NODE_INSTITUTIONS", "hospital")
    with pytest.raises(SettingsError, match=r"^environment: .*institutions"):
        load_settings(None)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[node]\nprot = 1\n", "node.prot"),
        ("[nodes]\nport = 1\n", "nodes"),
        ("[node]\nport = 65536\n", "node.port"),
        ('[node]\nae_title = "SEVENTEEN_LETTERS"\n', "node.ae_title"),
        ('[node]\nae_title = "A\\\\B"\n', "node.ae_title"),
        ('[node]\nae_title = "  "\n', "node.ae_title"),
        ('[node]\nname = "../x"\n', "node.name"),
        ('[node]\nlanguage = "fr"\n', "node.language"),
        ('[node]\nbind = "everywhere"\n', "everywhere"),
        ("[receive]\nhigh_water_percent = 0\n", "receive.high_water_percent"),
        ("[receive]\nprocesses = 0\n", "receive.processes"),
        ("[receive]\nrequire_known_sender = true\n", "institution"),
        ('[node]\nbind = "0.0.0.0"\n', "require_known_sender"),
        ('[inference]\ndevice = "tpu"\n', "inference.device"),
        ('[inference]\nprecision = "int8"\n', "inference.precision"),
        ('[inference]\ndevice = "cpu"\nprecision = "bf16"\n', "inference.precision"),
        ('[inference]\ndevice = "cpu"\nprecision = "fp16"\n', "runs on CUDA only"),
        (HOSPITAL.replace('["pacs"]', '["archive"]'), "archive"),
        (HOSPITAL.replace('["DX1", "DX2"]', '["DX1", "DX1"]'), "DX1"),
        (HOSPITAL.replace("10.1.0.0/16", "10.1.0.9/16"), "institutions.0.networks"),
        (HOSPITAL.replace("port = 104", "port = 0"), "destinations.0.port"),
        (HOSPITAL.replace('name = "pacs"', 'name = "the pacs"'), "destinations.0.name"),
        ("[node\n", "cannot be read"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(str(tmp_path / "node.toml"))
    assert named in message


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "[node]\nport = -1\nmetrics_port = -1\n")
    assert "node.port" in message
    assert "node.metrics_port" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load_settings(tmp_path / "absent.toml")


def test_two_destinations_cannot_share_a_name(tmp_path: Path) -> None:
    block = HOSPITAL[HOSPITAL.index("[[destinations]]") : HOSPITAL.index("[[institutions]]")]
    assert "pacs" in refusal(tmp_path, HOSPITAL + block)


def test_two_institutions_cannot_share_an_id(tmp_path: Path) -> None:
    twin = '[[institutions]]\nid = "hospital"\nname = "Twin"\ncalling_ae_titles = ["DX3"]\n'
    assert "hospital" in refusal(tmp_path, HOSPITAL + twin)


def test_a_read_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().node.port = 1


def test_a_destination_that_takes_nothing_of_an_institutions_report_is_refused() -> None:
    institution = {
        "id": "a", "name": "A", "calling_ae_titles": ["A"], "objects": ["pdf"],
    }  # fmt: skip
    pacs = {
        "name": "pacs", "ae_title": "P", "host": "h", "port": 104, "objects": ["narrative"],
    }  # fmt: skip
    with pytest.raises(ValidationError, match="destination pacs takes none of its objects: pdf"):
        Settings.model_validate({"institutions": [institution], "destinations": [pacs]})
    elsewhere = institution | {"destinations": ["other"]}
    other = pacs | {"name": "other", "objects": ["pdf"]}
    Settings.model_validate({"institutions": [elsewhere], "destinations": [pacs, other]})


CERTIFICATES = '[tls]\ncertificate = "a"\nkey = "b"\nca = "c"\n'
DESTINATION = '[[destinations]]\nname = "p"\nae_title = "P"\nhost = "h"\nport = 104\ntls = true\n'
INSTITUTION = (
    '[[institutions]]\nid = "i"\nname = "I"\ncalling_ae_titles = ["A"]\ncertificate_names = ["a"]\n'
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[tls]\ncertificate = "a"\n', "certificate, key and ca belong together"),
        ("[tls]\nport = 2762\n", "tls.port needs certificate, key and ca"),
        (CERTIFICATES + "required = true\n", "tls.required needs tls.port"),
        (DESTINATION, "destination p: tls needs certificate, key and ca"),
        (CERTIFICATES + INSTITUTION, "institution i: certificate_names needs tls.port"),
    ],
)
def test_half_a_configuration_of_tls_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    assert complaint in refusal(tmp_path, text)


def test_certificates_without_a_port_are_for_destinations(tmp_path: Path) -> None:
    settings = load(tmp_path, CERTIFICATES + DESTINATION)
    assert settings.destinations[0].tls
    assert settings.tls.port is None
