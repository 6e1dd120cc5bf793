"""UIDs that follow from what they name: the same parts give the same UID."""

from __future__ import annotations

from uuid import UUID, uuid5

_NAMESPACE = UUID("1d1c4a1e-5d0c-4a58-9f0d-6c8b6a2f3e57")


def derived_uid(*parts: str) -> str:
    """The UID of these parts under 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid5(_NAMESPACE, '|'.join(parts)).int}"
