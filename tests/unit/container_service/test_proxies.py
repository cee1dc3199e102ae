"""On a host with a proxy containers still reach each other, and nothing changes on another."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.conftest import load

proxies = load("container_service/filter_plugins/proxies.py")

NEAR = "localhost,127.0.0.1,::1,store,web,plat-store,plat-web"


def environment_of(bypass: str | None, **given: str) -> dict[str, Any]:
    """The environment of a service with `given` set, beside another."""
    declared = {"store": {"name": "store"}, "web": {"name": "web", "environment": given}}
    changed: dict[str, Any] = proxies.proxied(declared, bypass, "plat")["web"]["environment"]
    return changed


def test_without_a_proxy_no_container_differs() -> None:
    assert environment_of(None, A="1") == {"A": "1"}


@pytest.mark.parametrize("given", [{"HTTPS_PROXY": "http://p:3128"}, {"http_proxy": "http://p"}])
def test_a_proxy_of_the_service_itself_counts(given: dict[str, str]) -> None:
    assert environment_of(None, **given) == {**given, "NO_PROXY": NEAR, "no_proxy": NEAR}


def test_neighbours_are_asked_without_the_clients_proxy() -> None:
    assert environment_of("") == {"NO_PROXY": NEAR, "no_proxy": NEAR}


def test_who_was_asked_without_a_proxy_before_still_is() -> None:
    environment = environment_of(".example.org, web", no_proxy="10.0.0.1")
    expected = ".example.org,web,10.0.0.1,localhost,127.0.0.1,::1,store,plat-store,plat-web"
    assert environment == {"NO_PROXY": expected, "no_proxy": expected}
