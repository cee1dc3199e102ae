"""What the tests of the module share: a server, calls of the module, a relay that sees requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import S3Error

ROLE = Path(__file__).parents[2] / "roles" / "minio"
MODULE = ROLE / "library" / "minio_provision.py"
Options = dict[str, Any]


@dataclass(frozen=True)
class MinioServer:
    """A MinIO server for tests, reached without TLS."""

    address: str
    access_key: str
    secret_key: str

    def s3(self, access_key: str | None = None, secret_key: str | None = None) -> Minio:
        """Return an S3 client, of the root user if no keys are given."""
        return Minio(
            endpoint=self.address,
            access_key=access_key or self.access_key,
            secret_key=secret_key or self.secret_key,
            secure=False,
            region="us-east-1",
        )

    def admin(self) -> MinioAdmin:
        """Return an admin client of the root user."""
        return MinioAdmin(
            endpoint=self.address,
            credentials=StaticProvider(access_key=self.access_key, secret_key=self.secret_key),
            secure=False,
        )

    def answer_to(self, access_key: str, secret_key: str) -> str:
        """Return the server's verdict on a pair of keys: 'ok' or S3's error code."""
        try:
            self.s3(access_key, secret_key).list_buckets()
        except S3Error as error:
            # The signature is checked before the permission.
            return "ok" if error.code == "AccessDenied" else str(error.code)
        return "ok"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def started(
    binary: str, directory: Path, address: str = "", **environment: str
) -> Iterator[MinioServer]:
    """Run `minio server`, by default on a free port, while the context lasts.

    Raises:
        RuntimeError: with its log if it ends.
    """
    address = address or f"127.0.0.1:{free_port()}"
    server = MinioServer(address, f"root-{secrets.token_hex(4)}", secrets.token_hex(20))
    log = directory / "minio.log"
    data = directory / "data"
    keys = {"MINIO_ROOT_USER": server.access_key, "MINIO_ROOT_PASSWORD": server.secret_key}
    with (
        log.open("w") as output,
        subprocess.Popen(
            [binary, "server", "--address", address, "--console-address", "127.0.0.1:0", data],
            env={"HOME": str(directory), "PATH": os.defpath, **keys, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            while not is_up(address):
                if process.poll() is not None:
                    raise RuntimeError(f"{binary} ended at once: {log.read_text()}")
                time.sleep(0.05)
            yield server
        finally:
            process.terminate()


def is_up(address: str) -> bool:
    """Tell whether the server there says that it can serve."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=2)) as connection:
        try:
            connection.request("GET", "/minio/health/cluster")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False


@dataclass
class Relay:
    """A reverse proxy in front of the server that notes each request and can spoil some.

    `meddle(method, path)` is called before a request is passed on; a number it returns is the
    status that is answered instead, with a body as MinIO gives when it is starting.
    """

    target: str
    meddle: Callable[[str, str], int | None] = lambda _method, _path: None
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def writes(self) -> list[str]:
        """Return the requests that are no reads."""
        return [each for each in self.requests if not each.startswith("GET ")]

    @contextlib.contextmanager
    def running(self) -> Iterator[Relay]:
        """Serve on a free port while the context lasts."""
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                relay.requests.append(f"{self.command} {self.path}")
                status = relay.meddle(self.command, self.path)
                if status:
                    answer = (
                        b"<Error><Code>XMinioServerNotInitialized</Code>"
                        b"<Message>Server not initialized yet</Message></Error>"
                    )
                    headers = [("Content-Type", "application/xml")]
                else:
                    status, headers, answer = self.ask(body)
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815  # http.server's

            def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                with contextlib.closing(http.client.HTTPConnection(relay.target)) as upstream:
                    upstream.putrequest(
                        self.command, self.path, skip_host=True, skip_accept_encoding=True
                    )
                    for name, value in self.headers.items():
                        upstream.putheader(name, value)
                    upstream.endheaders(body)
                    response = upstream.getresponse()
                    return response.status, response.getheaders(), response.read()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.address = f"127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


@dataclass(frozen=True)
class Result:
    """What one call of the module returned."""

    text: str
    answer: Options

    @property
    def changed(self) -> bool:
        """Whether the call changed something."""
        return bool(self.answer["changed"])

    @property
    def message(self) -> str:
        """The error sentence."""
        return str(self.answer["msg"])

    @property
    def changes(self) -> dict[str, list[str]]:
        """What changed, by 'kind name'."""
        return dict(self.answer["changes"])


def run_module(options: Options, interpreter: list[str], env: dict[str, str]) -> Result:
    """Run the module file as Ansible does: options on standard input, one JSON document out."""
    done = subprocess.run(
        [*interpreter, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": options}),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, **env},
    )
    text = done.stdout + done.stderr
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise AssertionError(f"the module wrote no JSON: {text}") from error
    assert done.returncode == int(answer.get("failed", False)), text
    return Result(text, answer)


@dataclass
class Provision:
    """Calls the module with the server's address and files of its root keys."""

    server: MinioServer
    directory: Path
    env: dict[str, str] = field(default_factory=dict)

    def keys(self) -> Options:
        """Write the root keys as the container has them and return the options that name them."""
        options: Options = {}
        for key in ("access_key", "secret_key"):
            path = self.directory / key
            path.write_text(getattr(self.server, key) + "\n")
            options[f"{key}_file"] = str(path)
        return options

    def call(
        self, *, check: bool = False, diff: bool = False, via: str = "", **options: object
    ) -> Result:
        """Return what the module says, success or not."""
        given: Options = {
            "endpoint": via or self.server.address,
            **self.keys(),
            "wait": 5,
            "_ansible_check_mode": check,
            "_ansible_diff": diff,
            **options,
        }
        given = {key: value for key, value in given.items() if value is not None}
        return run_module(given, [sys.executable], self.env)

    def __call__(
        self, *, check: bool = False, diff: bool = False, via: str = "", **options: object
    ) -> Result:
        """Return what the module says; fail the test if that is an error."""
        result = self.call(check=check, diff=diff, via=via, **options)
        assert "failed" not in result.answer, result.answer["msg"]
        return result

    def refused(
        self, *, check: bool = False, diff: bool = False, via: str = "", **options: object
    ) -> Result:
        """Return what the module says; fail the test unless that is an error."""
        result = self.call(check=check, diff=diff, via=via, **options)
        assert result.answer.get("failed"), f"not refused: {result.text}"
        return result


def statement(*actions: str, on: str) -> Options:
    """Return a statement that allows `actions` on a bucket or 'bucket/key'."""
    return {"Effect": "Allow", "Action": list(actions), "Resource": [f"arn:aws:s3:::{on}"]}
