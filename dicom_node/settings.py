"""One frozen Settings, read once from a TOML file and the environment.

Environment variables override the file: ``DICOM_NODE_NODE__PORT=11113``. Every key is documented in
``config/node.example.toml``; a test compares the two.
"""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dicom_node.domain.commitment import Proof
from dicom_node.domain.delivery import ReportKind
from dicom_node.domain.exam import UNKNOWN_SENDER, Outcome

AeTitle = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]+$"
    ),
]
"""Application Entity title: 1 to 16 printable characters without backslash (PS3.5 6.2, VR AE)."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
_RESERVED_IDS = frozenset({"local", UNKNOWN_SENDER})
"""Institution of unrestricted senders, and of objects whose sender was forgotten."""
Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]
Days = Annotated[int, Field(ge=0, le=36500)]
"""0: for ever."""
Bucket = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
Address = Annotated[str, StringConstraints(pattern=r"^(\S+:\d{1,5})?$")]
"""``host:port``, or nothing."""


class SettingsError(Exception):
    """The configuration cannot be used; the message names the file, the key and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSettings(_Section):
    """``[node]``: who and where this node is."""

    name: Name = "boneage-node"
    region: Name = "local"
    ae_title: AeTitle = "BONEAGE"
    bind: str = "127.0.0.1"
    port: Port = 11112
    data_dir: Path = Path("data")
    metrics_port: Port = 9112
    language: Literal["pt-BR", "en"] = "pt-BR"


class ReceiveSettings(_Section):
    """``[receive]``: limits of the receiving side."""

    processes: Positive = 1
    max_associations: Positive = 20
    max_associations_per_peer: Positive = 8
    max_object_mb: Positive = 256
    max_pdu_kb: Positive = 256
    fast_path: bool = True
    high_water_percent: Annotated[int, Field(ge=1, le=100)] = 90
    require_known_sender: bool = False


class TlsSettings(_Section):
    """``[tls]``: DICOM over TLS, both sides with certificates (PS3.15 B.12)."""

    port: Port | None = None
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    required: bool = False

    @property
    def available(self) -> bool:
        """Whether there are certificates."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _complete(self) -> TlsSettings:
        given = [name for name in ("certificate", "key", "ca") if getattr(self, name) is not None]
        if given and len(given) < 3:
            raise ValueError("certificate, key and ca belong together: set all three or none")
        if self.port is not None and not given:
            raise ValueError("tls.port needs certificate, key and ca")
        if self.required and self.port is None:
            raise ValueError("tls.required needs tls.port")
        return self


class InstitutionSettings(_Section):
    """``[[institutions]]``: a hospital that is a customer."""

    id: Name
    name: str
    calling_ae_titles: tuple[AeTitle, ...]
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    certificate_names: tuple[str, ...] = ()
    images_per_minute: Positive | None = None
    destinations: tuple[Name, ...] = ()
    language: Literal["pt-BR", "en"] | None = None
    report_not_assessed: bool = True
    objects: Annotated[tuple[ReportKind, ...], Field(min_length=1)] | None = None
    viewer_shows_sr: bool = True
    character_set: Literal["utf-8", "source"] = "utf-8"
    storage_commitment: dict[AeTitle, Address] = {}
    images_days: Days | None = None
    reports_days: Days | None = None

    @property
    def report_objects(self) -> tuple[ReportKind, ...]:
        """``objects``, or the default set: both Structured Reports, and a picture where the viewer
        shows none."""
        if self.objects is not None:
            return self.objects
        both = (ReportKind.MEASUREMENTS, ReportKind.NARRATIVE)
        return both if self.viewer_shows_sr else (*both, ReportKind.CAPTURE)


class DestinationSettings(_Section):
    """``[[destinations]]``: a PACS that gets reports."""

    name: Name
    ae_title: AeTitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: bool = False
    storage_commitment: bool = False
    verify_by_query: bool = False
    objects: Annotated[tuple[ReportKind, ...], Field(min_length=1)] = tuple(ReportKind)
    timeout_seconds: Annotated[int, Field(ge=1, le=30)] = 30
    fast_path: bool = True

    @property
    def proof(self) -> Proof:
        """What closes a delivery."""
        if self.storage_commitment:
            return Proof.COMMITMENT
        return Proof.QUERY if self.verify_by_query else Proof.STATUS

    @model_validator(mode="after")
    def _one_proof(self) -> DestinationSettings:
        if self.storage_commitment and self.verify_by_query:
            raise ValueError("storage_commitment and verify_by_query prove the same: set one")
        return self


class InferenceSettings(_Section):
    """``[inference]``: the model and what runs it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: Positive = 2
    batch_max: Positive = 8
    batch_wait_ms: Annotated[int, Field(ge=0)] = 20
    model: str = "boneage-lite0"
    reference: str = "greulich-pyle-v-vi"

    @model_validator(mode="after")
    def _possible(self) -> InferenceSettings:
        if self.device == "cpu" and self.precision in {"bf16", "fp16"}:
            raise ValueError(
                f'precision = "{self.precision}" runs on CUDA only: set inference.precision = '
                '"auto" or another inference.device'
            )
        return self


class RetentionSettings(_Section):
    """``[retention]``: days that objects stay after their exam has ended."""

    images_days: Days = 7
    reports_days: Days = 90
    quarantine_days: Days = 30


class ArchiveSettings(_Section):
    """``[archive]``: an S3-compatible store in the region; without bucket nothing is archived."""

    bucket: Bucket | None = None
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = None
    region: str = "sa-east-1"
    prefix: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_.-]+/)*$")] = ""
    credentials_file: Path | None = None
    ca: Path | None = None
    images: tuple[Outcome, ...] = ()

    @model_validator(mode="after")
    def _ended(self) -> ArchiveSettings:
        if Outcome.PENDING in self.images:
            raise ValueError("archive.images: an exam that is pending has no outcome yet")
        return self


class AuditSettings(_Section):
    """``[audit]``: who did what with whose images (PS3.15 A.5)."""

    enabled: bool = True
    syslog_host: str | None = None
    syslog_port: Annotated[int, Field(ge=1, le=65535)] = 6514


class CentralSettings(_Section):
    """``[central]``: the PostgreSQL that learns pseudonymous metadata; without url nothing leaves
    this machine."""

    url: Annotated[str, StringConstraints(pattern=r"^postgresql://")] | None = None
    read_url: Annotated[str, StringConstraints(pattern=r"^postgresql://")] | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _no_password(self) -> CentralSettings:
        for name in ("url", "read_url"):
            role, at, _ = (getattr(self, name) or "").partition("//")[2].partition("@")
            if at and ":" in role:
                raise ValueError(
                    f"central.{name} holds a password: put it into a file, as libpq reads it "
                    "(host:port:database:user:password, mode 0600), and name it in "
                    "central.password_file"
                )
        return self


class Settings(BaseSettings):
    """The whole configuration; without a file the embedded defaults run a node on this machine."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="DICOM_NODE_", env_nested_delimiter="__"
    )

    node: NodeSettings = NodeSettings()
    receive: ReceiveSettings = ReceiveSettings()
    tls: TlsSettings = TlsSettings()
    institutions: tuple[InstitutionSettings, ...] = ()
    destinations: tuple[DestinationSettings, ...] = ()
    inference: InferenceSettings = InferenceSettings()
    retention: RetentionSettings = RetentionSettings()
    archive: ArchiveSettings = ArchiveSettings()
    audit: AuditSettings = AuditSettings()
    central: CentralSettings = CentralSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what the file says."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        _check_names(self.destinations, self.institutions)
        known = {destination.name for destination in self.destinations}
        for institution in self.institutions:
            unknown = ", ".join(sorted(set(institution.destinations) - known))
            if unknown:
                raise ValueError(f"institution {institution.id}: unknown destinations {unknown}")
        for institution in self.institutions:
            _check_objects(institution, self.destinations)
        _check_tls(self.tls, self.institutions, self.destinations)
        _check_requesters(self.institutions)
        if self.audit.syslog_host is not None and not self.tls.available:
            raise ValueError("audit.syslog_host needs certificate, key and ca under [tls]")
        titles = [t for institution in self.institutions for t in institution.calling_ae_titles]
        if twins := _twice(titles):
            raise ValueError(f"calling AE titles of more than one institution: {twins}")
        if self.receive.require_known_sender and not titles:
            raise ValueError("receive.require_known_sender needs at least one institution")
        loopback = self.node.bind == "localhost" or ip_address(self.node.bind).is_loopback
        if not loopback and not self.receive.require_known_sender:
            raise ValueError(
                "node.bind is not a loopback address: set receive.require_known_sender = true and "
                "list the senders under [[institutions]]"
            )
        return self


def _check_names(
    destinations: tuple[DestinationSettings, ...], institutions: tuple[InstitutionSettings, ...]
) -> None:
    ids = [item.id for item in institutions]
    for key, names in (
        ("destinations: name", [item.name for item in destinations]),
        ("institutions: id", ids),
    ):
        if twins := _twice(names):
            raise ValueError(f"{key} {twins} stands twice")
    if reserved := _RESERVED_IDS.intersection(ids):
        raise ValueError(f"institutions: id {', '.join(reserved)} is reserved: choose another")


def _check_tls(
    tls: TlsSettings,
    institutions: tuple[InstitutionSettings, ...],
    destinations: tuple[DestinationSettings, ...],
) -> None:
    for destination in destinations:
        if destination.tls and not tls.available:
            raise ValueError(
                f"destination {destination.name}: tls needs certificate, key and ca under [tls]"
            )
    for institution in institutions:
        if institution.certificate_names and tls.port is None:
            raise ValueError(f"institution {institution.id}: certificate_names needs tls.port")


def _check_requesters(institutions: tuple[InstitutionSettings, ...]) -> None:
    for institution in institutions:
        strangers = set(institution.storage_commitment) - set(institution.calling_ae_titles)
        if strangers:
            raise ValueError(
                f"institution {institution.id}: storage_commitment names "
                f"{', '.join(sorted(strangers))}, which its calling_ae_titles do not list"
            )


def _check_objects(
    institution: InstitutionSettings, destinations: tuple[DestinationSettings, ...]
) -> None:
    wanted = set(institution.report_objects)
    for destination in destinations:
        goes_there = not institution.destinations or destination.name in institution.destinations
        if goes_there and not wanted & set(destination.objects):
            raise ValueError(
                f"institution {institution.id}: destination {destination.name} takes none of its "
                f"objects: {', '.join(sorted(wanted))}"
            )


def _twice(names: list[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


def load_settings(path: Path | None) -> Settings:
    """Read the configuration. Raises :class:`SettingsError` with one line for each wrong key."""
    try:
        if path is None:
            return Settings()
        return Settings(**tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or 'configuration'}: {item['msg']}"
            for item in error.errors()
        ]
        raise SettingsError(f"{path or 'environment'}: " + "; ".join(lines)) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path or 'environment'}: cannot be read: {error}") from None
