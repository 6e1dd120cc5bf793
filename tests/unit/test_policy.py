"""Who may associate, and with which PS3.8 code the others are turned away."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.receipt import RejectResult, RejectSource
from dicom_node.scp.policy import (
    LOCAL_INSTITUTION,
    Admit,
    Answer,
    AssociationRequest,
    Load,
    Policy,
    Reject,
)
from dicom_node.settings import InstitutionSettings, ReceiveSettings, Settings, TlsSettings

CLINIC = InstitutionSettings(
    id="clinic",
    name="Clinic",
    calling_ae_titles=("XRAY1", "XRAY2"),
    networks=(ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")),
)
HOSPITAL = InstitutionSettings(id="hospital", name="Hospital", calling_ae_titles=("PACS",))
IDLE = Load(associations=0, associations_of_peer=0, disk_used_percent=10.0, draining=False)


def policy(*, known_only: bool = False) -> Policy:
    receive = ReceiveSettings(
        max_associations=5,
        max_associations_per_peer=2,
        high_water_percent=80,
        require_known_sender=known_only,
    )
    return Policy(Settings(receive=receive, institutions=(CLINIC, HOSPITAL)))


def request(
    calling: str = "XRAY1", address: str = "10.1.2.3", called: str = "BONEAGE"
) -> AssociationRequest:
    return AssociationRequest(
        called_ae_title=called, calling_ae_title=calling, peer_address=address
    )


def load(
    *,
    associations: int = 0,
    of_peer: int = 0,
    used: float | None = 10.0,
    draining: bool = False,
) -> Load:
    return Load(
        associations=associations,
        associations_of_peer=of_peer,
        disk_used_percent=used,
        draining=draining,
    )


def codes(decision: Admit | Reject) -> tuple[Answer, int, int, int]:
    assert isinstance(decision, Reject)
    code = decision.rejection
    return decision.answer, code.result, code.source, code.reason


@pytest.mark.parametrize(
    ("calling", "address", "institution"),
    [
        ("XRAY1", "10.1.2.3", "clinic"),
        ("XRAY2", "2001:db8::7", "clinic"),
        ("XRAY2", "::ffff:10.1.2.3", "clinic"),
        ("PACS", "192.0.2.9", "hospital"),
        ("PACS", "fe80::1%eth0", "hospital"),
    ],
)
def test_a_listed_sender_belongs_to_its_institution(
    calling: str, address: str, institution: str
) -> None:
    decision = policy(known_only=True).decide(request(calling, address), IDLE)
    assert decision == Admit(institution_id=institution)


def test_an_unlisted_sender_is_local_where_senders_are_unrestricted() -> None:
    decision = policy().decide(request("NOBODY", "127.0.0.1"), IDLE)
    assert decision == Admit(institution_id=LOCAL_INSTITUTION)


def test_an_unlisted_sender_is_not_recognised_where_senders_must_be_known() -> None:
    decision = policy(known_only=True).decide(request("NOBODY"), IDLE)
    assert codes(decision) == (Answer.UNKNOWN_SENDER, 1, 1, 3)


@pytest.mark.parametrize("address", ["10.2.0.1", "2001:db9::1", "::ffff:10.2.0.1"])
@pytest.mark.parametrize("known_only", [True, False])
def test_a_listed_sender_from_a_foreign_network_is_not_recognised(
    address: str, known_only: bool
) -> None:
    decision = policy(known_only=known_only).decide(request(address=address), IDLE)
    assert codes(decision) == (Answer.WRONG_NETWORK, 1, 1, 3)


@pytest.mark.parametrize("called", ["", "boneage", "ANY-SCP", "BONEAGE2"])
def test_another_called_title_is_not_recognised(called: str) -> None:
    decision = policy().decide(request(called=called), IDLE)
    assert codes(decision) == (Answer.WRONG_CALLED_AE_TITLE, 1, 1, 7)


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (None, Answer.NO_CERTIFICATE),
        (frozenset({"xray9.example"}), Answer.WRONG_CERTIFICATE),
        (frozenset(), Answer.WRONG_CERTIFICATE),
        (frozenset({"other", "xray1.example"}), None),
    ],
)
def test_a_certificate_binds_an_ae_title_to_its_owner(
    names: frozenset[str] | None, answer: Answer | None
) -> None:
    bound = InstitutionSettings(
        id="bound", name="", calling_ae_titles=("XRAY1",), certificate_names=("xray1.example",)
    )
    free = InstitutionSettings(id="free", name="", calling_ae_titles=("FREE",))
    tls = TlsSettings(port=0, certificate=Path("a"), key=Path("b"), ca=Path("c"))
    rules = Policy(Settings(institutions=(bound, free), tls=tls))
    decision = rules.decide(replace(request(), certificate_names=names), IDLE)
    if answer is None:
        assert decision == Admit(institution_id="bound")
    else:
        assert codes(decision) == (answer, 1, 1, 3)
    assert rules.decide(replace(request("FREE"), certificate_names=names), IDLE) == Admit(
        institution_id="free"
    )


def test_where_tls_is_required_nobody_comes_without() -> None:
    tls = TlsSettings(port=0, certificate=Path("a"), key=Path("b"), ca=Path("c"), required=True)
    rules = Policy(Settings(tls=tls))
    assert codes(rules.decide(request(), IDLE)) == (Answer.NO_CERTIFICATE, 1, 1, 3)
    named = replace(request(), certificate_names=frozenset({"any"}))
    assert isinstance(rules.decide(named, IDLE), Admit)


def test_the_node_does_not_send_to_itself() -> None:
    decision = policy().decide(request(calling="BONEAGE"), IDLE)
    assert codes(decision) == (Answer.LOOP, 1, 1, 3)


@pytest.mark.parametrize(
    ("busy", "answer", "reason"),
    [
        (load(draining=True), Answer.DRAINING, 1),
        (load(used=80.0), Answer.STORAGE_FULL, 1),
        (load(used=None), Answer.STORAGE_FULL, 1),
        (load(associations=5), Answer.TOO_MANY_ASSOCIATIONS, 2),
        (load(associations=2, of_peer=2), Answer.TOO_MANY_FROM_PEER, 2),
    ],
)
def test_a_busy_node_rejects_for_now(busy: Load, answer: Answer, reason: int) -> None:
    assert codes(policy().decide(request(), busy)) == (
        answer,
        RejectResult.TRANSIENT,
        RejectSource.PROVIDER_PRESENTATION,
        reason,
    )


def test_an_open_association_has_half_of_what_is_left_above_the_mark() -> None:
    policy = Policy(Settings(receive=ReceiveSettings(high_water_percent=90)))
    assert policy.has_room(94.9)
    assert not policy.has_room(95.0)


def test_the_last_place_is_given() -> None:
    decision = policy().decide(request(), load(associations=4, of_peer=1, used=79.9))
    assert isinstance(decision, Admit)


def test_a_stranger_is_rejected_for_good_even_when_the_node_is_full() -> None:
    decision = policy(known_only=True).decide(request("NOBODY"), load(draining=True))
    assert codes(decision)[1] == RejectResult.PERMANENT


addresses = st.ip_addresses().map(str)


@given(calling=st.text(max_size=16), called=st.text(max_size=16), address=addresses)
def test_whatever_is_requested_the_strict_policy_admits_only_listed_titles(
    calling: str, called: str, address: str
) -> None:
    decision = policy(known_only=True).decide(request(calling, address, called), IDLE)
    if isinstance(decision, Admit):
        assert called == "BONEAGE"
        assert calling in ("XRAY1", "XRAY2", "PACS")


def test_reasons_are_said_in_words() -> None:
    decision = policy().decide(request(called="X"), IDLE)
    assert isinstance(decision, Reject)
    assert decision.rejection.reason_text == "called AE title not recognised (01/01/07)"
