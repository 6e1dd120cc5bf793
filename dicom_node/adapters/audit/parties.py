"""Who acts on this machine: a process of the node, a person at the command line."""

from __future__ import annotations

import os
import pwd
import socket

from dicom_node.domain.audit import Application, Operator


def application(node: str, ae_title: str) -> Application:
    """The process that asks, as a participant."""
    return Application(
        node=node, ae_title=ae_title, process_id=os.getpid(), host=socket.gethostname()
    )


def operator() -> Operator:
    """Who runs this command: the user of the operating system, and behind sudo who called it.

    The environment is believed only where root runs the command: anybody else could set it.
    """
    login = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    return Operator(login=login or _login(), host=socket.gethostname())


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container runs with a number that has no name
        return str(os.getuid())
