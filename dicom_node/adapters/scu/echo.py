"""A C-ECHO that explains itself: name, TCP, association, echo and what the peer would accept."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.association import Association

from dicom_node.adapters.scu.association import (
    Peer,
    Refusal,
    accepted_pairs,
    connect,
    contexts_for,
    negotiate,
    reason_of,
    refusal,
    rejection,
    uid_name,
)
from dicom_node.adapters.scu.report_sender import REPORT_CLASSES, REPORT_PAIRS
from dicom_node.domain.receipt import (
    CALLED_AE_TITLE_NOT_RECOGNISED,
    CALLING_AE_TITLE_NOT_RECOGNISED,
    Rejection,
)

VERIFICATION = "1.2.840.10008.1.1"
DEFAULT_TIMEOUT_SECONDS = 10.0


class StepName(StrEnum):
    """The steps of a diagnosis, in order."""

    NAME = "name"
    TCP = "tcp"
    ASSOCIATION = "association"
    ECHO = "echo"
    CONTEXTS = "contexts"


class Hint(StrEnum):
    """What to do next; texts in :data:`HINTS`."""

    NONE = "none"
    CHECK_HOST_NAME = "check_host_name"
    CHECK_PORT = "check_port"
    CHECK_FIREWALL = "check_firewall"
    CHECK_CALLING_AE_TITLE = "check_calling_ae_title"
    CHECK_CALLED_AE_TITLE = "check_called_ae_title"
    TRY_LATER = "try_later"
    ASK_PEER = "ask_peer"
    NOT_DICOM = "not_dicom"
    NO_ECHO = "no_echo"
    NO_REPORT_CLASS = "no_report_class"
    SOME_REPORT_CLASSES = "some_report_classes"


HINTS: Mapping[Hint, Mapping[str, str]] = {
    Hint.NONE: {"en": "", "pt-BR": ""},
    Hint.CHECK_HOST_NAME: {
        "en": "Check the host name and this machine's DNS, or use the IP address.",
        "pt-BR": "Verifique o nome do servidor e o DNS desta máquina, ou use o endereço IP.",
    },
    Hint.CHECK_PORT: {
        "en": "The machine answers but nothing listens on this port: check the number and that the "
        "PACS is running.",
        "pt-BR": "A máquina responde, mas nada escuta nesta porta: verifique o número e se o PACS "
        "está em execução.",
    },
    Hint.CHECK_FIREWALL: {
        "en": "No connection: check the address, the network route and the firewall between the "
        "two machines.",
        "pt-BR": "Sem conexão: verifique o endereço, a rota de rede e o firewall entre as duas "
        "máquinas.",
    },
    Hint.CHECK_CALLING_AE_TITLE: {
        "en": "The peer does not know this node: register its AE title and IP address there.",
        "pt-BR": "O destino não conhece este nó: cadastre lá o AE title e o endereço IP deste nó.",
    },
    Hint.CHECK_CALLED_AE_TITLE: {
        "en": "The peer has another AE title: check its spelling, upper and lower case included.",
        "pt-BR": "O destino tem outro AE title: verifique a grafia, inclusive maiúsculas e "
        "minúsculas.",
    },
    Hint.TRY_LATER: {
        "en": "The peer is busy or limits its associations: try again later, or raise its limit.",
        "pt-BR": "O destino está ocupado ou limita as associações: tente mais tarde ou aumente o "
        "limite dele.",
    },
    Hint.ASK_PEER: {
        "en": "The peer refuses: its log says why.",
        "pt-BR": "O destino recusa: o log dele diz o motivo.",
    },
    Hint.NOT_DICOM: {
        "en": "Something listens there but does not speak plain DICOM: check the port, and whether "
        "the peer wants TLS or drops unknown senders silently.",
        "pt-BR": "Algo escuta nesta porta, mas não fala DICOM sem TLS: verifique a porta e se o "
        "destino exige TLS ou descarta remetentes desconhecidos sem resposta.",
    },
    Hint.NO_ECHO: {
        "en": "The association stands but C-ECHO does not work; storing may work all the same.",
        "pt-BR": "A associação existe, mas o C-ECHO não funciona; o armazenamento ainda pode "
        "funcionar.",
    },
    Hint.NO_REPORT_CLASS: {
        "en": "Reports cannot be stored there: have the PACS accept Comprehensive 3D SR or "
        "Enhanced SR from this AE title.",
        "pt-BR": "Laudos não podem ser armazenados lá: habilite no PACS Comprehensive 3D SR ou "
        "Enhanced SR para este AE title.",
    },
    Hint.SOME_REPORT_CLASSES: {
        "en": "What is not accepted cannot be stored there: where needed, enable the class in "
        "the PACS for this AE title.",
        "pt-BR": "O que não é aceito não pode ser armazenado: se for necessário, habilite a classe "
        "no PACS para este AE title.",
    },
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step's result: what was found and what to do about it."""

    name: StepName
    ok: bool
    detail: str
    hint: Hint = Hint.NONE


_NO_ANSWER = Step(
    name=StepName.ASSOCIATION, ok=False, detail="no DICOM answer", hint=Hint.NOT_DICOM
)


def diagnose(
    peer: Peer, *, calling_ae_title: str, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> Iterator[Step]:
    """Test a destination step by step; the first failure that hides the rest ends it.

    Host name, TCP, association (PS3.8 7.1), C-ECHO (PS3.4 A) and the report classes it accepts.
    """
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as error:
        yield Step(name=StepName.NAME, ok=False, detail=reason_of(error), hint=Hint.CHECK_HOST_NAME)
        return
    yield Step(name=StepName.NAME, ok=True, detail=str(found[0][4][0]))
    try:
        connection = connect(peer, timeout_seconds)
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        hint = Hint.CHECK_PORT if refused else Hint.CHECK_FIREWALL
        yield Step(name=StepName.TCP, ok=False, detail=reason_of(error), hint=hint)
        return
    yield Step(name=StepName.TCP, ok=True, detail=f"{peer.host}:{peer.port}")
    try:
        association = negotiate(
            connection,
            peer,
            contexts_for([(VERIFICATION, ImplicitVRLittleEndian), *REPORT_PAIRS]),
            calling_ae_title=calling_ae_title,
            timeout_seconds=timeout_seconds,
        )
    except OSError:
        yield _NO_ANSWER
        return
    yield from _diagnose_association(association)


def _diagnose_association(association: Association) -> Iterator[Step]:
    why = refusal(association)
    if why is not None:
        yield _refused(why, association)
        return
    yield Step(name=StepName.ASSOCIATION, ok=True, detail="accepted")
    accepted = {sop_class for sop_class, _ in accepted_pairs(association)}
    yield (
        _echo(association)
        if VERIFICATION in accepted
        else Step(
            name=StepName.ECHO, ok=False, detail="Verification is not accepted", hint=Hint.NO_ECHO
        )
    )
    association.release()
    yield _report_classes(accepted)


def _refused(why: Refusal, association: Association) -> Step:
    if why is Refusal.NO_ANSWER:
        return _NO_ANSWER
    if why is Refusal.NO_CONTEXT:
        return Step(
            name=StepName.CONTEXTS,
            ok=False,
            detail="no presentation context accepted",
            hint=Hint.NO_REPORT_CLASS,
        )
    answer = rejection(association)
    return Step(
        name=StepName.ASSOCIATION,
        ok=False,
        detail=f"rejected: {answer.reason_text}",
        hint=_rejection_hint(answer),
    )


def _rejection_hint(answer: Rejection) -> Hint:
    if answer == CALLING_AE_TITLE_NOT_RECOGNISED:
        return Hint.CHECK_CALLING_AE_TITLE
    if answer == CALLED_AE_TITLE_NOT_RECOGNISED:
        return Hint.CHECK_CALLED_AE_TITLE
    return Hint.TRY_LATER if answer.transient else Hint.ASK_PEER


def _echo(association: Association) -> Step:
    status = association.send_c_echo().get("Status") if association.is_established else None
    if status is None:
        return Step(name=StepName.ECHO, ok=False, detail="no answer", hint=Hint.NO_ECHO)
    hint = Hint.NONE if status == 0 else Hint.NO_ECHO
    return Step(name=StepName.ECHO, ok=status == 0, detail=f"status {status:04X}", hint=hint)


def _report_classes(accepted: set[str]) -> Step:
    def marked(sop_class: str) -> str:
        return f"{uid_name(sop_class)}: {'yes' if sop_class in accepted else 'no'}"

    wanted = set(REPORT_CLASSES)
    hint = Hint.NONE if wanted <= accepted else Hint.SOME_REPORT_CLASSES
    if not wanted & accepted:
        hint = Hint.NO_REPORT_CLASS
    return Step(
        name=StepName.CONTEXTS,
        ok=bool(wanted & accepted),
        detail="; ".join(map(marked, REPORT_CLASSES)),
        hint=hint,
    )
