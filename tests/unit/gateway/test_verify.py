"""Whether the verdict sees that a user of the gateway is let in, and never tells a password."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import load

from platform_verify.declared import Platform, Port, Service

evidence = load("gateway/verify/evidence.py")
checks = load("gateway/verify/check_gateway.py")
lookup = load("platform/lookup_plugins/platform_certificate.py")

PASSWORD = "generated-and-long"  # noqa: S105 - of nobody
USERS = [
    {"name": "person", "groups": ["admin"], "password": "", "password_hash": "$2b$..."},
    {"name": "admin", "groups": ["admin"], "password": PASSWORD, "password_hash": ""},
]
ADMIN = f"Basic {base64.b64encode(f'admin:{PASSWORD}'.encode()).decode()}"


class Gateway(BaseHTTPRequestHandler):
    """Lets admin in, and has a neighbour that does not."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == ADMIN
        self.send_response(401 if not known else 403 if self.path.startswith("/shut/") else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the evidence is told of a gateway that runs."""
    made = lookup.server(tmp_path, "gateway", ["localhost"], "lab")
    (tmp_path / "pem").write_text(made["certificate"] + made["key"])
    (tmp_path / "users.json").write_text(json.dumps(USERS))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setattr(evidence, "USERS", tmp_path / "users.json")
        here = {"address": "127.0.0.1", "port": server.server_port}
        monkeypatch.setattr(evidence, "INSIDE", here)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield {"names": ["localhost"], "authority": made["authority"], "port": 443}
        finally:
            server.shutdown()


def proof(path: str, *groups: str) -> dict[str, Any]:
    """A route's."""
    return {"path": path, "proof": f"{path}api", "groups": list(groups)}


def told(given: dict[str, Any], *proofs: dict[str, Any]) -> list[dict[str, Any]]:
    """What the evidence says of proofs."""
    said = evidence.of_users({**given, "proofs": proofs})
    assert PASSWORD not in json.dumps(said)
    assert ADMIN not in json.dumps(said)
    rows: list[dict[str, Any]] = said["proven"]["value"]
    return rows


def test_a_user_with_a_generated_password_is_who_asks(given: dict[str, Any]) -> None:
    rows = told(given, proof("/open/"), proof("/shut/", "admin"), proof("/others/", "guests"))
    assert [(row["path"], row["user"], row["status"]) for row in rows] == [
        ("/open/", "admin", 200),
        ("/shut/", "admin", 403),
        ("/others/", "", 0),
    ]


def test_a_gateway_that_is_not_trusted_is_no_proof(given: dict[str, Any], tmp_path: Path) -> None:
    other = lookup.server(tmp_path / "other", "gateway", ["localhost"], "lab")["authority"]
    (row,) = told({**given, "authority": other}, proof("/open/"))
    assert row["status"] == 0
    assert "CERTIFICATE_VERIFY_FAILED" in row["error"]


class Facts:
    """What the evidence would have said."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def answer(self, *_: object) -> list[dict[str, Any]]:
        return self.rows


def judged(*rows: dict[str, Any]) -> list[str]:
    """What the check calls wrong."""
    ports = (Port(443, "127.0.0.1", 9743),)
    one = Service("gateway", "lab", "lab-gateway", "10003:10003", "256m", ports)
    promised = {"gateway": {"paths": ["/a/"], "s3": False, "proofs": [proof("/a/")]}}
    platform = Platform("lab", {}, {"gateway": one}, promised)
    found: list[str] = []
    checks.test_a_user_is_answered_by_each_neighbour_that_a_route_has_a_proof_of(
        platform, Facts([*rows]), lambda _: one, lambda wrong, _: found.extend(wrong)
    )
    return found


def row(status: int, user: str = "admin", error: str = "") -> dict[str, Any]:
    """One answer."""
    return {"path": "/a/", "user": user, "status": status, "error": error}


def test_whoever_is_not_answered_is_told_with_where() -> None:
    assert judged(row(200)) == []
    assert judged(row(200), row(403)) == ["/a/ answers 403 to admin"]
    assert judged(row(0, error="timed out")) == ["/a/ answers timed out to admin"]
    # a page to log in at is no answer
    assert judged(row(302)) == ["/a/ answers 302 to admin"]


def test_where_nobody_can_be_asked_for_nothing_is_promised() -> None:
    with pytest.raises(pytest.skip.Exception, match="no route has a proof"):
        judged(row(0, user=""))
