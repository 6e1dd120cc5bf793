"""rsyslog as an audit repository: syslog over TLS, certificates on both sides."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders.certificates import Authority, Certificate
from tests.integration.peers import free_port, open_files, wait_until

PROGRAM = Path("/usr/sbin/rsyslogd")
needs_rsyslog = pytest.mark.skipif(
    not (PROGRAM.exists() and list(Path("/usr/lib").glob("*/rsyslog/lmnsd_ossl.so"))),
    reason=f"{PROGRAM} or its OpenSSL driver is missing: apt-get install rsyslog rsyslog-openssl",
)
_CONFIGURATION = """
global(
  workDirectory="{folder}"
  maxMessageSize="64k"
  processInternalMessages="on"
  parser.escapeControlCharactersOnReceive="off"
  defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}"
  defaultNetstreamDriverKeyFile="{key}"
)
module(
  load="imtcp"
  streamDriver.name="ossl"
  streamDriver.mode="1"
  streamDriver.authMode="x509/name"
  permittedPeer=["{peer}"]
)
template(name="whole" type="list") {{
  constant(value="<") property(name="pri") constant(value=">1 ")
  property(name="timereported" dateFormat="rfc3339") constant(value=" ")
  property(name="hostname") constant(value=" ")
  property(name="app-name") constant(value=" ")
  property(name="procid") constant(value=" ")
  property(name="msgid") constant(value=" ")
  property(name="structured-data") constant(value=" ")
  property(name="msg") constant(value="\\n")
}}
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="audit")
ruleset(name="audit") {{
  action(
    type="omfile" file="{folder}/received.log" template="whole"
    asyncWriting="off" flushOnTXEnd="on"
  )
}}
call audit
"""
_OF_ITS_OWN = b" rsyslogd"


class Rsyslog:
    """A repository below ``folder`` that takes messages from ``peer`` only, by its certificate.

    Its OpenSSL driver closes the descriptor of a connection twice (8.2302;
    https://github.com/rsyslog/rsyslog/pull/6375 mends it): a file that another thread opens in
    between is closed, and what it then writes there goes, as plain text, to the next connection.
    So the file is opened before any connection ends, by rsyslog's message that it has started.
    """

    def __init__(self, folder: Path, authority: Authority, own: Certificate, *, peer: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._file = folder / "received.log"
        self.port = free_port()
        (folder / "rsyslog.conf").write_text(
            _CONFIGURATION.format(
                folder=folder,
                ca=authority.ca,
                certificate=own.certificate,
                key=own.key,
                peer=peer,
                port=self.port,
            )
        )

    @property
    def received(self) -> list[bytes]:
        """The whole lines of what it has received."""
        lines = self._file.read_bytes().split(b"\n")[:-1] if self._file.exists() else []
        return [line for line in lines if _OF_ITS_OWN not in line]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run; it stops in order at the end."""
        files = ("-f", self._folder / "rsyslog.conf", "-i", self._folder / "pid")
        with (self._folder / "rsyslog.out").open("ab") as out:
            process = subprocess.Popen([PROGRAM, "-n", *files], stdout=out, stderr=out)
        try:
            wait_until(lambda: self._listens(process.pid) and self._file in open_files(process.pid))
            yield
        finally:
            process.terminate()
            process.wait(30)

    def _listens(self, pid: int) -> bool:
        table = Path(f"/proc/{pid}/net/tcp").read_text()
        return f":{self.port:04X} 00000000:0000 0A" in table
