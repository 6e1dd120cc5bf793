"""The loads themselves: exams that differ, days that repeat, sums that find what is missing."""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ComputedRadiographyImageStorage
from rich.console import Console

from tests.integration.peers import RunningReceiver, running_receiver, wait_until
from tests.load.day import HOURS, KINDS, accidents, institutions, stations
from tests.load.films import Film, uid
from tests.load.modality import Modality
from tests.load.outcome import outcome_of, percentiles
from tests.load.plant import Fate, Sample
from tests.load.profiles import PROFILES, shots_of
from tests.load.simulate import calm, drift_of, growth_mb, simulate, tell
from tests.load.traffic import Manner, Shot, Traffic

ROWS, COLUMNS = 40, 30


def film(number: int = 0) -> Film:
    """A small one: identity and pixels are where the load expects them."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = uid("instance", 0, 0)
    dataset.StudyInstanceUID = uid("study", 0, 0)
    dataset.SeriesInstanceUID = uid("series", 0, 0)
    dataset.PatientID = "LOAD000000000000"
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated = 16
    dataset.PixelData = bytes(2 * ROWS * COLUMNS)
    written = BytesIO()
    pydicom.dcmwrite(written, dataset, implicit_vr=False, little_endian=True)
    return Film(
        number=number,
        sop_class_uid=str(ComputedRadiographyImageStorage),
        template=written.getvalue(),
        shape=(ROWS, COLUMNS),
    )


def parsed(content: bytearray) -> pydicom.Dataset:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    head = DicomBytesIO()
    pydicom.filewriter.write_file_meta_info(head, meta, enforce_standard=False)
    return dcmread(BytesIO(b"\0" * 128 + b"DICM" + head.getvalue() + content))


def shot(number: int = 1, *, due: float = 0.0, as_drawn: bool = False) -> Shot:
    """One that was acknowledged when it was due."""
    made = Shot(number=number, film=film(), run=7, due=due, as_drawn=as_drawn)
    made.begun, made.seconds, made.answers = 1000 + due, 0.1, ["0x0000"]
    return made


def fate(at: float | None = 1001.0, *, months: float = 100.0, parked: bool = False) -> Fate:
    made = Fate(outcome="assessed", months=months, parked=parked)
    made.stored_at = [at, at]
    return made


def sample(at: float, mb: float = 100.0, *, open_exams: int = 0) -> Sample:
    return Sample(at=at, resident_mb={"worker-0": mb}, exams=0, open_exams=open_exams, waiting={})


def test_each_exam_has_its_own_identity_and_pixels_unless_they_are_to_come_again() -> None:
    some = [parsed(film().exam(7, n, as_drawn=False)) for n in range(1, 200)]
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
        assert len({dataset[keyword].value for dataset in some}) == len(some)
    assert len({dataset.PixelData for dataset in some}) > 0.5 * len(some)  # of so small an image
    same = [parsed(film().exam(7, n, as_drawn=True)) for n in range(1, 5)]
    assert {dataset.PixelData for dataset in same} == {bytes(2 * ROWS * COLUMNS)}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path / "node") as running:
        yield running


def test_the_modality_stores_echoes_and_breaks_off(receiver: RunningReceiver) -> None:
    port = receiver.receiver.bound_port
    modality = Modality(port, "TEST")
    named = film().sop_class_uid, uid("instance", 7, 1)
    content = film().exam(7, 1, as_drawn=False)
    assert modality.store(*named, content) == 0x0000
    assert modality.echo() == 0x0000
    other = film().sop_class_uid, uid("instance", 7, 2)
    assert modality.store(*other, content) == 0xA900  # the data set names another instance
    modality.release()
    Modality(port, "TEST").break_off(*named, content)
    wait_until(lambda: receiver.receiver.open_associations == 0)
    assert [i.sop_instance_uid for i in receiver.instances] == [uid("instance", 7, 1)]


def test_stations_keep_their_associations_and_send_again_until_they_are_acknowledged(
    receiver: RunningReceiver,
) -> None:
    shots = [Shot(number=n, film=film(), run=7, due=n / 50) for n in range(1, 21)]
    manner = Manner(stays=True, patience=30, breaks_off=0.2)
    stations = [(f"S{n}", shots[n::4]) for n in range(4)]
    traffic = Traffic(receiver.receiver.bound_port, stations, manner)
    traffic.run()
    assert 1 < traffic.most_admitted <= 4  # one that broke off is not there for a while
    assert traffic.acknowledged == 20
    assert "broken off" in Counter(answer for one in shots for answer in one.answers)
    assert all(one.acknowledged for one in shots)
    assert len(receiver.instances) == 20


def test_a_load_keeps_its_rate_at_every_length() -> None:
    profile = PROFILES["sustained"]
    for factor, speed in ((1.0, 1.0), (0.1, 1.0), (0.1, 4.0)):
        shots = shots_of(profile, [film()], factor=factor, speed=speed, seed=1)
        assert len(shots) == 1000 * factor
        assert shots[-1].due <= 3600 * factor / speed
        assert [s.due for s in shots] == sorted(s.due for s in shots)


def test_a_day_has_its_peak_in_the_morning_and_repeats_with_its_seed() -> None:
    some = [film(n) for n in range(10)]
    first, again, other = (stations(some, exams=2400, seconds=24, seed=s) for s in (1, 1, 2))
    dues = [[(t, s.number, s.due) for t, own in day for s in own] for day in (first, again, other)]
    assert dues[0] == dues[1] != dues[2]
    hours = Counter(int(due) for _, _, due in dues[0])
    assert hours[9] > 2 * hours[12] > 4 * hours[3]
    assert max(HOURS) == HOURS[9]
    assert len({title for title, _ in first}) == 20
    assert sum(s.as_drawn for _, own in first for s in own) == 480


def test_every_kind_of_accident_happens_and_repeats_with_its_seed() -> None:
    some = accidents(seconds=100, every=25, seed=3)
    assert {accident.kind for accident in some} == set(KINDS)
    assert some == accidents(seconds=100, every=25, seed=3)
    assert all(5 <= accident.after <= 90 for accident in some)
    assert len(accidents(seconds=1000, every=25, seed=3)) == 40


def test_the_hospitals_are_a_configuration() -> None:
    found = tomllib.loads(institutions())["institutions"]
    assert len({title for one in found for title in one["calling_ae_titles"]}) == 20


@pytest.mark.parametrize(
    ("became", "words"),
    [
        (None, "neither reported nor parked"),
        (fate(None), "neither reported nor parked"),
        (fate(None, parked=True), "not reported"),
    ],
)
def test_an_exam_that_is_lost_or_not_reported_breaks_a_promise(
    became: Fate | None, words: str
) -> None:
    shots = [shot(n) for n in range(1, 5)]
    fates = {one.sop_instance_uid: fate() for one in shots[:-1]}
    if became is not None:
        fates[shots[-1].sop_instance_uid] = became
    outcome = outcome_of("x", shots, fates, [sample(0)], associations=1)
    assert any(words in broken for broken in outcome.broken_promises())


def test_a_load_that_came_through_is_accounted_for() -> None:
    shots = [shot(n, due=n) for n in range(1, 5)]
    fates = {one.sop_instance_uid: fate(one.begun + 2) for one in shots}
    outcome = outcome_of("x", shots, fates, [sample(0), sample(1, 120)], associations=3)
    assert outcome.broken_promises() == []
    assert (outcome.sent, outcome.acknowledged, outcome.reported) == (4, 4, 4)
    assert outcome.end_to_end == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert outcome.resident_mb == {"worker-0": 120}


def test_percentiles_are_values_that_were_measured() -> None:
    chance = random.Random(1)
    values = [float(n) for n in range(1, 101)]
    chance.shuffle(values)
    assert percentiles(values) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_another_answer_to_the_same_pixels_is_seen() -> None:
    shots = [shot(n, due=float(n), as_drawn=True) for n in range(9)]
    fates = {one.sop_instance_uid: fate() for one in shots}
    steady = drift_of(shots, fates, 9.0)
    assert (steady.pixel_sets, steady.whole_day, steady.changed) == (1, 1, ())
    fates[shots[-1].sop_instance_uid] = fate(months=100.1)
    assert drift_of(shots, fates, 9.0).changed == (0,)


def test_growth_is_a_line_after_the_warm_up() -> None:
    flat = [sample(float(t), 100 if t > 200 else 50) for t in range(1000)]
    assert abs(growth_mb(flat)) < 1
    rising = [sample(float(t), 100 + t / 10) for t in range(1000)]
    assert growth_mb(rising) == pytest.approx(70, rel=0.05)
    assert growth_mb(rising[:200]) == 0.0


def test_calm_exams_are_far_from_accidents_and_queues() -> None:
    shots = [shot(n, due=100.0 * n) for n in range(1, 6)]
    marks = [(1110.0, "worker killed")]
    busy = [sample(1295.0, open_exams=50), sample(1400.0, open_exams=1)]
    assert [one.due for one in calm(shots, busy, marks)] == [200.0, 400.0, 500.0]


@pytest.mark.simulate
@pytest.mark.timeout(900)
def test_a_short_day_with_accidents_keeps_its_promises(tmp_path: Path) -> None:
    console = Console()
    target = tmp_path / "build"
    day = simulate(
        tmp_path / "plant",
        exams=150,
        seed=1,
        console=console,
        exams_per_second=2.5,
        target=target,
    )
    tell(day, console, target)
    broken = [words for words in day.broken_promises() if "undisturbed" not in words]
    assert broken == []
    assert sum(day.accidents.values()) >= 4
    assert (target / "simulate.png").stat().st_size > 10_000
