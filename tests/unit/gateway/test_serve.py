"""What runs NGINX."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES

SERVER = """\
import signal, sys, time

def ended(number, frame):
    open("told", "w").write(signal.Signals(number).name)
    sys.exit()

def again(number, frame):
    open("again", "a").write(open("tmp/neighbours.conf").read() + "--\\n")

signal.signal(signal.SIGQUIT, ended)
signal.signal(signal.SIGTERM, ended)
signal.signal(signal.SIGHUP, again)
open("ready", "w")
while True:
    time.sleep(60)
"""
GETENT = """\
#!/bin/sh
# two lines for an address of each name, as the system's has them
[ -e "$0.$2" ] || exit 2
while read -r address; do
  printf '%s STREAM %s\\n%s DGRAM\\n' "$address" "$2" "$address"
done <"$0.$2"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The script as a container has it, with a server that only waits, and neighbours of ours."""
    text = (ROLES / "gateway/files/serve.sh").read_text()
    for directory in ("acme", "tmp", "config", "run/secrets"):
        text = re.sub(rf"([ =<])/{directory}/", rf"\1{tmp_path}/{directory}/", text)
        (tmp_path / directory).mkdir(parents=True)
    for name in ("config/tls.crt", "run/secrets/tls_key"):
        (tmp_path / name).write_text("")
    (tmp_path / "config/neighbours").write_text("mlflow 5000\nminio 9000\nminio 9001\n")
    for name, content in (("serve.sh", text), ("server.py", SERVER), ("getent", GETENT)):
        (tmp_path / name).write_text(content)
    (tmp_path / "getent").chmod(0o755)
    (tmp_path / "getent.minio").write_text("10.0.0.2\n")
    words = ["sh", "serve.sh", sys.executable, "server.py"]
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    running = subprocess.Popen(words, cwd=tmp_path, env=path)
    try:
        wait_for((tmp_path / "ready").exists)
        yield running
    finally:
        running.terminate()
        running.wait(10)


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("sent", "told"),
    [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM"), ("SIGQUIT", "SIGQUIT")],
    ids=["Docker", "a terminal", "the stop signal of NGINX's own image"],
)
def test_who_stops_it_stops_the_server(
    tmp_path: Path, served: subprocess.Popen[bytes], sent: str, told: str
) -> None:
    served.send_signal(signal.Signals[sent])
    assert served.wait(10) == 0
    assert (tmp_path / "told").read_text() == told


@pytest.mark.processes
def test_a_neighbour_that_has_another_address_is_told_once(
    tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    def groups() -> dict[str, set[str]]:
        text = (tmp_path / "tmp/neighbours.conf").read_text()
        named = re.findall(r"upstream (\S+) \{(.*)\}", text)
        return {name: set(re.findall(r"server ([0-9.:]+);", group)) for name, group in named}

    minio = {"minio-9000": {"10.0.0.2:9000"}, "minio-9001": {"10.0.0.2:9001"}}
    assert groups() == minio
    # two replicas, in the order that a resolver changes at each question
    (tmp_path / "getent.mlflow").write_text("10.0.0.4\n10.0.0.3\n")
    replicas = {"mlflow-5000": {"10.0.0.3:5000", "10.0.0.4:5000"}}
    wait_for((tmp_path / "again").exists)
    assert groups() == minio | replicas
    (tmp_path / "getent.mlflow").write_text("10.0.0.3\n10.0.0.4\n")
    time.sleep(7)
    assert (tmp_path / "again").read_text().count("--") == 1
    (tmp_path / "getent.mlflow").unlink()
    wait_for(lambda: (tmp_path / "again").read_text().count("--") == 2)
    assert groups() == minio
    assert served.poll() is None
