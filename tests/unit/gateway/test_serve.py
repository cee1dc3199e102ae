"""What runs NGINX where ACME gets its certificate."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES

SERVER = """\
import signal, sys, time

def ended(number, frame):
    open("told", "w").write(signal.Signals(number).name)
    sys.exit()

signal.signal(signal.SIGQUIT, ended)
signal.signal(signal.SIGTERM, ended)
open("ready", "w")
time.sleep(60)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("sent", "told"),
    [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM"), ("SIGQUIT", "SIGQUIT")],
    ids=["Docker", "a terminal", "the stop signal of NGINX's own image"],
)
def test_who_stops_it_stops_the_server(tmp_path: Path, sent: str, told: str) -> None:
    text = (ROLES / "gateway/files/serve.sh").read_text()
    for directory in ("acme", "tmp", "config", "run/secrets"):
        text = text.replace(f" /{directory}/", f" {tmp_path}/{directory}/")
        text = text.replace(f"=/{directory}/", f"={tmp_path}/{directory}/")
        (tmp_path / directory).mkdir(parents=True)
    for name in ("config/tls.crt", "run/secrets/tls_key"):
        (tmp_path / name).write_text("")
    for name, content in (("serve.sh", text), ("server.py", SERVER)):
        (tmp_path / name).write_text(content)
    words = ["sh", "serve.sh", sys.executable, "server.py"]
    running = subprocess.Popen(words, cwd=tmp_path)
    try:
        until = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.Signals[sent])
        assert running.wait(10) == 0
    finally:
        running.kill()
    assert (tmp_path / "told").read_text() == told
