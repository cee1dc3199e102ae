"""Clients that know nothing but the tracking address, from every place and of either version."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.infra.conftest import ROOT, Stack
from tests.infra.faults_support import docker, image_of, wait_for

CLIENTS = Path(__file__).parent / "clients"
TRANSFER = CLIENTS / "transfer.py"
GIB = 2**30
# longer than a part of an upload, so that one is sent in parts
SOME = 40 * 2**20
ASKED = "/api/2.0/mlflow/experiments/get?experiment_id=0"


def address(platform: Stack) -> str:
    """What `make env` gives a client."""
    return f"http://127.0.0.1:{platform.variables['mlflow_port']}"


def client(python: str, uri: str, script: Path, *words: str) -> str:
    """Run a client on this machine that knows the address and nothing else."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "AWS"))
    }
    done = subprocess.run(
        [python, str(script), *words],
        env={**kept, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()[-1]


def workers(platform: Stack) -> str:
    """The server's processes, each with the time of its start."""
    return docker("top", platform.container("mlflow"), "-eo", "pid,lstart,args")


def left_on_disk(platform: Stack) -> str:
    """What transfers left on the server's disk."""
    return docker("exec", platform.container("mlflow"), "sh", "-c", 'find "$TMPDIR" -type f')


@pytest.fixture(scope="module")
def old_client() -> str:
    """Python with a client of the previous major version, of exactly what its lock file names."""
    place = ROOT / ".cache/mlflow-2.22"
    uv, lock = str(Path(sys.executable).with_name("uv")), CLIENTS / "mlflow-2.22.txt"
    python = place / "bin/python"
    env = {**os.environ, "UV_SYSTEM_CERTS": "true"}
    subprocess.run([uv, "venv", "--quiet", "--clear", str(place)], env=env, check=True)
    install = [uv, "pip", "install", "--quiet", "--require-hashes", "--python", str(python)]
    subprocess.run([*install, "-r", str(lock)], env=env, check=True)
    return str(python)


@pytest.fixture
def forwarded(test_platform: Stack) -> Iterator[str]:
    """The address behind a forwarder on another port, which is what `ssh -L` is to both ends."""
    port = int(test_platform.variables["mlflow_port"])
    listener = socket.create_server(("127.0.0.1", 0))
    opened = [listener]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            opened.extend((near, far))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for one in opened:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def test_a_client_on_the_host_gets_back_what_it_sent(test_platform: Stack) -> None:
    assert client(sys.executable, address(test_platform), TRANSFER, str(SOME))


def test_a_client_of_the_previous_version_gets_back_what_it_sent(
    test_platform: Stack, old_client: str
) -> None:
    assert client(old_client, address(test_platform), TRANSFER, str(SOME))


def test_a_client_behind_a_forwarded_port_gets_back_what_it_sent(forwarded: str) -> None:
    assert client(sys.executable, forwarded, TRANSFER, str(SOME))


@pytest.mark.parametrize("place", ["the platform's network", "the host's network"])
def test_a_client_in_a_container_gets_back_what_it_sent(test_platform: Stack, place: str) -> None:
    # the first calls the server by the name of its container
    network, uri = {
        "the platform's network": (
            test_platform.name,
            f"http://{test_platform.container('mlflow')}:5000",
        ),
        "the host's network": ("host", address(test_platform)),
    }[place]
    docker(
        *("run", "--rm", "--interactive", "--network", network, "--entrypoint", "python3"),
        *("--env", f"MLFLOW_TRACKING_URI={uri}", "--env", "TMPDIR=/tmp", "--env", "PYTHONPATH="),
        *(image_of("mlflow"), "-", "1000"),
        text=TRANSFER.read_text(),
    )


def test_a_strangers_name_is_refused_and_the_containers_own_is_not(test_platform: Stack) -> None:
    name = test_platform.container("mlflow")

    def status(host: str) -> str:
        form = ("-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {host}")
        return docker("exec", name, "curl", *form, f"http://127.0.0.1:5000{ASKED}")

    assert [status(host) for host in (name, f"{name}:5000", f"{name}:8080")] == ["200"] * 3
    assert {status(host) for host in (f"{name}.example.com", f"x{name}", "example.com")} == {"403"}


def test_two_gib_pass_while_no_worker_is_restarted_and_nothing_stays(test_platform: Stack) -> None:
    before = workers(test_platform)
    assert client(sys.executable, address(test_platform), TRANSFER, str(2 * GIB))
    assert workers(test_platform) == before
    assert left_on_disk(test_platform) == ""


def test_the_registered_model_is_loaded_by_its_alias_on_the_host(test_platform: Stack) -> None:
    assert client(sys.executable, address(test_platform), CLIENTS / "load.py", "wine-quality")


def test_an_upload_that_breaks_off_leaves_nothing_and_the_server_answers_on(
    test_platform: Stack,
) -> None:
    port = int(test_platform.variables["mlflow_port"])
    path = "/api/2.0/mlflow-artifacts/artifacts/0/broken/large.bin"
    with socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {GIB}\r\n\r\n".encode()
        )
        half.sendall(bytes(SOME))
    wait_for(lambda: not left_on_disk(test_platform), "the disk to be as before")
    assert client(sys.executable, address(test_platform), TRANSFER, "1000")


def test_eight_clients_at_once_register_eight_versions_without_a_gap(test_platform: Stack) -> None:
    made = client(sys.executable, address(test_platform), CLIENTS / "register.py", "eight")
    assert made == "1,2,3,4,5,6,7,8"


def test_gc_removes_a_deleted_runs_files_from_the_bucket(test_platform: Stack) -> None:
    uri = client(sys.executable, address(test_platform), TRANSFER, "1000", "deleted")
    place = uri.removeprefix("mlflow-artifacts:/")
    file = f"{place}/a%20directory/gr%C3%B6%C3%9Fer/plain.txt"

    def status() -> str:
        url = f"http://127.0.0.1:5000/api/2.0/mlflow-artifacts/artifacts/{file}"
        form = ("-s", "-o", "/dev/null", "-w", "%{http_code}")
        return docker("exec", test_platform.container("mlflow"), "curl", *form, url)

    assert status() == "200"
    done = subprocess.run(
        [
            *(
                f"/opt/{test_platform.name}/bin/mlflow",
                "sh",
                "/config/entrypoint.sh",
                "mlflow",
                "gc",
            ),
            *("--tracking-uri", "http://127.0.0.1:5000", "--run-ids", place.split("/")[1]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert status() == "404"
