"""What a node finds and does after it, or a part of it, died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dicom_node.adapters.ledger import OperatorLedger
from dicom_node.domain.exam import UNKNOWN_SENDER
from dicom_node.node import is_running, readiness, write_address
from dicom_node.preparation import prepare
from dicom_node.settings import InstitutionSettings, ReceiveSettings, Settings
from dicom_node.stopping import stop_event
from dicom_node.wiring import Wiring
from tests.builders.dicom_files import hand_dataset, write_file
from tests.integration.peers import wait_until
from tests.peers.node import start_node, write_config

ONE = InstitutionSettings(id="one", name="One", calling_ae_titles=("A",))
TWO = InstitutionSettings(id="two", name="Two", calling_ae_titles=("B",))


def settings(folder: Path, *institutions: InstitutionSettings) -> Settings:
    plain = Settings()
    return plain.model_copy(
        update={
            "node": plain.node.model_copy(update={"data_dir": folder / "data"}),
            "receive": ReceiveSettings(require_known_sender=bool(institutions)),
            "institutions": institutions,
        }
    )


@pytest.mark.parametrize(
    ("institutions", "owner"),
    [((), "local"), ((ONE,), "one"), ((ONE, TWO), UNKNOWN_SENDER)],
    ids=["unrestricted", "one", "two"],
)
def test_an_object_without_a_row_gets_one_and_belongs_to_the_only_possible_institution(
    tmp_path: Path, institutions: tuple[InstitutionSettings, ...], owner: str
) -> None:
    configured = settings(tmp_path, *institutions)
    wiring = Wiring(configured)
    wiring.spool.keep(write_file(wiring.spool.incoming / "received", hand_dataset()))
    (wiring.spool.incoming / "unfinished").write_bytes(b"half an object")
    prepare(configured)
    operator = OperatorLedger(wiring.folders.ledger, wiring.clock)
    [exam] = operator.exams(limit=10)
    assert exam.institution_id == owner
    assert [job.stage for job in exam.open_jobs] == ["screen"]
    assert list(wiring.spool.incoming.iterdir()) == []
    prepare(configured)  # again: nothing new
    assert len(operator.exams(limit=10)) == 1
    operator.close()


def test_the_processes_end_with_their_supervisor_and_the_node_starts_again(tmp_path: Path) -> None:
    write_config(tmp_path, [])
    node = start_node(tmp_path)
    children = node.children()
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait(30)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), seconds=30)
    assert not is_running(Wiring(node.settings).folders)
    node = start_node(tmp_path)
    assert is_running(Wiring(node.settings).folders)
    assert node.stop() == 0


def test_a_process_that_starts_again_does_not_read_an_edited_configuration(tmp_path: Path) -> None:
    config = write_config(tmp_path, [])
    node = start_node(tmp_path)
    try:
        config.write_text("this is no configuration")
        for pid in node.children():
            os.kill(pid, signal.SIGKILL)
        node.wait_until_ready()
    finally:
        assert node.stop() == 0


@pytest.mark.parametrize(
    ("inference", "named"),
    [('reference = "typo"', "greulich-pyle-v-vi"), ('model = "no-such-model"', "no-such-model")],
)
def test_a_node_does_not_start_on_a_model_or_table_that_is_not_there(
    tmp_path: Path, inference: str, named: str
) -> None:
    config = write_config(tmp_path, [], extra=f"[inference]\n{inference}\n")
    done = subprocess.run(
        [sys.executable, "-m", "dicom_node", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_node_on_the_same_folder_is_noticed(tmp_path: Path) -> None:
    write_config(tmp_path, [])
    node = start_node(tmp_path)
    assert node.note["pid"] == node.process.pid
    assert is_running(Wiring(node.settings).folders)
    assert node.stop() == 0
    assert not is_running(Wiring(node.settings).folders)


def test_a_signal_sets_the_event_whatever_the_main_thread_does() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    try:
        stop = stop_event(signal.SIGUSR1)
        killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        killer.start()
        while not stop.wait(0.0001):  # the lock of the event is taken and given back all the time
            pass
        killer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_end_of_the_lifeline_sets_the_event() -> None:
    reader, writer = os.pipe()
    stop = stop_event(lifeline=reader)
    assert not stop.is_set()
    os.close(writer)
    assert stop.wait(10)
    os.close(reader)


def test_another_program_on_the_health_port_is_no_node(tmp_path: Path) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configured = settings(tmp_path)
    folders = Wiring(configured).folders
    folders.run.mkdir(parents=True)
    write_address(folders, port=1, metrics_port=server.server_address[1])
    assert readiness(configured) == {"status": "not running", "checks": {}}
    server.shutdown()
    server.server_close()
