"""A node as a container runs it: another user without rights, everything read-only but its data
and /tmp, no home folder."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dicom_node.domain.exam import Outcome
from tests.builders.radiographs import radiograph_files
from tests.integration.peers import dcmtk
from tests.peers.node import Node, write_config

_REPOSITORY = Path(__file__).resolve().parents[2]
_USER = 10001
_RIGHTS = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
FONT_CACHE = "MPLCONFIGDIR=/tmp/matplotlib"
"""As in the image; without it every process that draws a chart makes a folder of its own."""
ALL_OBJECTS = """
[[institutions]]
id = "hospital"
name = "Hospital"
calling_ae_titles = ["STORESCU"]
objects = ["measurements", "narrative", "capture", "pdf"]
"""
ROOT = """
set -e
mount --rbind / {root}
awk -v root={root} 'index($5, root) == 1 {{ print $5 }}' /proc/self/mountinfo |
    grep -vE '^{root}/(dev|proc|sys)' |
    while read -r path; do mount -o remount,bind,ro "$path"; done
{opened}
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs {root}/tmp
mkdir -p {root}{folder} && mount --bind {folder} {root}{folder}
mount -o remount,bind,ro {root}{folder}
mount --bind {folder}/data {root}{folder}/data
exec chroot {root} "$@"
"""


def confined(folder: Path, *command: str) -> list[str]:
    """A command line on a read-only root; ``folder``/data may be written, and /tmp."""
    tried = ["unshare", "--mount", "setpriv", "--clear-groups", "true"]
    if not shutil.which("setpriv") or subprocess.run(tried, check=False).returncode != 0:
        pytest.skip("only root can make a read-only root, with unshare and setpriv of util-linux")
    root = folder.parent / "root"
    root.mkdir(exist_ok=True)
    script = ROOT.format(root=root, folder=folder, opened=opened(root))
    user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", *_RIGHTS]
    variables = ["env", "-i", "PATH=/usr/bin:/bin", f"PYTHONPATH={_REPOSITORY}", FONT_CACHE]
    return ["unshare", "--mount", "sh", "-c", script, "sh", *user, *variables, *command]


def opened(root: Path) -> str:
    """Commands for what Python needs where the path to it is closed to other users, as below
    /root: there the image would have it elsewhere."""
    commands = []
    for needed in {Path(sys.base_prefix), Path(sys.prefix), _REPOSITORY}:
        closed = [above for above in reversed(needed.parents) if not above.stat().st_mode & 0o001]
        if closed:
            at, there = shlex.quote(f"{root}{closed[0]}"), shlex.quote(f"{root}{needed}")
            commands += [
                f"mountpoint -q {at} || mount -t tmpfs -o mode=755 tmpfs {at}",
                f"mkdir -p {there} && mount --bind {shlex.quote(str(needed))} {there}",
                f"mount -o remount,bind,ro {there}",
            ]
    return "\n".join(commands)


@contextmanager
def confined_node(folder: Path) -> Iterator[Node]:
    """`dicom-node serve` on a read-only root."""
    config = write_config(folder, [], extra=ALL_OBJECTS)
    (folder / "data").mkdir(mode=0o700)
    os.chown(folder / "data", _USER, _USER)
    command = confined(folder, sys.executable, "-m", "dicom_node", "serve", "--config", str(config))
    with (folder / "node.log").open("ab") as log:
        node = Node(folder, subprocess.Popen(command, stderr=log))
    try:
        node.wait_until_ready()
        yield node
    finally:
        if node.process.poll() is None:
            node.kill()


def test_a_node_works_where_only_its_data_folder_and_tmp_can_be_written(tmp_path: Path) -> None:
    files = radiograph_files(tmp_path / "sent", 2)
    with confined_node(tmp_path / "node") as node:
        said = dcmtk("storescu", "-v", "-aec", "BONEAGE", "127.0.0.1", node.note["port"], *files)
        assert said.count("Received Store Response (Success)") == len(files)
        node.wait_until_idle(60)
        with closing(node.ledger()) as ledger:
            found = [exam.outcome for exam in ledger.exams(limit=10)]
        assert found == [Outcome.ASSESSED] * len(files)
        inside = Path(f"/proc/{node.process.pid}/root/tmp")
        assert {path.name for path in inside.iterdir()} <= {"matplotlib", *tmp_path.parts}
        status = Path(f"/proc/{node.process.pid}/status").read_text()
        assert f"Uid:\t{_USER}\t{_USER}\t{_USER}\t{_USER}" in status
        assert "CapEff:\t0000000000000000" in status
        assert node.stop() == 0
    for line in (node.folder / "node.log").read_text().splitlines():
        assert "event" in json.loads(line), "a library writes past the log"


def test_nothing_else_can_be_written_there(tmp_path: Path) -> None:
    """The test above would prove nothing on a root that can be written."""
    (tmp_path / "node" / "data").mkdir(parents=True, mode=0o777)
    tried = [_REPOSITORY / "config" / "written", Path("/var/tmp/written"), tmp_path / "node" / "x"]
    program = "import sys\nfor path in sys.argv[1:]:\n try: open(path, 'w')\n"
    program += " except OSError as error: print(error.errno)"
    command = confined(tmp_path / "node", sys.executable, "-c", program, *map(str, tried))
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(errno.EROFS)] * len(tried)
