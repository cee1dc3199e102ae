"""An SSH server of whoever runs the tests, with keys that are made for it."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@dataclass(frozen=True)
class SshServer:
    """Where it is and whom it lets in; `place` has its keys and `other`, which it does not take."""

    user: str
    address: str
    port: int
    key: str
    host_key: str
    place: Path


@contextmanager
def ssh_server(place: Path, address: str = "127.0.0.1") -> Iterator[SshServer]:
    """Serve this machine at an address of its own, by the key `deploy` alone."""
    place.mkdir(mode=0o700)
    for name in ("host", "deploy", "other"):
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name))
        subprocess.run(words, check=True)
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "HostKey": place / "host",
        "AuthorizedKeysFile": place / "deploy.pub",
        "ListenAddress": address,
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "yes",
        "Subsystem": "sftp internal-sftp",
    }
    (place / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    command = [str(SSHD), "-D", "-e", "-f", str(place / "config"), "-p", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if not probe.connect_ex((address, port)):
                        break
                time.sleep(0.05)
            yield SshServer(
                user=getpass.getuser(),
                address=address,
                port=port,
                key=(place / "deploy").read_text(),
                host_key=(place / "host.pub").read_text(),
                place=place,
            )
        finally:
            server.terminate()
