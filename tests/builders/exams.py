"""Exams, predictions and reports as plain values, the way of an exam to a stage, and small, valid
hand radiographs as DICOM data sets."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.domain.assessment import HandBox, ModelIdentity, Note, Prediction, Saliency
from dicom_node.domain.delivery import Answer, Delivery, ReportKind, ReportObject, Verdict
from dicom_node.domain.eligibility import CR_IMAGE_STORAGE
from dicom_node.domain.errors import Fault
from dicom_node.domain.exam import Instance, Laterality, Sex
from dicom_node.domain.job import Job, Stage
from dicom_node.domain.retry import Park
from dicom_node.ports import Eligibility, Ledger
from inference.phantom.dicom import Modality, to_dataset
from inference.phantom.maturation import Sex as DrawnSex
from inference.phantom.radiograph import Radiograph, draw

LEASE_SECONDS = 60.0
ROWS, COLUMNS = 512, 400


def instance(number: int = 1, *, content: str = "as sent") -> Instance:
    """The ``number``-th instance; ``content`` decides its hash."""
    return Instance(
        sop_class_uid=CR_IMAGE_STORAGE,
        sop_instance_uid=f"1.2.826.0.1.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        content_sha256=hashlib.sha256(f"{number} {content}".encode()).hexdigest(),
        size_bytes=10_000_000 + number,
        calling_ae_title="MODALITY",
        peer_address="192.0.2.7",
        institution_id="hospital-1",
        received_at=datetime(2026, 3, 1, 11, 59, 59, 999_999, UTC),
    )


def eligibility() -> Eligibility:
    """A boy's left hand."""
    return Eligibility(
        study_instance_uid="1.2.826.0.2.1",
        sex=Sex.MALE,
        laterality=Laterality.LEFT,
        view_position="PA",
        chronological_age_months=120.25,
        study_date=date(2026, 3, 1),
        patient_pseudonym="cd" * 32,
        notes=(Note.RIGHT_HAND, Note.VIEW_UNSTATED),
    )


def prediction() -> Prediction:
    """Ten years and a half, of an image that was put right."""
    return Prediction(
        bone_age_months=126.5,
        sd_months=7.25,
        hand_box=HandBox(left=10.5, top=20.0, right=900.25, bottom=1200.0),
        findings=(Note.IMAGE_TURNED, Note.GREY_SCALE_INVERTED),
        saliency=Saliency(
            box=HandBox(left=0.0, top=5.5, right=950.25, bottom=1280.0),
            levels=((0, 17, 255), (3, 128, 64)),
        ),
        model=ModelIdentity(name="boneage-test", version="1.0.0", sha256="ab" * 32),
    )


def report_objects(exam_id: int) -> tuple[ReportObject, ReportObject]:
    """Both objects of one exam's report."""
    measurements, narrative = (
        ReportObject(
            kind=kind,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
            sop_instance_uid=f"2.25.{exam_id}.{number}",
            series_instance_uid=f"2.25.{exam_id}",
            encoded=f"{kind} of exam {exam_id}".encode(),
        )
        for number, kind in enumerate((ReportKind.MEASUREMENTS, ReportKind.NARRATIVE))
    )
    return measurements, narrative


def answer(exam_id: int, destination: str, *, status: int = 0, verdict: Verdict) -> Delivery:
    """A destination's answer for the first object of an exam's report."""
    sent = report_objects(exam_id)[0]
    return Delivery(
        sop_instance_uid=sent.sop_instance_uid,
        destination=destination,
        answer=Answer(
            status=status,
            sent_sop_class_uid=sent.sop_class_uid,
            sent_sop_instance_uid=sent.sop_instance_uid,
        ),
        verdict=verdict,
    )


def claim(
    ledger: Ledger, *stages: Stage, limit: int = 10, destination: str | None = None
) -> list[Job]:
    """Due jobs, of all stages unless told, leased."""
    return ledger.claim(
        stages or tuple(Stage),
        owner="worker",
        lease_seconds=LEASE_SECONDS,
        limit=limit,
        destination=destination,
    )


def claim_one(ledger: Ledger, stage: Stage, *, owner: str = "worker") -> Job:
    """The one due job of a stage, leased."""
    (job,) = ledger.claim([stage], owner=owner, lease_seconds=LEASE_SECONDS, limit=2)
    return job


def park(ledger: Ledger) -> int:
    """Park the one due job(SCREEN); its id."""
    job = claim_one(ledger, Stage.SCREEN)
    ledger.fail(job, Park(fault=Fault.CORRUPT_SPOOL, detail="object is missing"))
    return job.job_id


WAY = tuple(stage for stage in Stage if stage is not Stage.CONFIRM)
"""The stages of an exam whose destinations are asked for no proof."""


def complete(ledger: Ledger, job: Job, *, destinations: tuple[str, ...] = ("pacs",)) -> None:
    """Finish a leased job with the success of its stage."""
    match job.stage:
        case Stage.SCREEN:
            ledger.complete_screen(job, eligibility())
        case Stage.INFER:
            ledger.complete_infer(job, prediction())
        case Stage.REPORT:
            ledger.complete_report(job, report_objects(job.exam_id), destinations, revision=1)
        case Stage.DELIVER:
            ledger.complete_deliver(job, confirm=False)


def exam_before(
    ledger: Ledger, stage: Stage, *, number: int = 1, destinations: tuple[str, ...] = ("pacs",)
) -> int:
    """Record an instance and bring its exam to the point where ``stage`` is queued. No other job of
    the stages before may be due."""
    exam_id, _ = ledger.record_instance(instance(number))
    for earlier in list(Stage)[: list(Stage).index(stage)]:
        complete(ledger, claim_one(ledger, earlier), destinations=destinations)
    return exam_id


@cache
def drawn_radiograph(
    *,
    bone_age_months: float = 120.0,
    sex: DrawnSex = "M",
    seed: int = 1,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> Radiograph:
    """A phantom, drawn once per test process; its pixels are shared and read-only."""
    radiograph = draw(
        bone_age_months=bone_age_months, sex=sex, seed=seed, rows=rows, columns=columns
    )
    radiograph.pixels.flags.writeable = False
    return radiograph


def radiograph_dataset(
    *,
    bone_age_months: float = 120.0,
    sex: DrawnSex = "M",
    seed: int = 1,
    rows: int = ROWS,
    columns: int = COLUMNS,
    modality: Modality = "DX",
    birth_date: date = date(2015, 5, 4),
    study_date: date = date(2025, 5, 20),
    **overrides: Any,
) -> Dataset:
    """A valid DX or CR data set; ``overrides`` sets attributes by keyword and deletes those that
    are None. The file meta information follows a new SOP Class or Instance UID."""
    radiograph = drawn_radiograph(
        bone_age_months=bone_age_months, sex=sex, seed=seed, rows=rows, columns=columns
    )
    ds = to_dataset(
        radiograph.pixels,
        sex=sex,
        birth_date=birth_date,
        study_date=study_date,
        pixel_spacing_mm=radiograph.pixel_spacing_mm,
        seed=seed,
        modality=modality,
    )
    for keyword, value in overrides.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "")
    return ds


def save_dicom(ds: Dataset, path: Path, transfer_syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write a DICOM file (PS3.10) in a transfer syntax; pydicom compresses into RLE, JPEG-LS and
    JPEG 2000. Changes ``ds`` itself."""
    before = ds.file_meta.TransferSyntaxUID
    if transfer_syntax.is_compressed and transfer_syntax != before:
        ds.compress(transfer_syntax, generate_instance_uid=False)
    if before.is_little_endian and not transfer_syntax.is_little_endian:
        ds.PixelData = np.frombuffer(ds.PixelData, dtype="<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    ds.save_as(path, enforce_file_format=True)
    return path
