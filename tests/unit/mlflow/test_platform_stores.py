"""The server's artifact store: what it says of itself, and what becomes of an upload."""

# MLflow has types for a part of itself only
# mypy: disallow-untyped-calls=False
from __future__ import annotations

import asyncio
import importlib.metadata
import re
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import (
    MultipartDownloadMixin,
    MultipartUploadMixin,
    PresignedUploadMixin,
    StreamUploadMixin,
)
from tests.unit.conftest import ROLES, load

Repository = Any  # the plug-in is loaded by path, which no type checker follows
PLUGIN = "mlflow/files/server/plugin"
PART = 16 * 2**20


class Store(ThreadingHTTPServer):
    """As much of S3 as an upload needs; refuses a part where it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.calls: list[str] = []
        self.sizes: list[int] = []
        self.refuse = ""
        self.length = 0


class Answer(BaseHTTPRequestHandler):
    """One call of the S3 API."""

    server: Store
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Note the call and answer it."""
        if self.headers.get("Expect"):
            self.handle_expect_100()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = self.path.partition("?")[2]
        call = f"{self.command} {re.sub(r'=.*', '', query)}".strip()
        self.server.calls.append(call)
        if self.command == "PUT":
            self.server.sizes.append(len(body))
        status, content = 200, b""
        if self.server.refuse and self.command == "PUT":
            status = 507
            said = f"<Error><Code>{self.server.refuse}</Code><Message>full</Message></Error>"
            content = said.encode()
        elif self.command == "POST" and query == "uploads":
            content = b"<Result><UploadId>1</UploadId></Result>"
        elif self.command == "POST":
            content = b"<Result><ETag>e</ETag></Result>"
        if self.command == "HEAD" and not self.server.length:
            status = 404
        self.send_response(status)
        self.send_header("ETag", '"e"')
        length = self.server.length if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that answers on this machine, with nobody's keys."""
    server = Store()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def repository(store: Store) -> Repository:
    """The repository as the server makes it."""
    assert store.calls == []
    return load(f"{PLUGIN}/platform_stores.py").ServedArtifactRepository("s3://bucket/root")


class Client:
    """What a client sends, chunk by chunk, and how much of it was taken."""

    def __init__(self, *chunks: bytes, vanish: bool = False) -> None:
        self.chunks = chunks
        self.vanish = vanish
        self.taken = 0

    async def send(self) -> AsyncIterator[bytes]:
        """Send everything, or vanish after it."""
        for chunk in self.chunks:
            yield chunk
            self.taken += 1
        if self.vanish:
            raise ConnectionError("the client is gone")


def upload(repository: Repository, client: Client) -> None:
    """Send a file as the server does."""
    asyncio.run(repository.log_artifact_from_async_stream(client.send(), "a b%ü.bin", "d"))


def test_mlflow_finds_the_plug_in_for_the_scheme_of_the_store() -> None:
    found = {
        (point.group, point.name): point.value
        for package in importlib.metadata.distributions(path=[str(ROLES / PLUGIN)])
        for point in package.entry_points
    }
    assert found == {
        ("mlflow.artifact_repository", "s3"): "platform_stores:ServedArtifactRepository"
    }


def test_the_store_offers_clients_no_way_around_the_server(repository: Repository) -> None:
    for way in (MultipartUploadMixin, MultipartDownloadMixin, PresignedUploadMixin):
        assert not isinstance(repository, way)
    assert isinstance(repository, StreamUploadMixin)


def test_a_short_file_is_stored_in_one_call(store: Store, repository: Repository) -> None:
    upload(repository, Client(b"a", b"b"))
    assert (store.calls, store.sizes) == (["PUT"], [2])


def test_an_empty_file_is_stored_too(store: Store, repository: Repository) -> None:
    upload(repository, Client())
    assert (store.calls, store.sizes) == (["PUT"], [0])


def test_a_long_file_is_stored_in_parts_and_completed(store: Store, repository: Repository) -> None:
    upload(repository, Client(*[b"x" * 2**20] * 33))
    assert store.calls == ["POST uploads", "PUT uploadId", "PUT uploadId", "POST uploadId"]
    assert sum(store.sizes) == 33 * 2**20
    assert store.sizes[0] > PART


def test_a_client_that_vanishes_leaves_no_upload_behind(
    store: Store, repository: Repository
) -> None:
    with pytest.raises(ConnectionError):
        upload(repository, Client(*[b"x" * 2**20] * 20, vanish=True))
    assert store.calls == ["POST uploads", "PUT uploadId", "DELETE uploadId"]


def test_a_full_store_is_said_once_and_after_everything_was_read(
    store: Store, repository: Repository
) -> None:
    store.refuse = "XMinioStorageFull"
    client = Client(*[b"x" * 2**20] * 40)
    with pytest.raises(MlflowException, match=r"refused a b%ü\.bin: full") as refusal:
        upload(repository, client)
    assert refusal.value.get_http_status_code() == 507
    assert client.taken == 40
    assert store.calls[-1] == "DELETE uploadId"


def test_a_file_that_is_not_there_is_not_found(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match=r"nothing") as refusal:
        repository._download_file("nothing", str(tmp_path / "nothing"))
    assert refusal.value.get_http_status_code() == 404


def test_a_file_larger_than_the_servers_disk_is_refused_before_it_is_fetched(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    store.length = 2**60
    with pytest.raises(MlflowException, match=r"big has \d+ MiB and the server's disk") as refusal:
        repository.download_artifacts("big", str(tmp_path))
    assert refusal.value.get_http_status_code() == 507
    assert store.calls == ["HEAD"]


def test_a_store_that_does_not_answer_is_a_passing_failure(
    store: Store, repository: Repository
) -> None:
    store.shutdown()
    store.server_close()
    with pytest.raises(MlflowException, match="did not answer") as refusal:
        upload(repository, Client(b"a"))
    assert refusal.value.get_http_status_code() == 503
