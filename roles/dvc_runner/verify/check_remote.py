"""What the user of the DVC remote reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts
from platform_verify.s3 import POLICIES, excess, reached

EACH = "pipelines"
Verdict = Callable[[Iterable[str], str], None]


@pytest.mark.promise("The DVC user reaches only its own bucket", hint=POLICIES)
def test_the_remotes_user_reaches_its_own_bucket_and_nothing_else(
    each: str,
    platform: Platform,
    facts: Facts,
    service: Callable[[str], Service],
    verdict: Verdict,
) -> None:
    service(each)
    reach = facts.of("runner", "reach", "minio", service=each)
    own = platform.promised.get("users", {}).get(reach["user"], ())
    verdict(excess(reach, own), reached(reach, own))
