"""The composition root: from Settings to adapters and stages. The only place that names both.

What only some processes need is loaded where it is made: a receiver starts without the reports, the
sender and the centre.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.adapters.audit import (
    AuditForwarder,
    DiskTrail,
    LogFiles,
    NoTrail,
    Origin,
    Syslog,
    application,
)
from dicom_node.adapters.clock import SystemClock
from dicom_node.adapters.ledger import SqlCommitments, SqlLedger, SqlOutbox, SqlPromises
from dicom_node.adapters.predictor import BundlePredictor
from dicom_node.adapters.pseudonyms import PatientPseudonyms
from dicom_node.adapters.quarantine import DiskQuarantine
from dicom_node.adapters.reference_tables import load_reference_table
from dicom_node.adapters.spool import DiskSpool
from dicom_node.domain.assessment import Assessment, Prediction, ReferenceTable
from dicom_node.domain.audit import Application
from dicom_node.domain.audit import Peer as AuditedPeer
from dicom_node.domain.job import Stage
from dicom_node.folders import Folders
from dicom_node.lane import Lane
from dicom_node.ports import Eligibility, ReportRequest
from dicom_node.routing import Routing
from dicom_node.settings import DestinationSettings, Settings
from dicom_node.stages.commit import Commit
from dicom_node.stages.confirm import Confirm
from dicom_node.stages.deliver import Deliver
from dicom_node.stages.forward import Forward
from dicom_node.stages.infer import Infer
from dicom_node.stages.report import Report, assessment_of
from dicom_node.stages.screen import Screen
from dicom_node.tls import Certificates, ContextSource
from dicom_node.worker import BatchHandler, Handler

if TYPE_CHECKING:
    from PIL.Image import Image

    from dicom_node.adapters.audit.witness import NoWitness, ReceiverWitness
    from dicom_node.adapters.central.archive import PostgresArchive
    from dicom_node.adapters.central.pseudonyms import CentralPseudonyms
    from dicom_node.adapters.reporter import SrReporter
    from dicom_node.adapters.scu.association import Peer
    from dicom_node.adapters.scu.report_sender import DicomReportSender
    from dicom_node.adapters.scu.verifier import DicomVerifier
    from inference.decoding_process import DecodingProcess


class Wiring:
    """Builds each part of the node once, when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folders = Folders(root=settings.node.data_dir)
        self.clock = SystemClock()

    @cached_property
    def ledger(self) -> SqlLedger:
        """The local database; its file must have been migrated."""
        return SqlLedger(self.folders.ledger, self.clock)

    @cached_property
    def commitments(self) -> SqlCommitments:
        """What destinations prove."""
        return SqlCommitments(self.folders.ledger, self.clock)

    @cached_property
    def promises(self) -> SqlPromises:
        """What others asked the node to commit to."""
        return SqlPromises(self.folders.ledger, self.clock)

    @cached_property
    def outbox(self) -> SqlOutbox:
        """What the centre has still to learn."""
        return SqlOutbox(self.folders.ledger, self.clock)

    @cached_property
    def centre(self) -> PostgresArchive | None:
        """The central database; None without one."""
        central = self.settings.central
        if central.url is None:
            return None
        from dicom_node.adapters.central.archive import PostgresArchive

        return PostgresArchive(central.url, password_file=central.password_file)

    def forward(self, centre: PostgresArchive) -> Forward:
        """Tells the centre what it may know."""
        return Forward(
            outbox=self.outbox,
            centre=centre,
            pseudonyms=self.central_pseudonyms,
            reference=self.reference,
            region=self.settings.node.region,
            node=self.settings.node.name,
        )

    @cached_property
    def central_pseudonyms(self) -> CentralPseudonyms:
        """Names for the centre."""
        from dicom_node.adapters.central.pseudonyms import CentralPseudonyms

        return CentralPseudonyms(self.folders.keys / "central")

    @cached_property
    def commit(self) -> Commit:
        """Answers to requests for commitment."""
        return Commit(promises=self.promises, spool=self.spool, clock=self.clock)

    @cached_property
    def spool(self) -> DiskSpool:
        """Received objects on disk."""
        return DiskSpool(self.folders.spool)

    @cached_property
    def quarantine(self) -> DiskQuarantine:
        """What arrived and could not be understood."""
        return DiskQuarantine(self.folders.quarantine)

    @cached_property
    def reference(self) -> ReferenceTable:
        """The configured reference table."""
        return load_reference_table(self.settings.inference.reference)

    @cached_property
    def reporter(self) -> SrReporter:
        """Builds report objects."""
        from dicom_node.adapters.reporter import SrReporter

        return SrReporter(device_name=self.settings.node.name, decode=self.decoder.decode)

    @cached_property
    def decoder(self) -> DecodingProcess:
        """Decodes what comes from outside, in a process that can be killed."""
        from inference.decoding_process import DecodingProcess

        return DecodingProcess()

    @cached_property
    def pseudonyms(self) -> PatientPseudonyms:
        """Patients of earlier exams, without their identity."""
        return PatientPseudonyms(self.folders.keys / "patients.key")

    @cached_property
    def certificates(self) -> Certificates | None:
        """The node's certificate and its peers' authority; None without TLS."""
        tls = self.settings.tls
        if tls.certificate is None or tls.key is None or tls.ca is None:
            return None
        return Certificates(certificate=tls.certificate, key=tls.key, ca=tls.ca)

    def peer(self, destination: DestinationSettings) -> Peer:
        """A destination as a peer of commands that talk to it."""
        from dicom_node.adapters.scu.association import Peer

        return Peer(
            host=destination.host,
            port=destination.port,
            ae_title=destination.ae_title,
            tls=self._tls_towards(destination.tls),
        )

    def _tls_towards(self, wanted: bool) -> ContextSource | None:
        return self.certificates.client if wanted and self.certificates else None

    @cached_property
    def application(self) -> Application:
        """What the audit trail calls this process."""
        return application(self.settings.node.name, self.settings.node.ae_title)

    @cached_property
    def trail(self) -> DiskTrail | NoTrail:
        """Records what the audit trail must hold."""
        if not self.settings.audit.enabled:
            return NoTrail()
        node, host = self.settings.node, self.application.host
        origin = Origin(node=node.name, region=node.region, host=host)
        return DiskTrail(self.folders.audit, origin)

    def witness(self, receiver: str) -> ReceiverWitness | NoWitness:
        """What a receiver process, by its name, tells the trail."""
        from dicom_node.adapters.audit.witness import NoWitness, ReceiverWitness

        if not self.settings.audit.enabled:
            return NoWitness()
        return ReceiverWitness(
            self.trail,
            self.folders.audit.arriving / receiver,
            kept=self.spool.path,
            application=self.application,
            clock=self.clock,
        )

    @cached_property
    def audit_forwarder(self) -> AuditForwarder:
        """Takes what was recorded to the repository, or to files without one."""
        audit = self.settings.audit
        if audit.syslog_host is None or self.certificates is None:
            return AuditForwarder(self.folders.audit, LogFiles(self.folders.audit.root))
        syslog = Syslog(audit.syslog_host, audit.syslog_port, self.certificates.client)
        return AuditForwarder(self.folders.audit, syslog)

    def _audited_peer(self, destination: str) -> AuditedPeer:
        peers = {item.name: item for item in self.settings.destinations}
        return AuditedPeer(ae_title=peers[destination].ae_title, address=peers[destination].host)

    @cached_property
    def predictor(self) -> BundlePredictor:
        """The verified model, not yet warm."""
        inference = self.settings.inference
        return BundlePredictor(
            read=self.decoder.read,
            model=inference.model,
            device=inference.device,
            precision=inference.precision,
            batch_max=inference.batch_max,
        )

    @cached_property
    def sender(self) -> DicomReportSender:
        """Sends reports to the configured destinations."""
        from dicom_node.adapters.scu.report_sender import DestinationAddress, DicomReportSender

        return DicomReportSender(
            [
                DestinationAddress(
                    name=item.name,
                    peer=self.peer(item),
                    timeout_seconds=item.timeout_seconds,
                    fast_path=item.fast_path,
                )
                for item in self.settings.destinations
            ],
            calling_ae_title=self.settings.node.ae_title,
        )

    @cached_property
    def verifier(self) -> DicomVerifier:
        """Asks the configured destinations what they keep."""
        from dicom_node.adapters.scu.verifier import DicomVerifier, VerifiedDestination

        return DicomVerifier(
            [
                VerifiedDestination(
                    name=item.name,
                    peer=self.peer(item),
                    timeout_seconds=item.timeout_seconds,
                    proof=item.proof,
                )
                for item in self.settings.destinations
            ],
            calling_ae_title=self.settings.node.ae_title,
            told=self.commitments.record_result,
        )

    def return_commitments(self) -> None:
        """Tell requesters, on new associations, the results that are due."""
        from dicom_node.adapters.scu.association import Peer
        from dicom_node.adapters.scu.commitment_sender import ResultSender

        requesters = {
            ae_title: Peer(
                host=host,
                port=int(port),
                ae_title=ae_title,
                tls=self._tls_towards(bool(institution.certificate_names)),
            )
            for institution in self.settings.institutions
            for ae_title, address in institution.storage_commitment.items()
            for host, colon, port in [address.rpartition(":")]
            if colon
        }
        self.commit.return_due(
            ResultSender(requesters, calling_ae_title=self.settings.node.ae_title), list(requesters)
        )

    @cached_property
    def routing(self) -> Routing:
        """What institutions and destinations want."""
        return Routing(self.settings)

    def assessment(self, eligibility: Eligibility, prediction: Prediction) -> Assessment:
        """What the report says about a prediction."""
        return assessment_of(eligibility, prediction, self.reference)

    def picture(self, path: Path, assessment: Assessment, language: str) -> Image:
        """The annotated radiograph of a DICOM file, for people at a console."""
        request = ReportRequest(
            path=path,
            content_sha256="",
            finding=assessment,
            language=language,
            reported_at=self.clock.now(),
        )
        return self.reporter.picture(request)

    def work_handlers(self) -> dict[Stage, Handler]:
        """SCREEN and REPORT, which run beside inference."""
        from dicom_node.headers import read_header

        return {
            Stage.SCREEN: Screen(
                spool=self.spool,
                ledger=self.ledger,
                read_header=read_header,
                reports_not_assessed=self.routing.reports_not_assessed,
                pseudonym=self.pseudonyms,
            ),
            Stage.REPORT: Report(
                spool=self.spool,
                ledger=self.ledger,
                reporter=self.reporter,
                reference=self.reference,
                route=self.routing.route,
            ),
        }

    def infer(self) -> BatchHandler:
        """INFER for a batch."""
        return Infer(
            spool=self.spool,
            ledger=self.ledger,
            predictor=self.predictor,
            reports_not_assessed=self.routing.reports_not_assessed,
        )

    def lane(self, destination: str) -> Lane:
        """DELIVER for one destination."""
        from dicom_node.adapters.audit.witness import DeliveryWitness

        deliver = Deliver(
            ledger=self.ledger,
            sender=self.sender,
            clock=self.clock,
            kinds=self.routing.kinds,
            proof=self.routing.proof,
            transferred=DeliveryWitness(
                self.trail,
                application=self.application,
                clock=self.clock,
                peer=self._audited_peer,
            ),
        )
        return Lane(
            destination,
            ledger=self.ledger,
            deliver=deliver,
            probe=lambda: self.sender.answers(destination),
        )

    def confirm(self) -> Confirm:
        """CONFIRM for every destination."""
        return Confirm(
            commitments=self.commitments,
            verifier=self.verifier,
            clock=self.clock,
            proof=self.routing.proof,
        )
