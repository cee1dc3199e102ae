"""What runs NGINX."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
[ "$2" != 127.0.0.1 ] || exit 0
date +%s.%N >>"$0.asked.$2"
[ -e "$0.$2" ] || exit 2
# one that does not answer in time as often as this has letters
late=$(cat "$0.late.$2" 2>/dev/null)
if [ -n "$late" ]; then printf %s "${late#?}" >"$0.late.$2" && exit 2; fi
while read -r address; do
  printf '%s STREAM %s\\n%s DGRAM\\n' "$address" "$2" "$address"
done <"$0.$2"
"""
# as Alpine's of musl 1.2 says it
OTHER_GETENT = """\
#!/bin/sh
echo "getent: Unknown database \\`$1': No error information" >&2
exit 1
"""
SELDOM, OFTEN = 0.4, 0.05  # seconds


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The script as a container has it, with a server that only waits, and neighbours of ours."""
    text = (ROLES / "gateway/files/serve.sh").read_text()
    places = ("acme", "tmp", "config", "run/secrets")
    text = re.sub(rf"([ =<])/({'|'.join(places)})/", rf"\1{tmp_path}/\2/", text)
    for directory in places:
        (tmp_path / directory).mkdir(parents=True)
    # as seldom as a test can wait for
    text = text.replace("pause=3", f"pause={SELDOM}").replace("pause=0.5", f"pause={OFTEN}")
    for name in ("config/tls.crt", "run/secrets/tls_key"):
        (tmp_path / name).write_text("")
    (tmp_path / "config/neighbours").write_text("mlflow. 5000\nminio. 9000\nminio. 9001\n")
    for name, content in (("serve.sh", text), ("server.py", SERVER)):
        (tmp_path / name).write_text(content)
    for name, content in (("getent", GETENT), ("curl", "")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "getent.minio.").write_text("10.0.0.2\n")
    return tmp_path


@contextmanager
def started(place: Path, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run it; what it says is in a file."""
    # what a job in the background ignores, a shell that it starts cannot trap
    words = ["env", "--default-signal", *before, "sh", "serve.sh", sys.executable, "server.py"]
    path = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
    with (place / "said").open("w") as said:
        running = subprocess.Popen(words, cwd=place, env=path, stderr=said)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
def served(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What runs."""
    with started(place) as running:
        wait_for((place / "ready").exists)
        yield running


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
def test_an_answer_that_takes_longer_than_a_stop_may_is_cut(
    tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "long").touch()
    served.terminate()
    assert served.wait(10) == 0
    assert (tmp_path / "told").read_text() == "SIGTERM"


@pytest.mark.processes
def test_who_has_it_read_its_settings_again_as_nginx_does_ends_nothing(
    tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    served.send_signal(signal.SIGHUP)
    wait_for(lambda: times_told(tmp_path) == 1)
    time.sleep(SELDOM)
    assert served.poll() is None


def groups(place: Path) -> dict[str, set[str]]:
    """The addresses of each group that the server is told."""
    text = (place / "tmp/neighbours.conf").read_text()
    named = re.findall(r"upstream (\S+) \{(.*)\}", text)
    return {name: set(re.findall(r"server ([0-9.:]+);", group)) for name, group in named}


def times_told(place: Path) -> int:
    """How often the server was told of news."""
    told = place / "again"
    return told.read_text().count("--") if told.exists() else 0


def asked(place: Path, name: str) -> list[float]:
    """When a name was asked for, in seconds."""
    log = place / f"getent.asked.{name}"
    return [float(line) for line in log.read_text().split()] if log.exists() else []


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
def test_three_questions_that_are_not_answered_in_time_take_no_neighbour_away(
    tmp_path: Path,
) -> None:
    (tmp_path / "getent.mlflow.").write_text("10.0.0.3\n")
    wait_for(lambda: times_told(tmp_path) == 1)
    late = tmp_path / "getent.late.mlflow."
    late.write_text("xxx")
    wait_for(lambda: not late.read_text())
    time.sleep(SOME_LOOKS)
    assert times_told(tmp_path) == 1
    assert groups(tmp_path) == MINIO | {"mlflow-5000": {"10.0.0.3:5000"}}


@pytest.mark.processes
@pytest.mark.usefixtures("served")
def test_what_is_off_for_good_is_asked_for_as_seldom_as_what_is_there(tmp_path: Path) -> None:
    wait_for(lambda: len(asked(tmp_path, "mlflow.")) >= 26)
    gaps = [after - before for before, after in itertools.pairwise(asked(tmp_path, "mlflow."))]
    assert min(gaps[:19]) < SELDOM
    assert min(gaps[20:]) >= SELDOM
    # and found all the same
    (tmp_path / "getent.mlflow.").write_text("10.0.0.3\n")
    wait_for(lambda: "mlflow-5000" in groups(tmp_path))


@pytest.mark.processes
def test_neighbours_are_told_apart_whose_names_are_much_alike(place: Path) -> None:
    known = {"10.0.0.1": 25000, "10.0.0.12": 5000, "a-b.": 80, "a.b.": 80}
    lines = [f"{host} {port}\n" for host, port in known.items()]
    (place / "config/neighbours").write_text("".join(lines))
    # the last of them is not there
    for host, address in zip(known, ("10.0.0.1", "10.0.0.12", "10.0.0.3"), strict=False):
        (place / f"getent.{host}").write_text(f"{address}\n")
    with started(place):
        wait_for(lambda: len(asked(place, "a.b.")) > 3)
    text = (place / "tmp/neighbours.conf").read_text()
    assert groups(place) == {
        "10.0.0.1-25000": {"10.0.0.1:25000"},
        "10.0.0.12-5000": {"10.0.0.12:5000"},
        "a-b-80": {"10.0.0.3:80"},
    }
    assert text.count("upstream ") == 3


@pytest.mark.processes
@pytest.mark.parametrize("lacking", ["glibc", "cmp", "curl"])
def test_an_image_that_lacks_what_it_needs_is_refused_in_a_sentence(
    place: Path, lacking: str
) -> None:
    if lacking == "glibc":
        (place / "getent").write_text(OTHER_GETENT)
    tools = place / "tools"
    tools.mkdir()
    for tool in {"sh", "mkdir", "cat", "getent", "cmp", "curl"} - {lacking}:
        (tools / tool).symlink_to(shutil.which(tool, path=f"{place}:{os.environ['PATH']}") or "")
    with started(place, f"PATH={tools}") as running:
        assert running.wait(10) == 1
    assert (place / "said").read_text() == (
        "gateway_image cannot be used: "
        "give an image of Debian or another glibc that has getent, cmp and curl.\n"
    )
    assert not (place / "ready").exists()


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
