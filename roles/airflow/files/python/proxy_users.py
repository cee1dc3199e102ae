"""Airflow's FAB auth manager, for users whom a proxy before it let in.

A request whose Authorization is `Proxy` and this platform's own token is of the user that
X-Forwarded-User names, in the groups of X-Forwarded-Groups, whatever cookies it has. Every other
request is as it is without a proxy: nobody's, before it shows a password or a token of Airflow.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urljoin

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.core_api.security import USER_INJECTED_BY_TRUSTED_MIDDLEWARE
from airflow.providers.fab.auth_manager.fab_auth_manager import CACHE_TTL, FabAuthManager
from airflow.providers.fab.auth_manager.models import Role, User
from airflow.utils.session import create_session
from anyio import to_thread
from cachetools import TTLCache, cached
from flask import Flask, redirect, request, session
from flask_login import login_user
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from starlette.responses import PlainTextResponse

TOKEN = Path("/run/secrets/proxy_token")
ADMIN = "Admin"
SETTINGS = Path("/config/proxy_users.json")
LOG_IN = "/auth/token"
REFUSAL = (
    "The proxy before Airflow takes no token of it: send user and password with each request.\n"
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RefusedError(Exception):
    """Why somebody whom the proxy let in is not let in here, in one sentence."""


@lru_cache
def expected() -> str:
    """Return what the proxy says in Authorization."""
    return f"Proxy {TOKEN.read_text(encoding='utf-8').strip()}"


@lru_cache
def settings() -> dict[str, Any]:
    """Return whose account is the role's own, and which roles groups have."""
    return dict(json.loads(SETTINGS.read_text(encoding="utf-8")))


def signed_in(authorization: str, name: str, groups: str) -> User | None:
    """Return whom the proxy let in, None where no proxy says so.

    Args:
        authorization, name, groups: the headers, the latter two quoted as in addresses.

    Raises:
        RefusedError: they have no account here.
    """
    if not name or not hmac.compare_digest(authorization.encode(), expected().encode()):
        return None
    roles = roles_of(unquote(group) for group in groups.split(",") if group)
    try:
        return account(unquote(name), roles)
    except IntegrityError:  # another request made it at this moment
        return account(unquote(name), roles)


def roles_of(groups: Iterable[str]) -> frozenset[str]:
    """Return the roles of who is in these groups."""
    known = settings()["roles"]
    return frozenset(known[group] for group in groups if group in known) or frozenset(
        [settings()["role"]]
    )


@cached(TTLCache(maxsize=1024, ttl=CACHE_TTL), lock=Lock())
def account(name: str, roles: frozenset[str]) -> User:
    """Return a user's account with these roles and no other; it is made where it is missing.

    Raises:
        RefusedError: it is somebody else's, or there is no such role.
    """
    with create_session() as store:
        found = {
            role.name: role
            for role in store.scalars(select(Role).where(Role.name.in_(roles))).unique()
        }
        if missing := roles - set(found):
            raise RefusedError(
                f"Airflow has no role {', '.join(sorted(missing))}: see airflow_proxy_roles."
            )
        same = func.lower(User.username) == name.lower()
        user = store.scalars(select(User).where(same)).unique().one_or_none()
        if user is None:
            # a password that nobody knows
            user = User(
                username=name,
                first_name=name,
                last_name="",
                email=f"{name}@proxy.invalid",
                active=True,
                password=secrets.token_urlsafe(),
                roles=list(found.values()),
            )
            store.add(user)
        elif user.username != name or not user.active:
            raise RefusedError(f"The account of {user.username} in Airflow is not for {name}.")
        elif name == settings()["admin"]:
            # programs log in to it with a password, so it keeps its rights
            if ADMIN not in roles:
                raise RefusedError(f"{name} is airflow_admin here: give that another name.")
        elif {role.name for role in user.roles} != roles:
            user.roles = list(found.values())
        store.flush()
        store.refresh(user)
        _ = user.perms
        store.expunge(user)
    return user


class ProxyUsers:
    """What says to Airflow's API and pages who asks."""

    def __init__(self, app: App) -> None:
        """Take what is asked then."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its user where a proxy names one."""
        if scope["type"] == "http":
            headers = {
                key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
            }
            given = (
                headers.get(key, "")
                for key in ("authorization", "x-forwarded-user", "x-forwarded-groups")
            )
            try:
                user = await to_thread.run_sync(signed_in, *given)
            except RefusedError as error:
                await PlainTextResponse(f"{error}\n", 403)(scope, receive, send)
                return
            if user is not None:
                path = scope["path"].removeprefix(scope.get("root_path", ""))
                # it would outlive the proxy's session, and the proxy takes none
                if path == LOG_IN or path.startswith(f"{LOG_IN}/"):
                    await PlainTextResponse(REFUSAL, 403)(scope, receive, send)
                    return
                scope["headers"] = [without_token(*header) for header in scope["headers"]]
                scope["state"] = {
                    **scope.get("state", {}),
                    "user": user,
                    "user_authenticated_via": USER_INJECTED_BY_TRUSTED_MIDDLEWARE,
                }
        await self._app(scope, receive, send)


def without_token(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a header without what another user of this browser may have had of Airflow."""
    if key != b"cookie":
        return key, value
    cookies = [one.strip() for one in value.split(b";")]
    own = f"{COOKIE_NAME_JWT_TOKEN}=".encode()
    return key, b"; ".join(one for one in cookies if not one.startswith(own))


class ProxyFabAuthManager(FabAuthManager):  # type: ignore[misc]  # it ships no types
    """FAB's users, and those of the proxy among them."""

    def get_fastapi_middlewares(self) -> list[tuple[Any, dict[str, Any]]]:
        """Have the proxy's word stand before cookies."""
        return [*super().get_fastapi_middlewares(), (ProxyUsers, {})]

    def get_url_logout(self) -> str:
        """Return the proxy's first page: who let in is who lets out."""
        return str(urljoin(self.apiserver_endpoint, "/"))


def on_pages(app: Flask) -> None:
    """Have the pages of FAB, which have a session of their own, take the proxy's word too."""

    @app.before_request
    def take_over() -> Any:  # noqa: ANN401 - nothing, or what Flask answers with
        names = ("Authorization", "X-Forwarded-User", "X-Forwarded-Groups")
        user = signed_in(*(request.headers.get(name, "") for name in names))
        if user is None:
            return None
        if session.get("_user_id") != user.get_id():
            session.clear()
            login_user(user)
        # it would hand out a token that outlives the proxy's session
        if (request.endpoint or "").endswith(".login"):
            return redirect(get_auth_manager().apiserver_endpoint)
        return None
