"""What MinIO keeps, and what it tells strangers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts, told
from platform_verify.s3 import REFUSED

Verdict = Callable[[Iterable[str], str], None]

OK = 200
# no content has this checksum: nothing is stored, whatever is allowed
WRONG_MD5 = {"Content-MD5": f"{'A' * 22}=="}


@pytest.mark.promise(
    "Buckets exist and keep versions",
    hint="`make up` makes the buckets that minio_buckets names and turns versioning on",
)
def test_every_declared_bucket_exists_keeps_versions_and_is_not_for_everyone(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("minio")
    there = facts.of("minio", "buckets", "minio")
    wrong = [
        f"there is no bucket {name}" for name in platform.promised["buckets"] if name not in there
    ]
    for name, seen in there.items():
        if platform.promised["buckets"][name] and seen["versioning"] != "Enabled":
            wrong.append(f"versioning of {name} is {seen['versioning']}")
        if seen["policy"]:
            wrong.append(f"{name} has a policy that lets strangers in")
    verdict(wrong, ", ".join(sorted(there)))


@pytest.mark.promise(
    "Without credentials MinIO only tells its health",
    hint="remove the bucket policy or setting that lets strangers in; none of them is `make up`'s",
)
def test_minio_answers_nothing_but_its_health_to_strangers(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    one = service("minio")
    api, console = facts.url(one, 9000), facts.url(one, 9001)
    closed: list[dict[str, Any]] = [
        {"url": f"{api}/"},
        {"url": f"{api}/minio/admin/v3/info"},
        {"url": f"{api}/minio/v2/metrics/cluster"},
        {"url": f"{console}/api/v1/buckets"},
        {"url": f"{console}/api/v1/session"},
    ]
    for name in platform.promised["buckets"]:
        closed += [
            {"url": f"{api}/{name}/?list-type=2"},
            {"url": f"{api}/{name}/verify", "method": "PUT", "headers": WRONG_MD5},
        ]
    health, *answers = facts.strangers(one, [{"url": f"{api}/minio/health/live"}, *closed])
    wrong = [told(answer) for answer in answers if answer["status"] not in REFUSED]
    wrong += [told(health)] if health["status"] != OK else []
    verdict(wrong, f"{len(answers)} other requests refused at {api} and {console}")
