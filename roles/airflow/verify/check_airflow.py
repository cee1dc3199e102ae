"""Whether a DAG that is asked for would run, and what strangers see of Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts, told
from platform_verify.s3 import POLICIES, REFUSED, excess, reached

Verdict = Callable[[Iterable[str], str], None]

OK = 200
# what only a proxy that is known by its token may say
SPOOFED = {"X-Forwarded-User": "admin", "X-Forwarded-Groups": "admin"}
NONE = "00000000-0000-0000-0000-000000000000"


@pytest.mark.promise(
    "Every part of Airflow is alive",
    hint="`make logs` says what the part that is not has last said",
)
def test_scheduler_processor_triggerer_and_database_are_healthy(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("airflow")
    said = facts.of("airflow", "parts", "airflow")
    wanted = platform.promised["airflow"]["parts"]
    wrong = [f"{name} is {said.get(name)}" for name in wanted if said.get(name) != "healthy"]
    verdict(wrong, ", ".join(wanted))


@pytest.mark.promise(
    "Airflow has the DAGs of the inventory, and a task reaches their projects",
    hint="airflow_dags and the schedules of airflow_projects name them, airflow_runner_* the way "
    "to the projects' runners",
)
def test_each_dag_of_the_inventory_is_there_and_the_runner_knows_its_project(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("airflow")
    wanted, seen = platform.promised["airflow"], facts.of("airflow", "dags", "postgresql")
    wrong = [f"there is no DAG {name}" for name in wanted["dags"] if name not in seen["names"]]
    own: list[str] = []
    theirs: list[str] = []
    for each in seen["errors"]:
        (own if each["bundle"] == "platform" else theirs).append(
            f"{each['file']} cannot be read: {' '.join(each['said'])}"
        )
    wrong += own
    if wanted["runner"]:
        known = facts.of("airflow", "projects")
        projects = dict.fromkeys(each["project"] for each in wanted["dags"].values())
        wrong += [f"no runner has project {name}" for name in projects if name not in known]
    good = f"{len(seen['names'])} DAGs, {', '.join(wanted['dags'])} among them"
    verdict(wrong, "; of the user's files ".join([good, *(["; ".join(theirs)] if theirs else [])]))


@pytest.mark.promise(
    "What a DAG run recorded is in MLflow",
    hint="MLFLOW_TRACKING_URI of airflow_environment is to be where projects' runs are recorded",
)
def test_the_last_dag_run_that_recorded_anything_is_in_the_tracking_server(
    facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("airflow")
    seen = facts.of("airflow", "recorded", "postgresql", "mlflow")
    if not seen:
        pytest.skip("no DAG run has recorded anything yet")
    wrong = [
        f"MLflow answers {status} for run {run}, which {seen['dag']} recorded"
        for run, status in seen["runs"].items()
        if status != OK
    ]
    verdict(wrong, f"the last by {seen['dag']}: {', '.join(seen['runs'])}")


@pytest.mark.promise("Airflow's user of the store reaches only its own bucket", hint=POLICIES)
def test_the_user_for_logs_reaches_its_own_bucket_and_nothing_else(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("airflow")
    if not platform.promised["airflow"]["bucket"]:
        pytest.skip("logs of tasks stay on a volume")
    reach = facts.of("airflow", "reach", "minio")
    own = platform.promised.get("users", {}).get(reach["user"], ())
    verdict(excess(reach, own), reached(reach, own))


@pytest.mark.promise(
    "Without a log-in Airflow only tells its health and version",
    hint="core.auth_manager of airflow_settings says who is let in: leave it to the role",
)
def test_a_stranger_is_refused_by_pages_api_and_tasks_api(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    one = service("airflow")
    base = facts.url(one, 8080) + platform.promised["airflow"]["base_path"]
    known = ("dags", "connections", "variables", "pools", "config", "importErrors", "eventLogs")
    closed: list[dict[str, Any]] = [
        *({"url": f"{base}/api/v2/{name}"} for name in known),
        *({"url": f"{base}/ui/{name}"} for name in ("config", "dags", "dashboard/dag_stats")),
        *({"url": f"{base}/auth/fab/v1/{name}"} for name in ("users", "roles")),
        {"url": f"{base}/api/v2/dags/any/dagRuns", "method": "POST"},
        {"url": f"{base}/api/v2/dags/any", "method": "DELETE"},
        {"url": f"{base}/api/v2/dags", "headers": SPOOFED},
        {"url": f"{base}/api/v2/dags", "headers": {**SPOOFED, "Authorization": "Proxy of-nobody"}},
        {"url": f"{base}/execution/variables/any"},
        {"url": f"{base}/execution/connections/any"},
        {"url": f"{base}/execution/task-instances/{NONE}/run", "method": "PATCH"},
    ]
    health, *answers = facts.strangers(one, [{"url": f"{base}/api/v2/monitor/health"}, *closed])
    wrong = [told(answer) for answer in answers if answer["status"] not in REFUSED]
    wrong += [told(health)] if health["status"] != OK else []
    verdict(wrong, f"{len(answers)} requests refused at {base}")
