"""Whom the runner and its stages trust: every client takes the platform's certificates."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from tests.unit.conftest import ROLES

pytestmark = pytest.mark.processes

BUNDLE = "{{ __dvc_runner_ca }}"
LIST = "list_objects_v2(Bucket='b')"
S3 = "region_name='us-east-1', endpoint_url=A, aws_access_key_id='a', aws_secret_access_key='b'"
PYTHON = {
    "urllib": "import urllib.request; urllib.request.urlopen(A)",
    "requests": "import requests; requests.get(A)",
    "botocore": f"import botocore.session as s; s.Session().create_client('s3', {S3}).{LIST}",
    "aiobotocore": f"""
import asyncio
from aiobotocore.session import get_session
async def ask():
    async with get_session().create_client('s3', {S3}) as client:
        await client.{LIST}
asyncio.run(ask())
""",
}
COMMANDS = {
    **{
        name: [sys.executable, "-c", f"import sys; A = sys.argv[1]\n{text}"]
        for name, text in PYTHON.items()
    },
    "curl": ["curl", "--silent", "--show-error"],
    "git": ["git", "ls-remote"],
    "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--retries=0", "none", "-i"],
    "uv": ["uv", "pip", "compile", "--no-cache", "/dev/stdin", "--default-index"],
}


class Anything(BaseHTTPRequestHandler):
    """Answers, and notes who got as far as to ask."""

    asked: list[str] = []  # noqa: RUF012 - the server makes the instances

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = b"<ListBucketResult/>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def openssl(at: Path, words: str) -> None:
    """Call openssl in a directory."""
    subprocess.run(["openssl", *words.split()], cwd=at, check=True, capture_output=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server whose certificates nobody else trusts, and these."""
    place = tmp_path_factory.mktemp("own")
    openssl(place, "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=own -keyout ca.key -out ca")
    openssl(place, "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key -out asked")
    (place / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl(
        place, "x509 -req -in asked -CA ca -CAkey ca.key -days 2 -extfile names -out certificate"
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "certificate", place / "key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Anything) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that trusts nobody
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", place / "ca"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("client", COMMANDS)
def test_every_client_of_a_stage_trusts_the_platforms_certificates(
    client: str, own: tuple[str, Path]
) -> None:
    address, certificate = own
    declared = yaml.safe_load((ROLES / "dvc_runner/vars/main.yml").read_text())
    given = {
        name: str(certificate)
        for name, value in declared["__dvc_runner_environment"].items()
        if value == BUNDLE
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    for trusting, environment in ((False, kept), (True, {**kept, **given})):
        Anything.asked.clear()
        subprocess.run(
            [*COMMANDS[client], f"{address}/{client}"],
            env={**environment, "AWS_MAX_ATTEMPTS": "1", "NO_PROXY": "*"},
            input="none\n",
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert bool(Anything.asked) is trusting
