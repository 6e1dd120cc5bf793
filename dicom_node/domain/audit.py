"""What the audit trail says: messages as plain values, one function for each kind (PS3.15 A.5).

The words and codes are the standard's: event and role codes of PS3.16 CID 400 to 403, numbers of
PS3.15 A.5.1.2. Messages name patients; only the audit folder and its repository may hold them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded value (PS3.15 A.5.1.1, CodedValueType)."""

    value: str
    meaning: str
    scheme: str = "DCM"


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    EXECUTE = "E"
    DELETE = "D"


class EventOutcome(StrEnum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


APPLICATION_ACTIVITY = Code(value="110100", meaning="Application Activity")
AUDIT_LOG_USED = Code(value="110101", meaning="Audit Log Used")
INSTANCES_ACCESSED = Code(value="110103", meaning="DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code(value="110104", meaning="DICOM Instances Transferred")
SECURITY_ALERT = Code(value="110113", meaning="Security Alert")

APPLICATION_START = Code(value="110120", meaning="Application Start")
APPLICATION_STOP = Code(value="110121", meaning="Application Stop")
NODE_AUTHENTICATION = Code(value="110126", meaning="Node Authentication")
NETWORK_CONFIGURATION = Code(value="110128", meaning="Network Configuration")
SOFTWARE_CONFIGURATION = Code(value="110131", meaning="Software Configuration")

APPLICATION = Code(value="110150", meaning="Application")
APPLICATION_LAUNCHER = Code(value="110151", meaning="Application Launcher")
DESTINATION = Code(value="110152", meaning="Destination Role ID")
SOURCE = Code(value="110153", meaning="Source Role ID")

_STUDY = Code(value="110180", meaning="Study Instance UID")
_NODE = Code(value="110182", meaning="Node ID")
_PATIENT_NUMBER = Code(value="2", meaning="Patient Number", scheme="RFC-3881")
_URI = Code(value="12", meaning="URI", scheme="RFC-3881")
_PERSON, _SYSTEM_OBJECT = "1", "2"
_AS_PATIENT, _AS_REPORT, _AS_MASTER_FILE, _AS_SECURITY_RESOURCE = "1", "3", "5", "13"


@dataclass(frozen=True, kw_only=True)
class Participant:
    """Who took part (ActiveParticipant). ``alternative_user_id``: ``AETITLES=`` and the AE title of
    an application (A.5.2.2). ``address``: an IP address or a host name."""

    user_id: str
    alternative_user_id: str = ""
    user_name: str = ""
    requestor: bool
    address: str = ""
    role: Code | None = None
    media_type: Code | None = None

    @property
    def address_type(self) -> str:
        """NetworkAccessPointTypeCode: 2 for an IP address, 1 for a machine's name."""
        try:
            ip_address(self.address.partition("%")[0])
        except ValueError:
            return "1"
        return "2"


@dataclass(frozen=True, kw_only=True)
class AuditObject:
    """What it was about (ParticipantObjectIdentification). ``sop_classes``: SOP Class UID to number
    of instances; ``details``: ParticipantObjectDetail, name to text."""

    object_id: str = field(repr=False)
    id_type: Code
    name: str = field(repr=False)
    type_code: str
    role: str
    sop_classes: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditMessage:
    """One event of the trail. ``at``: aware UTC; ``description``: why it failed, without patient
    data."""

    event: Code
    types: tuple[Code, ...] = ()
    action: Action
    outcome: EventOutcome
    description: str = ""
    at: datetime
    participants: tuple[Participant, ...]
    objects: tuple[AuditObject, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whose objects they are: study and patient, "" where the header does not say."""

    study_instance_uid: str = ""
    patient_id: str = field(default="", repr=False)
    patient_name: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Application:
    """A process of this node, as a participant. ``process_id``: as in the log's lines."""

    node: str
    ae_title: str
    process_id: int
    host: str

    def taking_part(self, *, requestor: bool, role: Code | None = None) -> Participant:
        """Named by its process id and its AE title (A.5.2.1, A.5.2.2)."""
        return Participant(
            user_id=str(self.process_id),
            alternative_user_id=f"AETITLES={self.ae_title}",
            user_name=self.node,
            requestor=requestor,
            address=self.host,
            role=role,
        )


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The other side of an association, as a participant."""

    ae_title: str
    address: str

    def taking_part(self, *, requestor: bool, role: Code | None = None) -> Participant:
        """Named by its AE title, or by its address when it gave none."""
        return Participant(
            user_id=self.ae_title or self.address,
            alternative_user_id=f"AETITLES={self.ae_title}" if self.ae_title else "",
            requestor=requestor,
            address=self.address,
            role=role,
        )


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A person at the command line: login name and machine (A.5.2.1)."""

    login: str
    host: str

    def taking_part(self, role: Code | None = None) -> Participant:
        """A person is always the one who asked."""
        return Participant(
            user_id=f"{self.login}@{self.host}", requestor=True, address=self.host, role=role
        )


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One C-STORE request that was answered; ``stored``: with success."""

    peer: Peer
    subject: Subject
    sop_class_uid: str
    stored: bool


def started(application: Application, launcher: Operator, at: datetime) -> AuditMessage:
    """Application Activity: the node receives (A.5.3.1)."""
    return _activity(APPLICATION_START, application, launcher, at)


def stopped(application: Application, launcher: Operator, at: datetime) -> AuditMessage:
    """Application Activity: all processes have ended (A.5.3.1)."""
    return _activity(APPLICATION_STOP, application, launcher, at)


def _activity(
    kind: Code, application: Application, launcher: Operator, at: datetime
) -> AuditMessage:
    return AuditMessage(
        event=APPLICATION_ACTIVITY,
        types=(kind,),
        action=Action.EXECUTE,
        outcome=EventOutcome.SUCCESS,
        at=at,
        participants=(
            application.taking_part(requestor=False, role=APPLICATION),
            launcher.taking_part(APPLICATION_LAUNCHER),
        ),
    )


def received(
    arrivals: Sequence[Arrival], application: Application, at: datetime
) -> list[AuditMessage]:
    """DICOM Instances Transferred, to this node (A.5.3.7): a message for each study and patient,
    and another one for what was refused of them, in the order of arrival."""
    groups: dict[tuple[Peer, Subject, bool], list[str]] = {}
    for arrival in arrivals:
        key = (arrival.peer, arrival.subject, arrival.stored)
        groups.setdefault(key, []).append(arrival.sop_class_uid)
    return [
        AuditMessage(
            event=INSTANCES_TRANSFERRED,
            action=Action.CREATE,
            outcome=EventOutcome.SUCCESS if stored else EventOutcome.MINOR_FAILURE,
            description="" if stored else "the node answered the C-STORE with a failure status",
            at=at,
            participants=(
                peer.taking_part(requestor=True, role=SOURCE),
                application.taking_part(requestor=False, role=DESTINATION),
            ),
            objects=objects_of(subject, sop_classes),
        )
        for (peer, subject, stored), sop_classes in groups.items()
    ]


def sent(
    subject: Subject,
    sop_classes: Sequence[str],
    application: Application,
    destination: Peer,
    at: datetime,
    *,
    refused: bool = False,
) -> AuditMessage:
    """DICOM Instances Transferred, from this node to a destination (A.5.3.7)."""
    return AuditMessage(
        event=INSTANCES_TRANSFERRED,
        action=Action.READ,
        outcome=EventOutcome.MINOR_FAILURE if refused else EventOutcome.SUCCESS,
        description="the destination refused the C-STORE" if refused else "",
        at=at,
        participants=(
            application.taking_part(requestor=True, role=SOURCE),
            destination.taking_part(requestor=False, role=DESTINATION),
        ),
        objects=objects_of(subject, sop_classes),
    )


def accessed(
    action: Action,
    subject: Subject,
    operator: Operator,
    application: Application,
    at: datetime,
    *,
    details: Mapping[str, str],
    failed: bool = False,
) -> AuditMessage:
    """DICOM Instances Accessed: what a person did at the command line (A.5.3.6)."""
    return AuditMessage(
        event=INSTANCES_ACCESSED,
        action=action,
        outcome=EventOutcome.MINOR_FAILURE if failed else EventOutcome.SUCCESS,
        description="the step is not allowed now" if failed else "",
        at=at,
        participants=(operator.taking_part(), application.taking_part(requestor=False)),
        objects=objects_of(subject, (), details),
    )


def audit_log_used(
    uri: str, operator: Operator, application: Application, at: datetime
) -> AuditMessage:
    """Audit Log Used (A.5.3.2)."""
    return AuditMessage(
        event=AUDIT_LOG_USED,
        action=Action.READ,
        outcome=EventOutcome.SUCCESS,
        at=at,
        participants=(operator.taking_part(), application.taking_part(requestor=False)),
        objects=(
            AuditObject(
                object_id=uri,
                id_type=_URI,
                name="Security Audit Log",
                type_code=_SYSTEM_OBJECT,
                role=_AS_SECURITY_RESOURCE,
            ),
        ),
    )


def peer_refused(peer: Peer, why: str, application: Application, at: datetime) -> AuditMessage:
    """Security Alert, Node Authentication: a peer that may not associate (A.5.3.11)."""
    return AuditMessage(
        event=SECURITY_ALERT,
        types=(NODE_AUTHENTICATION,),
        action=Action.EXECUTE,
        outcome=EventOutcome.MINOR_FAILURE,
        description=why,
        at=at,
        participants=(
            application.taking_part(requestor=False),
            peer.taking_part(requestor=False),
        ),
        objects=(_alert_about(peer.address, _NODE, peer.ae_title or peer.address, why),),
    )


def configuration_changed(
    kind: Code, uri: str, what: str, application: Application, at: datetime
) -> AuditMessage:
    """Security Alert: the configuration is not that of the last run (A.5.3.11); an informative one.
    ``kind``: NETWORK_CONFIGURATION or SOFTWARE_CONFIGURATION."""
    return AuditMessage(
        event=SECURITY_ALERT,
        types=(kind,),
        action=Action.EXECUTE,
        outcome=EventOutcome.SUCCESS,
        at=at,
        participants=(application.taking_part(requestor=False),),
        objects=(_alert_about(uri, _URI, "Configuration", what),),
    )


def model_changed(uri: str, application: Application, at: datetime) -> AuditMessage:
    """Security Alert: a file of the model is not what its manifest says (A.5.3.11)."""
    what = "a file of the model is not what its manifest says"
    return AuditMessage(
        event=SECURITY_ALERT,
        types=(SOFTWARE_CONFIGURATION,),
        action=Action.EXECUTE,
        outcome=EventOutcome.SERIOUS_FAILURE,
        description=what,
        at=at,
        participants=(application.taking_part(requestor=False),),
        objects=(_alert_about(uri, _URI, "Model", what),),
    )


def _alert_about(object_id: str, id_type: Code, name: str, what: str) -> AuditObject:
    return AuditObject(
        object_id=object_id,
        id_type=id_type,
        name=name,
        type_code=_SYSTEM_OBJECT,
        role=_AS_SECURITY_RESOURCE if id_type is _NODE else _AS_MASTER_FILE,
        details={"Alert Description": what},
    )


def objects_of(
    subject: Subject, sop_classes: Sequence[str], details: Mapping[str, str] | None = None
) -> tuple[AuditObject, ...]:
    """Study and patient; nothing where the header names no study and there is nothing to tell."""
    if not subject.study_instance_uid and not details:
        return ()
    study = AuditObject(
        object_id=subject.study_instance_uid,
        id_type=_STUDY,
        name=subject.study_instance_uid,
        type_code=_SYSTEM_OBJECT,
        role=_AS_REPORT,
        sop_classes=dict(Counter(sop_classes)),
        details=details or {},
    )
    patient = AuditObject(
        object_id=subject.patient_id,
        id_type=_PATIENT_NUMBER,
        name=subject.patient_name,
        type_code=_PERSON,
        role=_AS_PATIENT,
    )
    return study, patient
