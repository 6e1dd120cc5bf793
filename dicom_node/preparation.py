"""What the supervisor does before the processes may work: parts that can be used, a data folder as
they expect it."""

from __future__ import annotations

from dicom_node.adapters.ledger import OperatorLedger
from dicom_node.adapters.ledger.migrate import check_integrity, migrate
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.audit import audited_model
from dicom_node.domain.assessment import ModelIdentity
from dicom_node.domain.errors import NodeError
from dicom_node.domain.exam import UNKNOWN_SENDER, Instance, Receipt
from dicom_node.folders import Folders
from dicom_node.logs import log
from dicom_node.scp.policy import LOCAL_INSTITUTION
from dicom_node.settings import Settings
from dicom_node.wiring import Wiring


def check_parts(wiring: Wiring) -> ModelIdentity:
    """Refuse to start on a model or reference table that no process could use; return which model
    it is."""
    load_reference_table(wiring.settings.inference.reference)
    model = audited_model(wiring)
    if wiring.certificates is not None:
        wiring.certificates.server()
    return model


def prepare(settings: Settings) -> None:
    """Bring the data folder to the state that the processes expect: migrated ledger, no partial
    files, a row for every kept object, no job that a process holds which is dead, and the keys of
    the institutions' pseudonyms where there is a centre."""
    folders = Folders(root=settings.node.data_dir)
    check_integrity(folders.ledger)
    revision = migrate(folders.ledger)
    log("ledger_migrated", version=revision)
    wiring = Wiring(settings)
    wiring.ledger.expire_all_leases()
    _enter_orphans(wiring)
    if wiring.centre is not None:
        known = (LOCAL_INSTITUTION, *(item.id for item in settings.institutions))
        wiring.central_pseudonyms.prepare(known)


def _enter_orphans(wiring: Wiring) -> None:
    """A crash between the spool and the ledger leaves an object that was never acknowledged."""
    operator = OperatorLedger(wiring.folders.ledger, wiring.clock)
    orphans = sorted(wiring.spool.sweep() - operator.known_contents())
    operator.close()
    entered = sum(_enter_orphan(wiring, content_sha256) for content_sha256 in orphans)
    if entered:
        log("orphan_entered", count=entered)
    wiring.ledger.close()


def _enter_orphan(wiring: Wiring, content_sha256: str) -> bool:
    from dicom_node.headers import read_identity

    path = wiring.spool.path(content_sha256)
    try:
        identity = read_identity(path)
    except NodeError:
        return False  # never acknowledged and unreadable: it stays for a person to look at
    _, receipt = wiring.ledger.record_instance(
        Instance(
            sop_class_uid=identity.sop_class_uid,
            sop_instance_uid=identity.sop_instance_uid,
            transfer_syntax_uid=identity.transfer_syntax_uid,
            content_sha256=content_sha256,
            size_bytes=path.stat().st_size,
            calling_ae_title=UNKNOWN_SENDER,
            peer_address=UNKNOWN_SENDER,
            institution_id=_institution_of_orphans(wiring.settings),
            received_at=wiring.clock.now(),
        )
    )
    return receipt is not Receipt.DUPLICATE


def _institution_of_orphans(settings: Settings) -> str:
    """Whose an object must be, where only one answer is possible."""
    if not settings.institutions:
        return LOCAL_INSTITUTION
    [first, *others] = settings.institutions
    only = settings.receive.require_known_sender and not others
    return first.id if only else UNKNOWN_SENDER
