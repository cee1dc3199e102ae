"""Who may reach the tracking server, and what its user reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts, told
from platform_verify.s3 import FORBIDDEN, POLICIES, excess, reached

Verdict = Callable[[Iterable[str], str], None]

OK = 200


@pytest.mark.promise("The MLflow user reaches only its own bucket", hint=POLICIES)
def test_the_servers_user_reaches_its_own_bucket_and_nothing_else(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("mlflow")
    reach = facts.of("mlflow", "reach", "minio")
    own = platform.promised.get("users", {}).get(reach["user"], ())
    verdict(excess(reach, own), reached(reach, own))


@pytest.mark.promise(
    "MLflow records in the database that is named",
    hint="mlflow_backend* name it; `make up` starts the server with what they say",
)
def test_what_the_server_tells_is_in_the_database_of_the_inventory(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("mlflow")
    named, seen = platform.promised["backend"], facts.of("mlflow", "recorded")
    wrong = [f"it does not have {each}, which the server tells" for each in seen["elsewhere"]]
    if seen["backend"] != named:
        wrong.append(f"it is {seen['backend']}")
    verdict(wrong, f"{named}: the {seen['runs']} newest runs are there")


@pytest.mark.promise(
    "MLflow answers to its own names only",
    hint="mlflow_allowed_hosts names them; one with a wildcard in front lets strangers' in",
)
def test_mlflow_is_healthy_and_refuses_a_request_for_a_strangers_name(
    facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    one = service("mlflow")
    url, name = facts.url(one, 5000), {"Host": f"{one.name}:5000"}
    asked = f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0"
    health, own, stranger = facts.strangers(
        one,
        [
            {"url": f"{url}/health", "headers": name},
            {"url": asked, "headers": name},
            {"url": asked, "headers": {"Host": "stranger.example"}},
        ],
    )
    wrong = [told(answer) for answer in (health, own) if answer["status"] != OK]
    if stranger["status"] != FORBIDDEN:
        wrong.append(f"for the name stranger.example: {told(stranger)}")
    verdict(wrong, f"{url}; it asks for no password: whoever reaches this address may use it")
