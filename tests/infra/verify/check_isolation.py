"""Who may reach what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts

Verdict = Callable[[Iterable[str], str], None]

OK, FORBIDDEN = 200, 403
REFUSED = (401, FORBIDDEN)
DENIED = "AccessDenied"
# S3's answers that only come after it looked who asks
MAY = {
    "list": ("allowed",),
    "read": ("allowed", "NoSuchKey"),
    "write": ("allowed", "BadDigest"),
}
# no content has this checksum: nothing is stored, whatever is allowed
WRONG_MD5 = {"Content-MD5": f"{'A' * 22}=="}
POLICIES = "`make up` writes the policies of minio_users again; detach what was attached by hand"


def excess(reach: Mapping[str, Any], own: Iterable[str]) -> Iterator[str]:
    """Say what a user may do and should not, or should and may not."""
    user = reach["user"]
    for bucket, answers in reach["buckets"].items():
        for what, allowed in MAY.items():
            answer = answers[what]
            if bucket in own and answer not in allowed:
                yield f"{user} cannot {what} {bucket}, its own: {answer}"
            # a bucket that is not there denies nothing
            if bucket not in own and answer != DENIED:
                yield f"{user} may {what} {bucket}: the answer is {answer}, not {DENIED}"
        if answers["policy"] != DENIED:
            yield f"{user} may read the policy of {bucket}: the answer is {answers['policy']}"
    if reach["admin"] not in REFUSED:
        yield f"{user} may list MinIO's users like an administrator: {reach['admin']}"


def told(answer: Mapping[str, Any]) -> str:
    """Say what a request was answered."""
    method = answer.get("method", "GET")
    return f"{method} {answer['url']} is answered {answer['status'] or answer['error']}"


@pytest.mark.promise(
    "Buckets exist and keep versions",
    hint="`make up` makes the buckets that minio_buckets names and turns versioning on",
)
def test_every_declared_bucket_exists_keeps_versions_and_is_not_for_everyone(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("minio")
    there = facts.of("minio", "buckets")
    wrong = [f"there is no bucket {name}" for name in platform.buckets if name not in there]
    for name, seen in there.items():
        if platform.buckets[name] and seen["versioning"] != "Enabled":
            wrong.append(f"versioning of {name} is {seen['versioning']}")
        if seen["policy"]:
            wrong.append(f"{name} has a policy that lets strangers in")
    verdict(wrong, ", ".join(sorted(there)))


@pytest.mark.parametrize(
    ("owner", "place"),
    [
        pytest.param(
            "dvc-runner",
            "runner",
            marks=pytest.mark.promise("The DVC user reaches only its own bucket", hint=POLICIES),
        ),
        pytest.param(
            "mlflow",
            "mlflow",
            marks=pytest.mark.promise("The MLflow user reaches only its own bucket", hint=POLICIES),
        ),
    ],
)
def test_a_service_user_reaches_its_own_bucket_and_nothing_else(  # noqa: PLR0913, PLR0917 - fixtures
    owner: str,
    place: str,
    platform: Platform,
    facts: Facts,
    service: Callable[[str], Service],
    verdict: Verdict,
) -> None:
    service(owner)
    reach = facts.of(place, "reach")
    own = platform.users.get(reach["user"], ())
    others = ", ".join(name for name in reach["buckets"] if name not in own) or "no other bucket"
    verdict(
        excess(reach, own),
        f"{reach['user']}: {', '.join(own)}; refused at {others} and as administrator",
    )


@pytest.mark.promise(
    "Without credentials MinIO only tells its health",
    hint="remove the bucket policy or setting that lets strangers in; none of them is `make up`'s",
)
def test_minio_answers_nothing_but_its_health_to_strangers(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    one = service("minio")
    api, console = one.url(9000), one.url(9001)
    closed: list[dict[str, Any]] = [
        {"url": f"{api}/"},
        {"url": f"{api}/minio/admin/v3/info"},
        {"url": f"{api}/minio/v2/metrics/cluster"},
        {"url": f"{console}/api/v1/buckets"},
        {"url": f"{console}/api/v1/session"},
    ]
    for name in platform.buckets:
        closed += [
            {"url": f"{api}/{name}/?list-type=2"},
            {"url": f"{api}/{name}/verify", "method": "PUT", "headers": WRONG_MD5},
        ]
    health, *answers = facts.strangers(one, [{"url": f"{api}/minio/health/live"}, *closed])
    wrong = [told(answer) for answer in answers if answer["status"] not in REFUSED]
    wrong += [told(health)] if health["status"] != OK else []
    verdict(wrong, f"{len(answers)} other requests refused at {api} and {console}")


@pytest.mark.promise(
    "MLflow answers to its own names only",
    hint="mlflow_allowed_hosts names them; one with a wildcard in front lets strangers' in",
)
def test_mlflow_is_healthy_and_refuses_a_request_for_a_strangers_name(
    facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    one = service("mlflow")
    url = one.url(5000)
    asked = f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0"
    health, own, stranger = facts.strangers(
        one,
        [
            {"url": f"{url}/health"},
            {"url": asked},
            {"url": asked, "headers": {"Host": "stranger.example"}},
        ],
    )
    wrong = [told(answer) for answer in (health, own) if answer["status"] != OK]
    if stranger["status"] != FORBIDDEN:
        wrong.append(f"for the name stranger.example: {told(stranger)}")
    verdict(wrong, f"{url}; it asks for no password: whoever reaches this address may use it")
