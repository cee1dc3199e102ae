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
import os, signal, sys, time

if "-t" in sys.argv:
    sys.exit("broken" in open("tmp/tls.pem").read())

def ended(number, frame):
    if number == signal.SIGQUIT and os.path.exists("long"):
        return
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
# one that answers the next question only
if [ -e "$0.late" ]; then rm "$0.late" && exit 2; fi
while read -r address; do
  printf '%s STREAM %s\\n%s DGRAM\\n' "$address" "$2" "$address"
done <"$0.$2"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The script as a container has it, with a server that only waits, and neighbours of ours."""
    text = (ROLES / "gateway/files/serve.sh").read_text()
    places = ("acme", "tmp", "config", "run/secrets")
    text = re.sub(rf"([ =<])/({'|'.join(places)})/", rf"\1{tmp_path}/\2/", text)
    for directory in places:
        (tmp_path / directory).mkdir(parents=True)
    # as seldom as a test can wait for
    text = text.replace("pause=3", "pause=0.4")
    for name in ("config/tls.crt", "run/secrets/tls_key"):
        (tmp_path / name).write_text("")
    (tmp_path / "config/neighbours").write_text("mlflow. 5000\nminio. 9000\nminio. 9001\n")
    for name, content in (("serve.sh", text), ("server.py", SERVER), ("getent", GETENT)):
        (tmp_path / name).write_text(content)
    (tmp_path / "getent").chmod(0o755)
    (tmp_path / "getent.minio.").write_text("10.0.0.2\n")
    # what a job in the background ignores, a shell that it starts cannot trap
    words = ["env", "--default-signal", "sh", "serve.sh", sys.executable, "server.py"]
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
@pytest.mark.parametrize("sent", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_who_stops_it_has_the_server_give_its_answers_and_end(
    tmp_path: Path, served: subprocess.Popen[bytes], sent: str
) -> None:
    served.send_signal(signal.Signals[sent])
    assert served.wait(10) == 0
    assert (tmp_path / "told").read_text() == "SIGQUIT"


@pytest.mark.processes
def test_an_answer_that_takes_long_is_cut_before_docker_kills_all(
    tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "long").touch()
    served.terminate()
    assert served.wait(10) == 0
    assert (tmp_path / "told").read_text() == "SIGTERM"


def groups(place: Path) -> dict[str, set[str]]:
    """The addresses of each group that the server is told."""
    text = (place / "tmp/neighbours.conf").read_text()
    named = re.findall(r"upstream (\S+) \{(.*)\}", text)
    return {name: set(re.findall(r"server ([0-9.:]+);", group)) for name, group in named}


def times_told(place: Path) -> int:
    """How often the server was told of news."""
    told = place / "again"
    return told.read_text().count("--") if told.exists() else 0


MINIO = {"minio-9000": {"10.0.0.2:9000"}, "minio-9001": {"10.0.0.2:9001"}}
SOME_LOOKS = 3.0


@pytest.mark.processes
def test_a_neighbour_that_has_another_address_is_told_once(
    tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    assert groups(tmp_path) == MINIO
    # two replicas, in the order that a resolver changes at each question
    (tmp_path / "getent.mlflow.").write_text("10.0.0.4\n10.0.0.3\n")
    wait_for(lambda: times_told(tmp_path) == 1)
    assert groups(tmp_path) == MINIO | {"mlflow-5000": {"10.0.0.3:5000", "10.0.0.4:5000"}}
    (tmp_path / "getent.mlflow.").write_text("10.0.0.3\n10.0.0.4\n")
    time.sleep(SOME_LOOKS)
    assert times_told(tmp_path) == 1
    (tmp_path / "getent.mlflow.").unlink()
    wait_for(lambda: times_told(tmp_path) == 2)
    assert groups(tmp_path) == MINIO
    assert served.poll() is None


@pytest.mark.processes
@pytest.mark.usefixtures("served")
def test_one_question_that_is_not_answered_takes_no_neighbour_away(tmp_path: Path) -> None:
    (tmp_path / "getent.late").touch()
    wait_for(lambda: not (tmp_path / "getent.late").exists())
    time.sleep(SOME_LOOKS)
    assert times_told(tmp_path) == 0
    assert groups(tmp_path) == MINIO


@pytest.mark.processes
@pytest.mark.usefixtures("served")
def test_a_broken_certificate_is_not_taken_and_keeps_no_news_back(tmp_path: Path) -> None:
    (tmp_path / "acme/served.pem").write_text("broken")
    wait_for((tmp_path / "tmp/seen.pem").exists)
    (tmp_path / "getent.mlflow.").write_text("10.0.0.3\n")
    wait_for(lambda: times_told(tmp_path) == 1)
    assert "mlflow-5000" in groups(tmp_path)
    assert (tmp_path / "tmp/tls.pem").read_text() == ""
    (tmp_path / "acme/served.pem").write_text("sound")
    wait_for(lambda: times_told(tmp_path) == 2)
    assert (tmp_path / "tmp/tls.pem").read_text() == "sound"
