"""Every kind of audit message keeps the schema of PS3.15 A.5.1 and says what happened; the schema
finds a wrong one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from pydicom.sr.codedict import codes

from dicom_node.adapters.audit.message import BOM, MESSAGE_ID, as_syslog, as_xml
from dicom_node.domain import audit
from dicom_node.domain.audit import Action, AuditMessage, Code, EventOutcome, Operator, Subject
from tests.builders.audit import (
    AT,
    CHILD,
    CR,
    NODE,
    ORIGIN,
    PACS,
    SR,
    XRAY,
    arrival,
    every_kind,
    schema_errors,
)

KINDS = every_kind()
SENT = as_xml(KINDS["sent"], ORIGIN)
HEADER = re.compile(
    rb"<(\d+)>1 (\S+) (\S+) (\S+) (\S+) (\S+) \[meta sequenceId=\"(\d+)\"\] \xef\xbb\xbf<\?xml"
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_schema_on_one_line(kind: str) -> None:
    xml = as_xml(KINDS[kind], ORIGIN)
    assert schema_errors(xml) == []
    assert b"\n" not in xml


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"csd-code", b"code"),
        (b"originalText", b"displayName"),
        (b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="1"'),
        (b'EventActionCode="R"', b'EventActionCode="X"'),
        (b"2026-03-02T14", b"02.03.2026 14"),
        (b' UserIsRequestor="true"', b""),
        (b'UserIsRequestor="true"', b'UserIsRequestor="yes"'),
        (b'NetworkAccessPointTypeCode="1"', b'NetworkAccessPointTypeCode="6"'),
        (b' AuditSourceID="boneage-node"', b""),
        (b'ParticipantObjectTypeCodeRole="3"', b'ParticipantObjectTypeCodeRole="27"'),
        (b"<ParticipantObjectName>1.2.3</ParticipantObjectName>", b""),
        (b'NumberOfInstances="2"', b""),
        (b'NumberOfInstances="2"', b'NumberOfInstances="two"'),
        (b"SOPClass", b"SopClass"),
        (b"<EventID ", b"<Other /><EventID "),
        (b"AuditMessage", b"Message"),
    ],
)
def test_the_schema_finds_what_is_wrong(right: bytes, wrong: bytes) -> None:
    assert right in SENT
    assert schema_errors(SENT.replace(right, wrong)) != []


@pytest.mark.parametrize(
    "xpath",
    ["EventIdentification", "ActiveParticipant", "AuditSourceIdentification"],
)
def test_the_schema_finds_what_is_missing(xpath: str) -> None:
    root = etree.fromstring(SENT)
    for element in root.findall(xpath):
        root.remove(element)
    assert schema_errors(etree.tostring(root)) != []


def dicom_codes(message: AuditMessage) -> list[Code]:
    participants = [item.role for item in message.participants if item.role]
    kinds = [item.id_type for item in message.objects]
    return [message.event, *message.types, *participants, *kinds]


def test_every_code_is_one_of_the_standard() -> None:
    used = {code for message in KINDS.values() for code in dicom_codes(message)}
    ours = {(code.value, code.meaning) for code in used if code.scheme == "DCM"}
    theirs = {_dcm(name) for name in dir(codes.DCM) if name[0].isupper()}
    assert len(ours) > 10
    assert ours <= theirs


def _dcm(name: str) -> tuple[str, str]:
    found = getattr(codes.DCM, name)
    return str(found.value), str(found.meaning)


def test_a_message_for_each_study_and_another_for_what_was_refused() -> None:
    other = replace(CHILD, study_instance_uid="1.2.4")
    arrivals = [
        arrival(),
        arrival(subject=other),
        arrival(),
        arrival(stored=False),
        arrival(subject=Subject(), stored=False),
    ]
    messages = audit.received(arrivals, NODE, AT)
    assert [message.outcome for message in messages] == [
        EventOutcome.SUCCESS,
        EventOutcome.SUCCESS,
        EventOutcome.MINOR_FAILURE,
        EventOutcome.MINOR_FAILURE,
    ]
    first = messages[0].objects
    assert [item.object_id for item in first] == ["1.2.3", "ZZCANARY"]
    assert first[0].sop_classes == {CR: 2}
    assert messages[-1].objects == ()


def test_source_and_destination_of_what_came_and_of_what_went() -> None:
    came, went = KINDS["received"], KINDS["sent"]
    assert (came.action, went.action) == (Action.CREATE, Action.READ)
    assert [(p.role, p.requestor) for p in came.participants] == [
        (audit.SOURCE, True),
        (audit.DESTINATION, False),
    ]
    source, destination = went.participants
    assert source.alternative_user_id == "AETITLES=BONEAGE"
    assert (destination.user_id, destination.address) == ("PACS", "pacs.example")
    assert went.objects[0].sop_classes == {SR: 2}


@pytest.mark.parametrize(
    ("address", "kind"),
    [("192.0.2.7", "2"), ("fe80::1%eth0", "2"), ("pacs.example", "1")],
)
def test_an_ip_address_is_told_from_a_name(address: str, kind: str) -> None:
    assert replace(PACS, address=address).taking_part(requestor=False).address_type == kind


@pytest.mark.parametrize(("kind", "priority"), [("sent", b"85"), ("stranger", b"84")])
def test_the_syslog_header(kind: str, priority: bytes) -> None:
    line = as_syslog(KINDS[kind], ORIGIN, sequence=7, process_id=412)
    found = HEADER.match(line)
    assert found is not None
    assert found.groups() == (
        priority,
        b"2026-03-02T14:05:11.204518Z",
        b"node.example",
        b"boneage-node",
        b"412",
        MESSAGE_ID.encode(),
        b"7",
    )
    assert line.count(BOM) == 1


def test_the_syslog_header_has_no_blanks_of_others() -> None:
    odd = replace(ORIGIN, host="a b\n", node="x" * 64)
    line = as_syslog(KINDS["start"], odd, sequence=1, process_id=1)
    assert line.split(b" ")[2:4] == [b"a?b?", b"x" * 48]
    assert (
        as_syslog(KINDS["start"], replace(ORIGIN, host=""), sequence=1, process_id=1).split(b" ")[2]
        == b"-"
    )


TEXTS = st.text(max_size=80) | st.characters() | st.just("x" * 5000)


@given(TEXTS, TEXTS, TEXTS)
def test_whatever_a_header_or_a_person_says_is_one_line_by_the_schema(
    name: str, identifier: str, reason: str
) -> None:
    subject = Subject(study_instance_uid=identifier, patient_id=identifier, patient_name=name)
    person = Operator(login=name, host=identifier)
    message = audit.accessed(Action.UPDATE, subject, person, NODE, AT, details={"Reason": reason})
    line = as_syslog(message, ORIGIN, sequence=1, process_id=1)
    assert schema_errors(line[line.index(b"<?xml") :]) == []
    assert not re.search(rb"[\x00-\x1f]", line)
    assert len(line) < 32_768


def test_a_peer_without_a_title_is_named_by_its_address() -> None:
    alert = KINDS["no certificate"]
    assert alert.participants[1].user_id == "2001:db8::7"
    assert alert.types == (audit.NODE_AUTHENTICATION,)
    assert XRAY.taking_part(requestor=True).user_id == "XRAY"
