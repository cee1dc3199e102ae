"""How facts are read, wherever that needs no platform."""

from __future__ import annotations

import ast
import base64
import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from platform_verify import evidence, host, rooms, s3

WORD = "0123456789abcdefghij"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared with, not bound


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"{WORD}\n", [WORD]),
        (
            "[default]\naws_access_key_id = mlflow-of-the-lab\naws_secret_access_key = " + WORD,
            [WORD],
        ),
        (f"postgresql://owner:{WORD}@db/mlflow", [WORD]),
        (f"postgresql://owner:{WORD}%2F@db/mlflow", [f"{WORD}%2F", f"{WORD}/"]),
        (f"postgresql:*:*:jupyter:{WORD}\n", [WORD]),
        (f"db:5432:*:me:{WORD}\\:\ndb:*:*:you:b{WORD}", [f"{WORD}\\:", f"{WORD}:", f"b{WORD}"]),
        (f"{WORD}:b:c:d:e", [f"{WORD}:b:c:d:e"]),
        ("sqlite:////data/mlflow.db", []),
        ("minio", []),
        ("", []),
        (
            f'[{{"name": "admin-of-the-lab", "password": "{WORD}", "groups": ["all-users"]}}]',
            [WORD],
        ),
        (f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY-----", [WORD]),
    ],
    ids=[
        "a word",
        "an INI file",
        "an address with a password",
        "an address with a password that is encoded",
        "a password file of PostgreSQL",
        "a password file of several lines",
        "a password with colons",
        "without",
        "a name",
        "nothing",
        "JSON",
        "a key",
    ],
)
def test_of_a_secret_file_only_the_secret_is_looked_for(content: str, found: list[str]) -> None:
    assert host.secret_values(content) == found


@pytest.mark.parametrize(
    "kind", [ec.SECP256R1(), ec.SECP384R1(), None], ids=["P-256", "P-384", "RSA"]
)
def test_of_a_key_nothing_is_looked_for_that_its_certificate_tells_too(
    kind: ec.EllipticCurve | None,
) -> None:
    key = ec.generate_private_key(kind) if kind else rsa.generate_private_key(65537, 2048)
    form = serialization.Encoding.PEM
    private = key.private_bytes(
        form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    (value,) = host.secret_values(private)
    assert value in private
    # base64 begins anew at every third byte, so the name's length decides what lines look like
    for length in range(1, 4):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * length)])
        day = datetime(2026, 1, 1, tzinfo=UTC)
        made = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day)
        told = made.sign(key, hashes.SHA256()).public_bytes(form).decode()
        assert value not in told


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_of_a_key_of_openssh_a_line_of_its_private_half_is_looked_for(
    kind: str, tmp_path: Path
) -> None:
    for number in range(3):
        path = tmp_path / f"key{number}"
        words = ("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "x" * 4 * number, "-f", str(path))
        subprocess.run(words, check=True)
        (value,) = host.secret_values(path.read_text())
        assert value in path.read_text()
        public = base64.b64decode(path.with_suffix(".pub").read_text().split()[1])
        for before in range(3):
            assert value not in base64.b64encode(bytes(before) + public).decode()


def secret_files(at: Path, content: str) -> Path:
    place = at / "services" / "minio" / "secrets"
    place.mkdir(parents=True)
    (place / "root_password").write_text(content)
    (place / "root_password").chmod(0o640)
    return at


def test_a_secret_in_a_file_or_a_command_line_is_named_without_showing_it(tmp_path: Path) -> None:
    secret_files(tmp_path, WORD)
    (tmp_path / "compose.yaml").write_text(f"password: {WORD}")
    command = [sys.executable, "-c", "print(flush=True); input()", WORD]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert running.stdout
    running.stdout.readline()  # the kernel shows a command line only once the program has begun
    try:
        seen = host.secrets(tmp_path, [])
    finally:
        running.communicate(b"\n")
    assert f"minio/root_password in {tmp_path / 'compose.yaml'}" in seen["found"]
    assert any(f"command line of process {running.pid} " in place for place in seen["found"])
    assert WORD not in json.dumps(seen)


def test_a_secret_that_is_nowhere_else_is_not_found_and_its_owner_is_told(tmp_path: Path) -> None:
    seen = host.secrets(secret_files(tmp_path, "nowhere-else-" + WORD), [])
    assert (seen["looked_for"], seen["found"]) == (1, [])
    assert seen["files"] == [{"name": "minio/root_password", "mode": "0640", "uid": os.getuid()}]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose only log is a journal with these bytes."""
    log = tmp_path / "journal"
    (tmp_path / "journalctl").write_text(f"#!/bin/sh\nexec cat {log}\n")
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(host, "LOG_FILES", ())
    return log


@pytest.mark.parametrize("at", [0, host.LOG_BLOCK - 5, 3 * host.LOG_BLOCK], ids=str)
def test_a_secret_in_the_journal_is_found_wherever_a_block_ends(
    at: int, tmp_path: Path, journal: Path
) -> None:
    journal.write_bytes(bytes(at) + WORD.encode() + b"\n" + bytes(host.LOG_BLOCK))
    seen = host.secrets(secret_files(tmp_path / "project", WORD), [])
    assert seen["found"] == ["minio/root_password in the journal"]
    assert seen["logs"] == ["the journal"]


def test_a_journal_without_a_secret_is_said_to_be_searched(tmp_path: Path, journal: Path) -> None:
    journal.write_text("ansible-platform_files: nothing\n")
    seen = host.secrets(secret_files(tmp_path / "project", WORD), [])
    assert (seen["found"], seen["logs"]) == ([], ["the journal"])


def test_of_a_journal_without_end_only_the_newest_part_is_read(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "LOG_LIMIT", 4 * host.LOG_BLOCK)
    (journal.parent / "journalctl").write_text("#!/bin/sh\nexec cat /dev/zero\n")
    assert len(list(host.host_logs())) == 4


def test_a_secret_at_the_end_of_a_large_syslog_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "syslog"
    log.write_bytes(bytes(5 * host.LOG_BLOCK) + WORD.encode())
    monkeypatch.setattr(host, "LOG_FILES", (str(log), str(tmp_path / "none")))
    monkeypatch.setattr(host, "LOG_LIMIT", 2 * host.LOG_BLOCK)
    monkeypatch.setenv("PATH", str(tmp_path))
    seen = host.secrets(secret_files(tmp_path / "project", WORD), [])
    assert seen["found"] == [f"minio/root_password in {log}"]


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("0100007F:2328", ("127.0.0.1", 9000)),
        ("00000000:1388", (EVERYWHERE, 5000)),
        ("00000000000000000000000000000000:2329", ("::", 9001)),
        ("00000000000000000000000001000000:0050", ("::1", 80)),
    ],
)
def test_addresses_of_the_kernels_tables_are_read(field: str, address: tuple[str, int]) -> None:
    assert host.socket_address(field) == address


def test_a_listening_socket_is_seen_and_one_that_only_connects_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = server.getsockname()
        with socket.create_connection(there) as client:
            seen = host.listeners("self")
            assert there in seen
            assert client.getsockname() not in seen
    assert there not in host.listeners("self")


def test_what_an_engine_publishes_is_listed_address_by_address() -> None:
    ports = {
        "9000/tcp": [
            {"HostIp": EVERYWHERE, "HostPort": "80"},
            {"HostIp": "::", "HostPort": "80"},
        ],
        "9001/tcp": None,
    }
    assert host.published(ports) == [
        {"inside": 9000, "protocol": "tcp", "address": EVERYWHERE, "port": 80},
        {"inside": 9000, "protocol": "tcp", "address": "::", "port": 80},
    ]
    assert host.published(None) == []


def test_one_fact_that_cannot_be_read_hides_no_other() -> None:
    def fail() -> None:
        raise ValueError("no\n  such thing")

    found = evidence.gather({"bad": fail, "good": lambda: 3})
    assert found["bad"]["error"] == "ValueError: no such thing"
    assert found["good"]["value"] == 3


def test_an_engine_that_does_not_answer_ends_the_look_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "SOCKET", str(tmp_path / "docker.sock"))
    given = json.dumps({"platform": "x", "directory": str(tmp_path)}).encode()
    assert evidence.main(host.AT_ONCE, ["host", base64.b64encode(given).decode()]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "docker.sock does not answer" in found["cannot_run"]


class Answer(BaseHTTPRequestHandler):
    """Refuses everything but /health."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/health" else 403)
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    """Address of a server that refuses."""
    with HTTPServer(("127.0.0.1", 0), Answer) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_the_platforms_own_addresses_are_asked_past_a_proxy(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert evidence.answer_to({"url": f"{server}/health"})["status"] == 200


def test_answers_are_told_by_their_status_and_silence_by_its_reason(server: str) -> None:
    assert evidence.answer_to({"url": f"{server}/health"})["status"] == 200
    assert evidence.answer_to({"url": f"{server}/x"})["status"] == 403
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    silent = evidence.answer_to({"url": f"http://127.0.0.1:{port}/"})
    assert silent["status"] == 0
    assert "refused" in silent["error"]


@pytest.mark.parametrize(
    ("url", "rest", "found"),
    [
        ("s3://dvc-storage", "files/md5/ab/c", ("dvc-storage", "files/md5/ab/c")),
        ("s3://dvc-storage/iris/", "files/md5/ab/c", ("dvc-storage", "iris/files/md5/ab/c")),
        ("s3://bucket", "1/run/artifacts/", ("bucket", "1/run/artifacts/")),
    ],
)
def test_a_key_lies_below_the_prefix_of_its_remote(
    url: str, rest: str, found: tuple[str, str]
) -> None:
    assert s3.bucket_and_key(url, rest) == found


STDLIB = sys.stdlib_module_names
FILES = [Path(host.__file__), *sorted(rooms.ROLES.glob("*/verify/evidence*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parts[-3])
def test_evidence_can_be_sent_anywhere_it_is_small_and_needs_only_python_3_9(path: Path) -> None:
    packed = rooms.evidence(path).packed
    # one word of a command line may be 128 KiB, and ssh makes one of all of them
    assert len(packed) < 65_536
    ast.parse(gzip.decompress(base64.b64decode(packed)), feature_version=(3, 9))
    for part in (path, *(rooms.HERE / f"{name}.py" for name in rooms.COMMON)):
        tree = ast.parse(part.read_text(), feature_version=(3, 9))
        imported = {
            name.name.partition(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import)
            for name in node.names
        } | {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
        known = {f"platform_verify.{name}" for name in rooms.COMMON}
        assert {name for name in imported if name.partition(".")[0] not in STDLIB} <= known
