"""Who the gateway lets in, and whether its certificate is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from platform_verify.declared import ANY, Platform, Service
from platform_verify.facts import FactError, Facts, told

Verdict = Callable[[Iterable[str], str], None]

OK = 200
LEAST_DAYS = 30
LEAST_PART = 0.25
REFUSED = (400, 401, 403, 429)
NOBODY = {"Authorization": "Basic bm9ib2R5Om5vdGhpbmc="}
FORGED = {"Authorization": "AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/s3/aws4_request"}
SIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00"


def requests(promised: dict[str, Any]) -> list[dict[str, Any]]:
    """List what a stranger may try: every path, wrong credentials, signatures of nobody."""
    paths = ["/", "/state", "/anything", *promised["paths"]]
    paths += [f"{path}api/2.0/anything?x=1" for path in promised["paths"]]
    found: list[dict[str, Any]] = [{"path": path} for path in paths]
    found += [{"path": "/", "headers": NOBODY}]
    found += [{"path": path, "method": "POST"} for path in promised["paths"]]
    if promised["s3"]:
        found += [{"path": "/bucket/key", "headers": FORGED}, {"path": f"/bucket/key?{SIGNED}"}]
    return found


def asked(platform: Platform, one: Service) -> dict[str, Any]:
    """Say where the gateway is, as its host sees it."""
    port = next(port for port in one.ports if port.inside == 443)  # noqa: PLR2004 - TLS
    address = ANY.get(port.address, port.address)
    promised = platform.promised["gateway"]
    return {**promised, "address": address, "port": port.port, "requests": requests(promised)}


@pytest.mark.promise(
    "The gateway lets no stranger in",
    hint="`make up` writes its configuration anew; see gateway_users and gateway_routes",
)
def test_the_gateway_refuses_a_stranger_at_every_path(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    given = asked(platform, service("gateway"))
    answers = facts.answer("door", "answers", given)
    verdict(
        [told(answer) for answer in answers if answer["status"] not in REFUSED],
        f"{len(answers)} requests refused at {given['address']}:{given['port']}",
    )


@pytest.mark.promise(
    "One log-in at the gateway opens what is behind it",
    hint="`make up` gives both sides of a route the same authorization; `make logs` says what the "
    "neighbour has against it",
)
def test_a_user_is_answered_by_each_neighbour_that_a_route_has_a_proof_of(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    given = asked(platform, service("gateway"))
    found = facts.answer("users", "proven", {**given, "requests": []}) if given["proofs"] else []
    rows = [row for row in found if row["user"]]
    if not rows:
        pytest.skip("no route has a proof for a user with a generated password")
    wrong = [
        f"{row['path']} answers {row['error'] or row['status']} to {row['user']}"
        for row in rows
        if row["status"] != OK
    ]
    verdict(wrong, ", ".join(f"{row['path']} as {row['user']}" for row in rows))


@pytest.mark.promise(
    "The gateway's certificate is trusted",
    hint="`make up` renews one of the platform's own; a given one is in gateway_tls; one of an "
    "ACME server comes by itself, once what keeps it from that is put right",
)
def test_the_certificate_is_trusted_for_its_name_and_has_days_left(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    given = asked(platform, service("gateway"))
    problem = facts.answer("acme", "problem", {}) if given["acme"] else ""
    try:
        left = facts.answer("door", "certificate", {**given, "requests": []})
    except FactError as error:
        raise FactError(f"{error} {problem}".strip(), error.hint) from error
    days, life = left["days"], left["life"]
    # what lasts for weeks is renewed in its last ones
    short = days < min(LEAST_DAYS, life * LEAST_PART)
    said = f"for {', '.join(given['names'])}, {days:.1f} of {life:.0f} days left"
    verdict([f"{said}. {problem}".strip()] if short else [], f"{said}. {problem}".rstrip(". "))


@pytest.mark.promise(
    "Nothing but the gateway is published",
    hint="leave the ports of other services empty, or take the gateway out of the inventory",
)
def test_no_other_service_of_a_platform_with_a_gateway_publishes_a_port(
    platform: Platform, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("gateway")
    others = [one for name, one in platform.services.items() if name != "gateway" and one.ports]
    verdict([f"{one.name} publishes {one.ports[0].port}" for one in others], "no other port")
