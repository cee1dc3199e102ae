"""What a notebook reaches, and what strangers see of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts, told
from platform_verify.s3 import POLICIES, REFUSED, excess, reached

Verdict = Callable[[Iterable[str], str], None]

OK = 200
NONE = "00000000-0000-0000-0000-000000000000"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dmVyaWZ5LXZlcmlmeS0xMg==",
}


@pytest.mark.promise(
    "A notebook's cell reaches what it is promised",
    hint="the address that fails is set in the inventory (jupyter_s3_endpoint, jupyter_bucket,"
    " jupyter_tracking_uri, jupyter_database); `make up` makes its user again",
)
def test_a_cell_reaches_the_bucket_the_tracking_server_and_the_database(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("jupyter")
    wanted = platform.promised["notebooks"]
    said = facts.of("jupyter", "cells")
    expected = {"bucket": "written by a cell", "tracking": "True", "database": wanted["database"]}
    wrong = [
        f"a cell that asks for the {name} prints {text!r}, not {expected[name]!r}"
        for name, text in said.items()
        if text != expected[name]
    ]
    verdict(wrong, ", ".join(f"{name}: {wanted[name]}" for name in said))


@pytest.mark.promise("The notebooks' user reaches only its own buckets", hint=POLICIES)
def test_the_notebooks_user_reaches_its_own_buckets_and_nothing_else(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("jupyter")
    if not platform.promised["notebooks"]["bucket"]:
        pytest.skip("notebooks are given no bucket")
    reach = facts.of("jupyter", "reach")
    own = platform.promised.get("users", {}).get(reach["user"], ())
    verdict(excess(reach, own), reached(reach, own))


@pytest.mark.promise(
    "Without its token Jupyter only tells its version",
    hint="jupyter_token is what lets in; see that no setting of the user turns it off",
)
def test_a_stranger_is_refused_at_every_path_of_the_server(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    one = service("jupyter")
    if not one.ports:
        pytest.skip("it is published on no port of the host")
    base = one.url(8888) + platform.promised["notebooks"]["base_url"]
    closed: list[dict[str, Any]] = [
        *(
            {"url": f"{base}{path}"}
            for path in (
                *("api/contents", "api/kernels", "api/kernelspecs", "api/sessions", "api/me"),
                *("api/terminals", "api/status", "metrics", "lab/api/settings", "api/config/x"),
            )
        ),
        {"url": f"{base}api/kernels", "method": "POST"},
        {"url": f"{base}api/terminals", "method": "POST"},
        {"url": f"{base}api/kernels/{NONE}/channels", "headers": UPGRADE},
        {"url": f"{base}terminals/websocket/1", "headers": UPGRADE},
    ]
    health, *answers = facts.strangers(one, [{"url": f"{base}api"}, *closed])
    wrong = [told(answer) for answer in answers if answer["status"] not in REFUSED]
    wrong += [told(health)] if health["status"] != OK else []
    verdict(wrong, f"{len(answers)} requests refused at {base}")
