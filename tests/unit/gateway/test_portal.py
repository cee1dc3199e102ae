"""Who the gateway's portal lets in, asked as NGINX asks it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import bcrypt
import pytest
from argon2 import PasswordHasher
from starlette.types import Message

from gateway_portal import FAILURES, FAILURES_OF_ALL, PER_SECONDS, WAITING, Page, portal, state_of

PASSWORD = "right-horse-battery"  # noqa: S105 - of nobody
LAYOUT = Path("roles/gateway/files/portal/layout.html")
USERS = [
    {"name": "admin", "password": PASSWORD, "password_hash": "", "groups": ["admin"]},
    {"name": "ana", "password": "", "password_hash": "", "groups": []},
]
CHEAP = PasswordHasher(time_cost=1, memory_cost=64).hash(PASSWORD)
CROWD = [{**USERS[1], "name": f"name-{n}", "password_hash": CHEAP} for n in range(FAILURES_OF_ALL)]
Answer = tuple[int, dict[str, str], str]


def files(users: list[dict[str, Any]] = USERS) -> dict[str, str]:
    """The portal's files."""
    pages = [
        {"path": "/mlflow/", "title": "MLflow", "groups": []},
        {"path": "/minio/", "title": "MinIO <b>", "groups": ["admin"]},
    ]
    settings = {"name": "lab", "authority": "PEM", "session_hours": 1.0, "pages": pages}
    return {
        "GATEWAY_SETTINGS_FILE": json.dumps(settings),
        "GATEWAY_USERS_FILE": json.dumps(users),
        "GATEWAY_LAYOUT_FILE": LAYOUT.read_text(),
    }


class Client:
    """A client of the application, without a network."""

    def __init__(self, users: list[dict[str, Any]] = USERS) -> None:
        """Start the application on its files."""
        self._app = portal(files(users).__getitem__).app()
        self.read = 0  # pieces of the last request's body

    def ask(
        self, path: str, method: str = "GET", body: str | list[str] = "", **headers: str
    ) -> Answer:
        """Send a request, by default for a page of everybody; its status, headers and body."""
        pieces = [body] if isinstance(body, str) else body
        return asyncio.run(self._ask(path, method, pieces, {"x_gateway_groups": "*", **headers}))

    def ask_at_once(self, *many: dict[str, str]) -> list[int]:
        """Ask whether requests with these headers may pass, all at once; their statuses."""

        async def all_of_them() -> list[int]:
            asked = [self._ask("/check", "GET", [""], {"x_gateway_groups": "*", **h}) for h in many]
            return [answer[0] for answer in await asyncio.gather(*asked)]

        return asyncio.run(all_of_them())

    async def _ask(
        self, path: str, method: str, pieces: list[str], headers: dict[str, str]
    ) -> Answer:
        self.read = 0
        sent: list[Message] = []
        plain, _, query = path.partition("?")
        named = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
        scope = {
            "type": "http",
            "method": method,
            "path": plain,
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "headers": named,
        }

        async def receive() -> Message:
            piece, self.read = pieces[self.read], self.read + 1
            more = self.read < len(pieces)
            return {"type": "http.request", "body": piece.encode(), "more_body": more}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        shown = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return sent[0]["status"], shown, b"".join(m.get("body", b"") for m in sent).decode()

    def log_in(self, name: str = "admin", password: str = PASSWORD, goal: str = "/") -> Answer:
        """Send the form."""
        form = urlencode({"name": name, "password": password, "next": goal})
        return self.ask("/login", "POST", form, x_real_ip="10.0.0.1")

    def session(self) -> str:
        """Log in, and return the cookie."""
        return self.log_in()[1]["set-cookie"].partition(";")[0]


def basic(name: str, password: str) -> str:
    """The header of a program that sends a password."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_stranger_is_refused_and_a_password_passes_with_the_users_name(client: Client) -> None:
    assert client.ask("/check")[0] == 401
    status, headers, _ = client.ask("/check", authorization=basic("admin", PASSWORD))
    assert (status, headers["x-gateway-user"]) == (204, "admin")
    assert headers["x-gateway-member-of"] == "admin"


@pytest.mark.parametrize(
    "header",
    [
        basic("admin", "wrong"),
        basic("nobody", PASSWORD),
        basic("", ""),
        basic("ana", ""),
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        f"Bearer {PASSWORD}",
        "Basic \u00fc",
        "Basic",
    ],
)
def test_what_is_no_users_password_is_refused(client: Client, header: str) -> None:
    assert client.ask("/check", authorization=header)[0] == 401


@pytest.mark.parametrize(
    "hashed",
    [
        bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
        bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
        PasswordHasher(time_cost=1, memory_cost=64).hash(PASSWORD),
    ],
    ids=["bcrypt", "as htpasswd writes it", "argon2"],
)
def test_a_hash_takes_its_own_password_only(hashed: str) -> None:
    person = {"name": "eva", "password": "", "password_hash": hashed, "groups": []}
    client = Client([person])
    assert client.ask("/check", authorization=basic("eva", PASSWORD))[0] == 204
    assert client.ask("/check", authorization=basic("eva", hashed))[0] == 401


def test_a_page_of_a_group_is_for_its_members_only() -> None:
    users = [*USERS, {**USERS[0], "name": "eva", "groups": ["other"]}]
    client = Client(users)
    for name, status in (("admin", 204), ("eva", 403)):
        given = {"authorization": basic(name, PASSWORD), "x_gateway_groups": "admin ops"}
        assert client.ask("/check", **given)[0] == status


def test_after_too_many_wrong_passwords_the_right_one_waits_too(client: Client) -> None:
    for _ in range(FAILURES):
        assert client.ask("/check", authorization=basic("admin", "wrong"))[0] == 401
    status, headers, _ = client.ask("/check", authorization=basic("admin", PASSWORD))
    assert (status, headers["x-gateway-refusal"]) == (403, "wait")
    assert client.ask("/refused", x_gateway_refusal="wait")[0] == 429
    # from elsewhere it is let in: nobody locks out another
    elsewhere = {"authorization": basic("admin", PASSWORD), "x_real_ip": "10.9.9.9"}
    assert client.ask("/check", **elsewhere)[0] == 204


def test_a_guesser_learns_nothing_of_a_password_that_was_right_before(client: Client) -> None:
    right = {"authorization": basic("admin", PASSWORD)}
    assert client.ask("/check", **right, x_real_ip="10.0.0.2")[0] == 204
    assert client.ask("/check", **right, x_real_ip="10.0.0.1")[0] == 204
    for number in range(FAILURES):
        wrong = basic("admin", f"wrong-{number}")
        assert client.ask("/check", authorization=wrong, x_real_ip="10.0.0.1")[0] == 401
    answers = [
        client.ask("/check", authorization=basic("admin", password), x_real_ip="10.0.0.1")
        for password in (PASSWORD, "wrong", PASSWORD)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 403
    assert client.log_in()[0] == 429
    assert client.ask("/", **right, x_real_ip="10.0.0.1")[0] == 429
    # the user's own program elsewhere goes on
    assert client.ask("/check", **right, x_real_ip="10.0.0.2")[0] == 204


def test_while_a_guesser_waits_no_password_is_looked_at(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(FAILURES):
        client.ask("/check", authorization=basic("admin", f"wrong-{number}"))
    judged: list[str] = []
    monkeypatch.setattr("gateway_portal.is_right", lambda _, password: judged.append(password))
    monkeypatch.setattr("gateway_portal.User.mark", lambda _: judged.append("remembered"))
    for name, password in (("admin", PASSWORD), ("admin", "wrong")):
        assert client.ask("/check", authorization=basic(name, password))[0] == 403
    assert judged == []


def test_who_waited_a_minute_is_let_in(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(FAILURES):
        client.ask("/check", authorization=basic("admin", f"wrong-{number}"))
    right, now = basic("admin", PASSWORD), time.monotonic()
    monkeypatch.setattr("gateway_portal.time.monotonic", lambda: now + PER_SECONDS - 1)
    assert client.ask("/check", authorization=right)[0] == 403
    monkeypatch.setattr("gateway_portal.time.monotonic", lambda: now + PER_SECONDS + 1)
    assert client.ask("/check", authorization=right)[0] == 204


def test_right_passwords_of_a_program_do_not_let_a_guesser_beside_it_begin_anew(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nothing is remembered, so each is judged
    monkeypatch.setattr("gateway_portal.REMEMBERED_SECONDS", 0)
    for number in range(FAILURES):
        assert client.ask("/check", authorization=basic("admin", f"wrong-{number}"))[0] == 401
        status = client.ask("/check", authorization=basic("admin", PASSWORD))[0]
        assert status == (204 if number < FAILURES - 1 else 403)


def test_right_passwords_are_not_counted(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_portal.REMEMBERED_SECONDS", 0)
    for _ in range(3 * FAILURES):
        assert client.ask("/check", authorization=basic("admin", PASSWORD))[0] == 204


def test_made_up_names_do_not_make_room_for_more_guesses() -> None:
    names = [str(user["name"]) for user in CROWD]
    client = Client(CROWD)
    statuses = [client.ask("/check", authorization=basic(name, "wrong"))[0] for name in names]
    assert statuses == [401] * FAILURES_OF_ALL
    assert client.ask("/check", authorization=basic(names[0], PASSWORD))[0] == 403
    elsewhere = {"authorization": basic(names[0], PASSWORD), "x_real_ip": "10.9.9.9"}
    assert client.ask("/check", **elsewhere)[0] == 204


def test_who_fills_the_queue_has_no_more_guesses_at_a_password_that_was_right() -> None:
    client = Client([*USERS, *CROWD])
    right = {"authorization": basic("admin", PASSWORD), "x_real_ip": "10.0.0.2"}
    assert client.ask("/check", **right)[0] == 204
    crowd = [
        {"authorization": basic(f"name-{number}", "wrong"), "x_real_ip": "10.0.0.1"}
        for number in range(WAITING)
    ]
    guesses = [
        {"authorization": basic("admin", f"wrong-{number}"), "x_real_ip": "10.0.0.2"}
        for number in range(FAILURES)
    ]
    assert client.ask_at_once(*crowd, *guesses, right)[-1] == 403


def test_who_gets_no_turn_in_a_crowd_is_let_in_after_it() -> None:
    client = Client([*USERS, *CROWD])
    crowd = [{"authorization": basic(f"name-{number}", "wrong")} for number in range(WAITING)]
    right = {"authorization": basic("admin", PASSWORD)}
    assert client.ask_at_once(*crowd, *[right] * 200)[-1] == 403
    assert client.ask("/check", **right)[0] == 204


def test_a_browser_logs_in_and_out_and_its_old_cookie_is_worth_nothing(client: Client) -> None:
    status, headers, _ = client.log_in(goal="/mlflow/?a=1&b=2")
    assert (status, headers["location"]) == (303, "/mlflow/?a=1&b=2")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= {
        part.strip() for part in headers["set-cookie"].split(";")
    }
    cookie = headers["set-cookie"].partition(";")[0]
    assert client.ask("/check", cookie=cookie)[0] == 204
    assert client.ask("/logout", "POST", cookie=cookie)[0] == 303
    assert client.ask("/check", cookie=cookie)[0] == 401
    assert client.ask("/check", cookie=client.session())[0] == 204


def test_a_wrong_password_in_the_form_gives_no_session(client: Client) -> None:
    status, headers, text = client.log_in(password="wrong")  # noqa: S106 - it is wrong
    assert (status, "set-cookie" in headers) == (401, False)
    assert "do not belong together" in text


def test_no_session_outlives_the_portal(client: Client) -> None:
    cookie = client.session()
    assert client.ask("/check", cookie=cookie)[0] == 204
    assert Client().ask("/check", cookie=cookie)[0] == 401


def test_a_request_of_which_nothing_says_whose_page_it_is_does_not_pass(client: Client) -> None:
    given = {"authorization": basic("admin", PASSWORD), "x_gateway_groups": ""}
    assert client.ask("/check", **given)[0] == 403


def test_a_client_that_asks_many_times_at_once_is_let_in_each_time() -> None:
    hashed = PasswordHasher(time_cost=1, memory_cost=64).hash(PASSWORD)
    client = Client([{"name": "eva", "password": "", "password_hash": hashed, "groups": []}])
    right = {"authorization": basic("eva", PASSWORD)}
    assert set(client.ask_at_once(*[right] * 40)) == {204}


def test_guesses_at_once_are_not_judged_more_often_than_one_after_another(client: Client) -> None:
    guesses = [{"authorization": basic("admin", f"wrong-{number}")} for number in range(30)]
    assert sorted(client.ask_at_once(*guesses)) == [401] * FAILURES + [403] * (30 - FAILURES)


def test_strangers_who_ask_for_many_names_wait_in_a_short_queue(client: Client) -> None:
    guesses = [{"authorization": basic(f"name-{number}", "wrong")} for number in range(60)]
    assert client.ask_at_once(*guesses).count(403) == 60 - WAITING
    assert client.ask("/check", authorization=basic("admin", PASSWORD))[0] == 204


def test_a_session_ends_after_its_hours(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = client.session()
    later = time.time() + 3602
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert client.ask("/check", cookie=cookie)[0] == 401


@pytest.mark.parametrize("cookie", ["__Host-lab=", "__Host-lab=a.b.c", "__Host-other=x", "x"])
def test_another_cookie_is_no_session(client: Client, cookie: str) -> None:
    assert client.ask("/check", cookie=cookie)[0] == 401


@pytest.mark.parametrize(
    "goal",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "mlflow", "/a\nb", "/a\x00b"],
)
def test_the_form_sends_nobody_elsewhere(client: Client, goal: str) -> None:
    assert client.log_in(goal=goal)[1]["location"] == "/"


def test_the_form_shows_what_it_was_given_as_text(client: Client) -> None:
    text = client.ask("/login?" + urlencode({"next": '/"><script>alert(1)</script>'}))[2]
    assert "<script>alert" not in text


def test_a_person_who_may_not_pass_gets_the_form_and_a_program_a_sentence(client: Client) -> None:
    asked = {"x_gateway_asked": "/mlflow/?a=1&b=2", "x_gateway_method": "GET"}
    status, headers, _ = client.ask("/refused", accept="text/html,*/*", **asked)
    assert (status, headers["location"]) == (302, "/login?next=%2Fmlflow%2F%3Fa%3D1%26b%3D2")
    status, headers, text = client.ask("/refused", accept="*/*", **asked)
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="lab"')
    assert "Log in first" in text
    # a page whose session ended: no box of the browser's own
    _, headers, _ = client.ask("/refused", accept="*/*", sec_fetch_mode="cors", **asked)
    assert "www-authenticate" not in headers
    assert client.ask("/refused", x_gateway_refusal="group")[0] == 403


@pytest.mark.parametrize("name", ["admin", "nobody"])
def test_a_program_that_sent_a_wrong_password_is_told_so_and_not_which_of_the_two_is_wrong(
    client: Client, name: str
) -> None:
    sent = basic(name, "wrong")
    status, headers, text = client.ask("/refused", authorization=sent, x_gateway_asked="/mlflow/")
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="lab"')
    assert text == "This name and password do not belong together.\n"


@pytest.mark.parametrize("sent", [{}, {"authorization": "Bearer of-a-neighbour"}])
def test_a_program_that_sent_no_password_is_told_to(client: Client, sent: dict[str, str]) -> None:
    text = client.ask("/refused", x_gateway_asked="/airflow/api/v2/dags", **sent)[2]
    assert text == "Log in first, or send a user and password with the request.\n"


def test_the_start_page_lists_what_its_user_may_open_and_runs_its_own_script_only() -> None:
    users = [*USERS, {**USERS[0], "name": "eva", "groups": []}]
    client = Client(users)
    _, headers, text = client.ask("/", authorization=basic("admin", PASSWORD))
    nonce = re.search(r"script-src 'nonce-([^']+)'", headers["content-security-policy"])
    assert nonce
    assert f'<script nonce="{nonce[1]}">' in text
    assert "MinIO &lt;b&gt;" in text
    assert "/minio/" not in client.ask("/", authorization=basic("eva", PASSWORD))[2]
    assert client.ask("/")[0] == 401
    assert client.ask("/state")[0] == 401


def test_the_authority_is_offered_to_everybody(client: Client) -> None:
    status, headers, text = client.ask("/ca.crt")
    assert (status, text) == (200, "PEM")
    assert "lab-ca.crt" in headers["content-disposition"]


def test_a_form_that_is_too_long_is_not_read_further(client: Client) -> None:
    assert client.ask("/login", "POST", "a" * 5000)[0] == 413
    assert client.ask("/login", "POST", ["a" * 5000] * 1000)[0] == 413
    assert client.read == 1
    assert client.ask("/login", "POST", ["a" * 1000] * 1000)[0] == 413
    assert client.read == 5


@pytest.fixture
def neighbour() -> Iterator[str]:
    """A service that is well at /health, tells its version, and is ill elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        """It."""

        def do_GET(self) -> None:
            said = {"/health": b"OK", "/version": b'{"version": "3.1"}', "/text": b"3.2\n"}
            self.send_response(200 if self.path in said else 500)
            self.end_headers()
            self.wfile.write(said.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("health", "version", "found"),
    [
        ("/health", "/version", {"state": "up", "version": "3.1"}),
        ("/health", "/text", {"state": "up", "version": "3.2"}),
        ("/health", "/ill", {"state": "up", "version": ""}),
        ("/ill", "/version", {"state": "answers 500", "version": ""}),
        ("", "", {"state": "unknown", "version": ""}),
    ],
)
def test_a_neighbour_is_asked_how_it_is(
    neighbour: str, health: str, version: str, found: dict[str, str]
) -> None:
    page = Page(
        "/a/",
        "A",
        health=f"{neighbour}{health}" if health else "",
        version=f"{neighbour}{version}" if version else "",
    )
    assert state_of(page) == found


def test_a_neighbour_that_is_not_there_is_down() -> None:
    assert state_of(Page("/a/", "A", health="http://127.0.0.1:9/x"))["state"] == "down"
