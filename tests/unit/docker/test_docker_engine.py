"""What the platform learns of a host, and what it does about daemons that were killed."""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.conftest import RunModule, load

engine = load("docker/library/docker_engine.py")
MODULE = "docker/library/docker_engine.py"

# --- the distribution and its mirror


@pytest.mark.parametrize(
    ("text", "distribution", "release"),
    [
        (
            'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
            "debian",
            "12",
        ),
        ("# a comment\n\nID=ubuntu\nVERSION_ID='24.04'\n", "ubuntu", "24.04"),
        ('ID="opensuse-leap"\nVERSION_ID=15.6', "opensuse-leap", "15.6"),
    ],
)
def test_a_distribution_is_known_by_its_os_release_however_that_quotes(
    text: str, distribution: str, release: str, tmp_path: Path
) -> None:
    path = tmp_path / "os-release"
    path.write_text(text)
    found = engine.os_release(path)
    assert (found["id"], found["version_id"]) == (distribution, release)


DEB822 = """\
Types: deb
# URIs: http://old.example/debian
URIs: https://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
"""


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        (
            "sources.list",
            "deb http://deb.debian.org/debian bookworm main\n",
            "http://deb.debian.org/debian",
        ),
        ("sources.list", "deb http://m.example/debian/ sid main", "http://m.example/debian"),
        (
            "sources.list",
            "# deb http://o.example/debian sid main\ndeb [a=b] https://m.example:80/debian t main",
            "https://m.example:80/debian",
        ),
        ("sources.list", "deb file:///srv/debian trixie main\n", "file:///srv/debian"),
        ("sources.list.d/debian.sources", DEB822, "https://mirror.example/debian"),
        ("sources.list.d/x.sources", "URIs: http://a.example/debian", "http://a.example/debian"),
        ("sources.list", "deb http://security.example/debian-security x main\n", ""),
        ("sources.list", "deb http://archive.ubuntu.com/ubuntu noble main\n", ""),
        ("unrelated", "deb http://m.example/debian sid main\n", ""),
    ],
)
def test_the_debian_mirror_is_read_from_either_format_of_apts_sources(
    name: str, text: str, mirror: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert engine.debian_mirror(tmp_path) == mirror


def test_memory_is_told_in_mib(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:        2048000 kB\nMemFree:  1 kB\n")
    assert engine.memory_mb(path) == {"total": 2000}


def test_free_disk_is_told_of_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    assert engine.existing_parent(str(tmp_path / "not/yet/there")) == str(tmp_path)
    assert engine.existing_parent(str(tmp_path)) == str(tmp_path)


# --- who listens


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),  # noqa: S104
        ("0A01A8C0", "192.168.1.10"),
        ("00000000000000000000000001000000", "::1"),
        ("00000000000000000000000000000000", "::"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ("B80D0120000000000000000001000000", "2001:db8::1"),
    ],
)
def test_an_address_of_the_kernels_table_is_read(raw: str, address: str) -> None:
    assert engine.address_of(raw) == address


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_port_that_is_listened_on_is_told_with_its_process(
    family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family) as mine:
        try:
            mine.bind((address, 0))
        except OSError:
            pytest.skip(f"this host has no {address}")
        port = mine.getsockname()[1]
        assert (address, port) not in {(row["address"], row["port"]) for row in engine.listeners()}
        mine.listen()
        rows = [row for row in engine.listeners() if row["port"] == port]
    comm = Path("/proc/self/comm").read_text().strip()
    held = f"{comm} (pid {os.getpid()})"
    assert rows == [{"address": address, "port": port, "protocol": "tcp", "process": held}]


def test_a_udp_port_that_is_waited_on_is_told_as_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.bind(("127.0.0.1", 0))
        port = mine.getsockname()[1]
        rows = [row for row in engine.listeners() if row["port"] == port]
    assert [(row["address"], row["protocol"]) for row in rows] == [("127.0.0.1", "udp")]


def test_a_connection_is_no_listener() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            port = client.getsockname()[1]
            assert port not in {row["port"] for row in engine.listeners()}


# --- daemons that were killed


@pytest.mark.parametrize("content", ["999999999", "", "not a number"])
@pytest.mark.parametrize("name", ["docker.pid", "docker/containerd/containerd.pid"])
def test_the_pid_file_of_a_daemon_that_is_gone_is_removed(
    name: str, content: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    engine.remove_stale_pid_files(tmp_path)
    assert not path.exists()


def test_the_pid_file_is_removed_where_another_program_has_that_pid_now(tmp_path: Path) -> None:
    (tmp_path / "docker.pid").write_text(f"{os.getpid()}\n")
    engine.remove_stale_pid_files(tmp_path)
    assert not (tmp_path / "docker.pid").exists()


def test_the_pid_file_of_a_living_daemon_is_kept(tmp_path: Path) -> None:
    # a thread that is called dockerd stands in for the daemon: /proc knows it by its own number
    ready, done = threading.Event(), threading.Event()
    seen: list[int] = []

    def pretend() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("dockerd")
        seen.append(threading.get_native_id())
        ready.set()
        done.wait()

    thread = threading.Thread(target=pretend)
    thread.start()
    try:
        ready.wait()
        (tmp_path / "docker.pid").write_text(f"{seen[0]}\n")
        engine.remove_stale_pid_files(tmp_path)
        assert (tmp_path / "docker.pid").exists()
    finally:
        done.set()
        thread.join()


def test_without_pid_files_nothing_is_wrong(tmp_path: Path) -> None:
    engine.remove_stale_pid_files(tmp_path)


# --- an engine, or none


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 4 minutes (healthy)", "healthy"),
        ("Up 2 seconds (health: starting)", "starting"),
        ("Up 4 minutes (unhealthy)", "unhealthy"),
        ("Up 4 minutes", ""),
        ("Exited (0) 3 minutes ago", ""),
    ],
)
def test_the_health_of_a_container_is_read_from_its_status(status: str, health: str) -> None:
    assert engine.health_of(status) == health


@pytest.mark.parametrize(
    ("status", "code"),
    [("Exited (0) 2 hours ago", 0), ("Exited (137) 1 second ago", 137), ("Up 1 second", None)],
)
def test_the_code_that_a_container_ended_with_is_read(status: str, code: int | None) -> None:
    assert engine.exit_code_of(status) == code


ANSWERS: dict[str, object] = {
    "/version": {"Version": "27.5.1", "ApiVersion": "1.47", "Arch": "amd64"},
    "/info": {"DockerRootDir": "/var/lib/docker"},
    "/networks": [{"Name": "p", "Labels": {"mlops.platform": "p"}}, {"Name": "host", "Labels": {}}],
    "/volumes": {"Volumes": [{"Name": "p_data", "Labels": None}], "Warnings": None},
    "/images/json": [{"RepoTags": ["b:1", "a:1"]}, {"RepoTags": None}],
    "/containers/json?all=true": [
        {
            "Names": ["/web"],
            "State": "running",
            "Status": "Up 1 second (healthy)",
            "Labels": {"mlops.platform": "p"},
            "Ports": [
                {"PrivatePort": 80, "PublicPort": 9000, "IP": "127.0.0.1"},
                {"PrivatePort": 80, "PublicPort": 9000, "IP": "::1"},
                {"PrivatePort": 81},
            ],
        }
    ],
}


class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(ANSWERS[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def address_string(self) -> str:
        return "socket"


@pytest.fixture
def engine_socket(tmp_path: Path) -> Iterator[str]:
    """A socket on which something speaks as an engine does."""
    path = str(tmp_path / "docker.sock")
    with socketserver.ThreadingUnixStreamServer(path, Engine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_a_running_engine_is_described(engine_socket: str, run_module: RunModule) -> None:
    answer = run_module(MODULE, socket=engine_socket, start=False)
    host = answer["ansible_facts"]["docker_host"]
    assert not answer["changed"]
    assert host["engine"] == {
        "version": "27.5.1",
        "api": "1.47",
        "root": "/var/lib/docker",
        "architecture": "amd64",
    }
    assert host["images"] == ["a:1", "b:1"]
    assert host["networks"][0] == {"name": "p", "labels": {"mlops.platform": "p"}}
    assert host["volumes"] == [{"name": "p_data", "labels": {}}]
    assert host["containers"] == [
        {
            "name": "web",
            "state": "running",
            "health": "healthy",
            "exit_code": None,
            "labels": {"mlops.platform": "p"},
            "ports": [9000],
        }
    ]
    assert host["projects"] == {}
    assert host["installed"]
    assert host["uid"] == os.geteuid()


def test_only_the_projects_of_containers_with_the_label_are_told(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
        (directory / "compose.yaml").write_text("name: x\n")
    containers = [
        {"labels": {"mlops.platform": "p", engine.DIRECTORY_LABEL: str(ours)}},
        {"labels": {engine.DIRECTORY_LABEL: str(theirs)}},
        {"labels": {"mlops.platform": "by hand"}},
    ]
    told = engine.projects(containers)
    assert list(told) == [str(ours)]
    assert told[str(ours)] == engine.tree_digest(ours) != ""


def test_a_project_with_something_in_it_that_is_no_file_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("name: x\n")
    os.mkfifo(tmp_path / "pipe")
    assert engine.tree_digest(tmp_path) == ""


def test_where_no_engine_answers_the_host_is_still_described(
    tmp_path: Path, run_module: RunModule
) -> None:
    answer = run_module(MODULE, socket=str(tmp_path / "no.sock"), start=False)
    host = answer["ansible_facts"]["docker_host"]
    assert (host["engine"], host["containers"], host["images"]) == (None, [], [])
    assert host["memory_mb"]["total"] > 0


@pytest.mark.parametrize(
    ("config", "bypass"),
    [
        ("{}", None),
        ("no JSON", None),
        ('{"proxies": {"default": {"noProxy": "a"}}}', None),
        ('{"proxies": {"default": {"httpProxy": "http://u:pw@p", "noProxy": "a,b"}}}', "a,b"),
        ('{"proxies": {"default": {"httpsProxy": "http://p"}}}', ""),
        ('{"proxies": {"tcp://other": {"httpProxy": "http://p"}}}', None),
        ('{"proxies": {"default": {"httpProxy": "http://p"}, "unix:///s": {}}}', None),
        ('{"proxies": {"unix:///s": {"allProxy": "http://p", "noProxy": "c"}}}', "c"),
    ],
)
def test_whom_the_client_asks_without_its_proxy_is_told_and_the_proxy_is_not(
    config: str, bypass: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(config)
    assert engine.no_proxy("/s", {"DOCKER_CONFIG": str(tmp_path)}) == bypass


def test_a_client_without_settings_has_no_proxy(tmp_path: Path) -> None:
    assert engine.no_proxy("/s", {"DOCKER_CONFIG": str(tmp_path)}) is None


def test_check_mode_starts_nothing(tmp_path: Path, run_module: RunModule) -> None:
    log = tmp_path / "dockerd.log"
    run_module(MODULE, check=True, socket=str(tmp_path / "no.sock"), log=str(log))
    assert not log.exists()


def test_the_end_of_a_daemons_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "dockerd.log"
    log.write_bytes(b"\n".join(b"line %d" % number for number in range(100)) + b"\nbad \xff byte")
    shown = engine.last_lines(log, systemd=False, count=2)
    assert shown == "line 99\nbad \N{REPLACEMENT CHARACTER} byte"
    assert engine.last_lines(tmp_path / "no.log", systemd=False) == ""
