"""What the node can receive: SOP classes and transfer syntaxes (PS3.4 B.5, PS3.5 10)."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    PresentationContext,
    build_context,
)
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from dicom_node.commitment import PUSH_MODEL

IMAGE_TRANSFER_SYNTAXES: tuple[str, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
)
"""Every encoding that the node stores, for every storage class. Deflated, JPIP and video are not
offered: a small object of theirs may unpack to gigabytes."""

STORAGE_CLASSES: tuple[str, ...] = tuple(
    str(context.abstract_syntax) for context in AllStoragePresentationContexts
)
"""Every storage SOP class: what is no radiograph is kept and recorded as ignored, so that a PACS
that sends a whole study does not see a failure."""

_STORAGE = frozenset(STORAGE_CLASSES)


def verification_context() -> PresentationContext:
    """C-ECHO (PS3.4 A)."""
    return build_context(Verification, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def commitment_context() -> PresentationContext:
    """Storage Commitment Push Model, in both roles (PS3.4 J.3.1)."""
    context = build_context(PUSH_MODEL, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    context.scu_role = context.scp_role = True
    return context


def supported_contexts(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """The storage contexts that answer a proposal, one per SOP class that the node knows, and
    C-ECHO.

    Transfer syntaxes stand in the order in which the sender named them, so that the sender gets the
    encoding it holds and need not convert.
    """
    wanted: dict[str, list[str]] = {}
    for context in proposed:
        if context.abstract_syntax in _STORAGE:
            wanted.setdefault(str(context.abstract_syntax), []).extend(context.transfer_syntax)
    answers = [verification_context()]
    for sop_class_uid, syntaxes in wanted.items():
        known = [uid for uid in dict.fromkeys(syntaxes) if uid in IMAGE_TRANSFER_SYNTAXES]
        if known:
            answers.append(build_context(sop_class_uid, known))
    return answers
