"""The gateway's log-in and start page: NGINX asks it at each request who it is that asks.

A browser has a signed cookie, a program sends a user and password with each request. It reads its
configuration and its secrets from files and keeps nothing but what sessions were ended.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import secrets
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from http.client import HTTPException
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, urlencode

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

FAILURES = 10  # wrong passwords of one user from one address
FAILURES_OF_ALL = 100  # and of all users from there: made-up names would push out what is counted
PER_SECONDS = 60.0
REMEMBERED_SECONDS = 300.0  # that a password was right, so that a slow hash is asked once
ADDRESSES = 1000  # of which wrong passwords are counted; those that were wrong longest ago go first
LONGEST = 4096  # bytes of a form, or of a neighbour's answer
STATE_SECONDS = 2.0
WRONG = "This name and password do not belong together."
TOO_MANY = "Too many wrong passwords: wait a minute."
AT_ONCE = 2  # passwords whose hash is made at the same time
WAITING = 32  # of which so many may wait


@dataclass(frozen=True)
class User:
    """Someone who may log in, by a password or by the bcrypt or argon2 hash of one."""

    name: str
    groups: frozenset[str] = frozenset()
    password: str = field(default="", repr=False)
    password_hash: str = field(default="", repr=False)

    def mark(self) -> str:
        """Return what changes with the password, and does not tell it."""
        return hashlib.sha256(f"{self.password}|{self.password_hash}".encode()).hexdigest()


class Guess(NamedTuple):
    """A password that is wrong, or not judged yet: from where, a digest of whose, and when."""

    address: str
    whose: bytes
    at: float


@dataclass(frozen=True)
class Page:
    """What is behind the gateway at a path."""

    path: str
    title: str
    about: str = ""
    groups: frozenset[str] = frozenset()
    health: str = ""
    version: str = ""

    def is_for(self, user: User) -> bool:
        """Tell whether a user may open it; a page without groups is for every user."""
        return not self.groups or bool(self.groups & user.groups)


def is_right(user: User, password: str) -> bool:
    """Tell whether a password is a user's own."""
    if user.password:
        return hmac.compare_digest(user.password.encode(), password.encode())
    try:
        if user.password_hash.startswith("$argon2"):
            return PasswordHasher().verify(user.password_hash, password)
        # bcrypt itself looks at no more, and refuses what is longer
        return bcrypt.checkpw(password.encode()[:72], user.password_hash.encode())
    except (Argon2Error, InvalidHashError, ValueError):
        return False


def basic(header: str) -> tuple[str, str] | None:
    """Return the user and password of an Authorization header, None where it has none."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(coded, validate=True).decode().partition(":")
    except ValueError:  # no base64, no text
        return None
    return (name, password) if colon else None


def own_path(wanted: str) -> str:
    """Return a path of this gateway to go on to; the start page for an address elsewhere."""
    plain = wanted.startswith("/") and not wanted.startswith("//") and wanted.isprintable()
    return wanted if plain and "\\" not in wanted else "/"


class Guard:
    """Who may come in: passwords, sessions, and how often one may be wrong."""

    def __init__(self, users: Mapping[str, User], hours: float) -> None:
        """Take users by name, and how many hours a session lasts; none outlives this process."""
        self._users = users
        self._key = secrets.token_bytes(32)
        self._signer = URLSafeTimedSerializer(self._key, salt="session")
        self._seconds = hours * 3600
        self._ended: dict[str, float] = {}
        self._right: dict[str, tuple[bytes, float]] = {}  # by user
        self._wrong: dict[str, deque[Guess]] = {}  # by address, who was wrong last at the end
        self._asked: dict[bytes, asyncio.Task[bool]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        # as slow for a name that nobody has
        self._nobody = User("", password_hash=PasswordHasher().hash(secrets.token_hex()))

    async def by_password(self, name: str, password: str, address: str) -> User | None:
        """Return the user whose password this is, None where it is not.

        Raises:
            TooManyError: there were too many wrong ones lately from this address, whatever this
                one is, or too many ask at once.
        """
        whose = hmac.digest(self._key, name.encode(), "sha256")
        # before all else: an answer or its time would tell a right password from a wrong one
        self._refuse_guesses(address, whose)
        user = self._users.get(name, self._nobody)
        given = hmac.digest(self._key, f"{user.mark()}|{name}|{password}".encode(), "sha256")
        known, until = self._right.get(name, (b"", 0.0))
        remembered = until > time.monotonic()
        if remembered and hmac.compare_digest(known, given):
            return user
        # requests of one client at the same moment are one question
        if given not in self._asked:
            guess, full = Guess(address, whose, time.monotonic()), len(self._asked) >= WAITING
            # before it is judged, for many may ask at once; and where the right one needs no turn,
            # having none tells that this is another
            if remembered or not full:
                self._count(guess)
            if full:
                raise TooManyError
            judged = asyncio.create_task(self._judge(user, password, given, guess))
            self._asked[given] = judged
            judged.add_done_callback(lambda _: self._asked.pop(given, None))
        return user if await asyncio.shield(self._asked[given]) else None

    def _refuse_guesses(self, address: str, whose: bytes) -> None:
        since = time.monotonic() - PER_SECONDS
        lately = [guess for guess in self._wrong.get(address, ()) if guess.at > since]
        of_one = sum(guess.whose == whose for guess in lately)
        if of_one >= FAILURES or len(lately) >= FAILURES_OF_ALL:
            raise TooManyError

    def _count(self, guess: Guess) -> None:
        guesses = self._wrong.pop(guess.address, None) or deque(maxlen=FAILURES_OF_ALL)
        self._wrong[guess.address] = guesses
        while len(self._wrong) > ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        guesses.append(guess)

    async def _judge(self, user: User, password: str, given: bytes, guess: Guess) -> bool:
        async with self._turns:
            right = await asyncio.to_thread(is_right, user, password)
        if right and user is not self._nobody:
            self._right[user.name] = given, time.monotonic() + REMEMBERED_SECONDS
            # itself alone: a program's right ones would else let a guesser beside it begin anew
            if guess in (guesses := self._wrong.get(guess.address, deque())):
                guesses.remove(guess)
        return right and user is not self._nobody

    def session(self, user: User) -> str:
        """Return the cookie of a new session."""
        return self._signer.dumps([secrets.token_urlsafe(9), user.name, user.mark()[:16]])

    def by_session(self, cookie: str) -> User | None:
        """Return whose session a cookie is, None where it is none, too old, or ended."""
        found = self._read(cookie)
        user = self._users.get(found[1]) if found else None
        if not found or user is None or found[0] in self._ended:
            return None
        # another password ends the sessions of the old one
        return user if hmac.compare_digest(found[2], user.mark()[:16]) else None

    def end(self, cookie: str) -> None:
        """End a session before its time."""
        now = time.time()
        self._ended = {one: until for one, until in self._ended.items() if until > now}
        if found := self._read(cookie):
            self._ended[found[0]] = now + self._seconds

    def _read(self, cookie: str) -> list[str]:
        try:
            found = self._signer.loads(cookie, max_age=int(self._seconds))
        except BadData:
            return []
        return [str(each) for each in found] if isinstance(found, list) and len(found) == 3 else []  # noqa: PLR2004


class TooManyError(Exception):
    """There were too many wrong passwords."""


class Portal:
    """What is answered at each address."""

    def __init__(
        self, guard: Guard, pages: list[Page], name: str, authority: str, layout: str
    ) -> None:
        """Take who may come in, what is behind, the platform's name and its own certificate."""
        self._guard = guard
        self._pages = pages
        self._name = name
        self._authority = authority
        self._layout = Template(layout)
        self._cookie = f"__Host-{name}"  # browsers share cookies between ports

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/check", self.check),
                Route("/refused", self.refused),
                Route("/", self.start),
                Route("/state", self.state),
                Route("/login", self.login, methods=["GET", "POST"]),
                Route("/logout", self.logout, methods=["POST"]),
                Route("/ca.crt", self.certificate),
            ],
            exception_handlers={TooManyError: self.too_many},
        )

    async def who(self, request: Request) -> User | None:
        """Return who asks; None for a stranger."""
        if user := self._guard.by_session(request.cookies.get(self._cookie, "")):
            return user
        given = basic(request.headers.get("authorization", ""))
        return (given and await self._guard.by_password(*given, address(request))) or None

    async def check(self, request: Request) -> Response:
        """Tell NGINX whether a request may pass: 204, 401 for a stranger, 403 for who may not."""
        try:
            user = await self.who(request)
        except TooManyError:
            return Response(status_code=403, headers={"X-Gateway-Refusal": "wait"})
        if user is None:
            return Response(status_code=401)
        # NGINX always says it, a star where every user may
        groups = frozenset(request.headers.get("x-gateway-groups", "").split())
        if "*" not in groups and not groups & user.groups:
            return Response(status_code=403, headers={"X-Gateway-Refusal": "group"})
        member_of = ",".join(sorted(quote(group, safe="") for group in user.groups))
        told = {"X-Gateway-User": quote(user.name), "X-Gateway-Member-Of": member_of}
        return Response(status_code=204, headers=told)

    async def too_many(self, *_: object) -> Response:
        """Tell who was wrong too often to wait."""
        return PlainTextResponse(f"{TOO_MANY}\n", 429, {"Retry-After": str(int(PER_SECONDS))})

    async def refused(self, request: Request) -> Response:
        """Answer what may not pass: with the form for who looks, a sentence for programs."""
        refusal = request.headers.get("x-gateway-refusal", "")
        if refusal == "wait":
            return await self.too_many()
        if refusal:
            return PlainTextResponse("This is not for any of your groups.\n", 403)
        asked = request.headers.get("x-gateway-asked", "/")
        looks = request.headers.get(
            "x-gateway-method"
        ) == "GET" and "text/html" in request.headers.get("accept", "")
        if looks:
            return RedirectResponse(f"/login?{urlencode({'next': own_path(asked)})}", 302)
        # a browser's own box for passwords would stand before the form
        asks = (
            {}
            if "sec-fetch-mode" in request.headers
            else {"WWW-Authenticate": f'Basic realm="{self._name}"'}
        )
        sent = basic(request.headers.get("authorization", ""))
        sentence = WRONG if sent else "Log in first, or send a user and password with the request."
        return PlainTextResponse(f"{sentence}\n", 401, asks)

    async def start(self, request: Request) -> Response:
        """Show what runs here."""
        user = await self.who(request)
        if user is None:
            return Response(status_code=401)
        rows = "".join(
            f'<li data-path="{escape(page.path)}"><a href="{escape(page.path)}">'
            f"<b>{escape(page.title)}</b><span>{escape(page.about)}</span></a>"
            '<span class="state">…</span></li>'
            for page in self._pages
            if page.is_for(user)
        )
        root = (
            '<p><a href="/ca.crt">Certificate of this platform</a></p>' if self._authority else ""
        )
        return self._page(
            f"<ul>{rows or '<li>Nothing here is for your groups.</li>'}</ul>{root}"
            '<form method="post" action="/logout">'
            f"<button>Log out {escape(user.name)}</button></form>",
            script=True,
        )

    async def state(self, request: Request) -> Response:
        """Tell the state and version of what a user may open."""
        user = await self.who(request)
        if user is None:
            return Response(status_code=401)
        pages = [page for page in self._pages if page.is_for(user)]
        states = await asyncio.gather(*(asyncio.to_thread(state_of, page) for page in pages))
        return JSONResponse({page.path: state for page, state in zip(pages, states, strict=True)})

    async def login(self, request: Request) -> Response:
        """Show the form, and take it."""
        if request.method == "GET":
            return self._form(own_path(request.query_params.get("next", "/")))
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LONGEST:  # what is still to come is not read
                return self._form("/", "That is no log-in.", 413)
        form = {
            key: values[-1]
            for key, values in parse_qs(
                body.decode("latin-1"), keep_blank_values=True, encoding="utf-8"
            ).items()
        }
        goal, name = own_path(form.get("next", "/")), form.get("name", "")
        try:
            user = await self._guard.by_password(name, form.get("password", ""), address(request))
        except TooManyError:
            return self._form(goal, TOO_MANY, 429)
        if user is None:
            return self._form(goal, WRONG, 401)
        answer = RedirectResponse(goal, status_code=303)
        answer.set_cookie(
            self._cookie,
            self._guard.session(user),
            path="/",
            secure=True,
            httponly=True,
            samesite="lax",
        )
        return answer

    async def logout(self, request: Request) -> Response:
        """End the session."""
        self._guard.end(request.cookies.get(self._cookie, ""))
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(self._cookie, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    async def certificate(self, _: Request) -> Response:
        """Hand out what certificates here are signed with."""
        if not self._authority:
            return PlainTextResponse(
                "The certificate here is not of this platform's making.\n", 404
            )
        name = f'attachment; filename="{self._name}-ca.crt"'
        return Response(
            self._authority,
            media_type="application/x-x509-ca-cert",
            headers={"Content-Disposition": name},
        )

    def _form(self, goal: str, said: str = "", status: int = 200) -> Response:
        alert = f'<p role="alert">{escape(said)}</p>' if said else ""
        return self._page(
            f'<form method="post" action="/login">{alert}'
            f'<input type="hidden" name="next" value="{escape(goal)}">'
            '<label>Name <input name="name" autocomplete="username" required autofocus></label>'
            '<label>Password <input name="password" type="password" '
            'autocomplete="current-password" required></label>'
            "<button>Log in</button></form>",
            status,
        )

    def _page(self, body: str, status: int = 200, *, script: bool = False) -> Response:
        nonce = secrets.token_urlsafe(12)
        text = self._layout.substitute(
            name=escape(self._name), body=body, nonce=nonce, script=SCRIPT if script else ""
        )
        rules = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        )
        return HTMLResponse(
            text,
            status,
            {
                "Content-Security-Policy": rules,
                "Cache-Control": "no-store",
            },
        )


SCRIPT = """
fetch("/state").then(answer => answer.json()).then(states => {
  for (const row of document.querySelectorAll("li[data-path]")) {
    const state = states[row.dataset.path], shown = row.querySelector(".state");
    shown.textContent = [state.state, state.version].filter(Boolean).join(" · ");
    shown.classList.add(state.state === "up" ? "up" : "down");
  }
});
"""


def address(request: Request) -> str:
    """Return where a request came from, as NGINX says."""
    return request.headers.get("x-real-ip", "")


def state_of(page: Page) -> dict[str, str]:
    """Ask a service for its `state` (up, down, unknown) and `version`, where it tells one."""
    if not page.health:
        return {"state": "unknown", "version": page.version}
    try:
        fetched(page.health)
    except HTTPError as error:
        return {"state": f"answers {error.code}", "version": ""}
    except (OSError, HTTPException):
        return {"state": "down", "version": ""}
    if not page.version.startswith("http://"):
        return {"state": "up", "version": page.version}
    try:
        return {"state": "up", "version": version_in(fetched(page.version))}
    except (OSError, HTTPException):
        return {"state": "up", "version": ""}


def version_in(answer: str) -> str:
    """Return the version that a service tells, in plain text or as `version` of a JSON object."""
    try:
        told = json.loads(answer)
    except ValueError:
        told = answer
    return str(told.get("version", "") if isinstance(told, dict) else told).strip()[:40]


def fetched(url: str) -> str:
    """Return what a neighbour answers; raises OSError where it does not answer well."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=STATE_SECONDS) as answer:  # the inventory's own addresses
        return str(answer.read(LONGEST).decode(errors="replace"))


def portal(read: Callable[[str], str]) -> Portal:
    """Make the portal of what is in its files.

    Args:
        read: returns the content of a file by the name of the variable that has its path.

    Raises:
        KeyError, ValueError: a file is not as the role writes it.
    """
    settings: dict[str, Any] = json.loads(read("GATEWAY_SETTINGS_FILE"))
    known: list[dict[str, Any]] = json.loads(read("GATEWAY_USERS_FILE"))
    users = {one["name"]: User(**{**one, "groups": frozenset(one["groups"])}) for one in known}
    pages = [Page(**{**one, "groups": frozenset(one["groups"])}) for one in settings["pages"]]
    guard = Guard(users, settings["session_hours"])
    return Portal(
        guard, pages, settings["name"], settings["authority"], read("GATEWAY_LAYOUT_FILE")
    )


def from_environment() -> Starlette:
    """Return the application, for uvicorn."""
    return portal(lambda name: Path(os.environ[name]).read_text(encoding="utf-8")).app()
