"""Who may ask the runners for runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from platform_verify.declared import Service
from platform_verify.facts import Facts, told

EACH = "doors"
REFUSED = 401
Verdict = Callable[[Iterable[str], str], None]


@pytest.mark.promise(
    "The runners' API is for who has its token",
    hint="`make up` puts it back as declared, without a port of the host and with its token",
)
def test_the_api_is_not_published_and_refuses_who_has_no_token(
    each: str, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    published = facts.containers()[service(each).container]["ports"]
    wrong = [f"it is open on {port['address']}:{port['port']}" for port in published]
    answers = facts.of("api", "answers", service=each)
    wrong += [told(answer) for answer in answers if answer["status"] != REFUSED]
    verdict(wrong, f"{len(answers)} requests refused, and no port of the host")
