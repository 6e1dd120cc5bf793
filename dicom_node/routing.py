"""Where reports go and as what: what institutions and destinations want, by the settings."""

from __future__ import annotations

from dicom_node.domain.commitment import Proof
from dicom_node.domain.delivery import ReportKind
from dicom_node.scp.policy import LOCAL_INSTITUTION
from dicom_node.settings import InstitutionSettings, Settings
from dicom_node.stages.report import Route

_UNRESTRICTED = InstitutionSettings(id=LOCAL_INSTITUTION, name="", calling_ae_titles=())
"""What holds for senders on loopback that belong to no institution."""


class Routing:
    """Answers the stages' questions about one configuration."""

    def __init__(self, settings: Settings) -> None:
        self._language = settings.node.language
        self._destinations = {item.name: item for item in settings.destinations}
        self._institutions = {
            LOCAL_INSTITUTION: _UNRESTRICTED,
            **{item.id: item for item in settings.institutions},
        }

    def route(self, institution_id: str) -> Route | None:
        """An institution's destinations (all, when it names none) and language.

        None for an institution that is not configured: a report never goes to a destination by
        guess. Unrestricted senders on loopback belong to LOCAL_INSTITUTION.
        """
        wishes = self._institutions.get(institution_id)
        if wishes is None:
            return None
        return Route(
            language=wishes.language or self._language,
            destinations=wishes.destinations or tuple(self._destinations),
            report_not_assessed=wishes.report_not_assessed,
            kinds=frozenset(wishes.report_objects),
            keep_character_set=wishes.character_set == "source",
        )

    def reports_not_assessed(self, institution_id: str) -> bool:
        """Whether an institution wants reports on hands that were not assessed."""
        route = self.route(institution_id)
        return route is None or route.report_not_assessed

    @property
    def report_kinds(self) -> frozenset[ReportKind]:
        """Every kind of object that somebody's reports have."""
        everybody = self._institutions.values()
        return frozenset(kind for wishes in everybody for kind in wishes.report_objects)

    def kinds(self, destination: str) -> tuple[ReportKind, ...]:
        """Which objects a destination takes."""
        return self._destinations[destination].objects

    def proof(self, destination: str) -> Proof:
        """What closes a delivery to it."""
        return self._destinations[destination].proof
