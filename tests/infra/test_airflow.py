"""Airflow as a user has it: DAGs of projects and of their own, over its API and in their folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import requests
import yaml
from playwright.sync_api import expect
from tests.infra.conftest import ROOT, Stack, stack
from tests.infra.faults_support import begun, commit_all, docker, gate, wait_for
from tests.infra.test_pages import CHROMIUM, DESK, browser_at, shot

PORT = 1281
NAME = "mlops-airflow"
PIPELINE = """
stages:
  make:
    cmd: >-
      echo made ${word} && test ${word} != wrong && sleep ${seconds} &&
      for _ in $(seq 600); do test -z "${gate}" || python3 -c
      "import urllib.request as web; web.urlopen('http://${gate}')" 2>/dev/null && break;
      sleep 0.2; done && echo ${word} > word.txt
    outs: [word.txt]
  count:
    cmd: printf '{"letters":%d}' "$(wc -c < word.txt)" > metrics.json
    deps: [word.txt]
    metrics: [metrics.json: {cache: false}]
"""
ENDED = ("success", "failed")
REFUSED = (401, 403)


@dataclass(frozen=True)
class Airflow:
    """What a program says to Airflow's API that knows a password."""

    platform: Stack
    base: str = f"http://127.0.0.1:{PORT}"

    def secret(self, name: str) -> str:
        path = Path(self.platform.inventory) / ".secrets" / self.platform.name / name
        return path.read_text().strip()

    def token(self, password: str = "", name: str = "admin") -> requests.Response:
        said = {"username": name, "password": password or self.secret("airflow_admin_password")}
        return requests.post(f"{self.base}/auth/token", json=said, timeout=60)

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> requests.Response:  # noqa: ANN401 - JSON
        key = key or self.token().json()["access_token"]
        return requests.request(
            method,
            f"{self.base}/api/v2/{path}",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        )

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def start(self, dag: str, *parameters: str) -> str:
        """Ask for a run; its path."""
        body = {"logical_date": None, "conf": {"set": [*parameters]} if parameters else {}}
        answer = self.ask("POST", f"dags/{dag}/dagRuns", body)
        assert answer.status_code == 200, answer.text
        return f"dags/{dag}/dagRuns/{quote(answer.json()['dag_run_id'])}"

    def states(self, run: str) -> dict[str, str]:
        """Map each task of a run to its state."""
        found = self.get(f"{run}/taskInstances")["task_instances"]
        return {one["task_id"]: one["state"] for one in found}

    def end(self, run: str) -> str:
        """Wait for the end of a run; its state."""
        wait_for(lambda: self.get(run)["state"] in ENDED, f"the end of {run}: {self.states(run)}")
        return str(self.get(run)["state"])

    def log(self, run: str, task: str, number: int = 1) -> str:
        """What the log of a task's try says, and where it is."""
        answer = self.ask("GET", f"{run}/taskInstances/{task}/logs/{number}?full_content=true")
        if answer.status_code == 404:
            return ""
        found = answer.json()
        return "\n".join(json.dumps(line) for line in found["content"])

    def errors(self) -> dict[str, str]:
        """Map each file that can not be read to why."""
        return {e["filename"]: e["stack_trace"] for e in self.get("importErrors")["import_errors"]}

    def container(self, part: str = "") -> str:
        return self.platform.container(f"airflow-{part}" if part else "airflow")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """The platform of inventory/lab with a small project in place of wine, without notebooks."""
    at = tmp_path_factory.mktemp(NAME)
    project = at / "small"
    project.mkdir()
    (project / "dvc.yaml").write_text(PIPELINE)
    (project / "params.yaml").write_text("word: plain\nseconds: 0\ngate: ''\n")
    commit_all(project)
    made = stack(
        NAME,
        9281,
        at,
        "lab",
        airflow_port=str(PORT),
        airflow_dags_folder=str(at / "dags"),
        airflow_plugins_folder=str(at / "plugins"),
        airflow_dags={
            "by_stages": {"project": "small", "stages_of": str(project / "dvc.yaml")},
            "at_once": {"project": "small"},
        },
        dvc_runner_projects={"small": {"source": str(project), "schedule": "@yearly"}},
        postgresql_port="",
    )
    hosts = Path(made.inventory) / "hosts.yml"
    content = yaml.safe_load(hosts.read_text())
    del content["all"]["children"]["jupyter"]
    hosts.write_text(yaml.safe_dump(content))
    (Path(made.inventory) / "group_vars/all/minio.yml").write_text(store())
    for above in (at, at.parent):
        above.chmod(0o755)
    try:
        made.play("site.yml")
        yield Airflow(made)
    finally:
        made.destroy()


def store() -> str:
    """What inventory/lab says of the store, without what notebooks have."""
    found = yaml.safe_load((ROOT / "inventory/lab/group_vars/all/minio.yml").read_text())
    users = [one for one in found["minio_users"] if "jupyter" not in one["access_key"]]
    buckets = [one for one in found["minio_buckets"] if one["name"] != "notebooks"]
    return str(yaml.safe_dump({"minio_users": users, "minio_buckets": buckets}))


AS_NOBODY = """
import sys
from pathlib import Path

sys.path.insert(0, "/config")
import database

uri = database.secret("sql_alchemy_conn")
login, _, rest = uri.rpartition("@")
database.secret = lambda name: f"{login}x@{rest}"
sys.exit(database.main(["1"]))
"""


def folder(airflow: Airflow) -> Path:
    return Path(airflow.platform.variables["airflow_dags_folder"])


def mlflow(airflow: Airflow, run: str) -> Any:  # noqa: ANN401 - JSON
    address = f"http://127.0.0.1:{airflow.platform.variables['mlflow_port']}/api/2.0/mlflow"
    answer = requests.get(f"{address}/runs/get", params={"run_id": run}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["run"]


def result(airflow: Airflow, run: str, task: str) -> Any:  # noqa: ANN401 - JSON
    return airflow.get(f"{run}/taskInstances/{task}/xcomEntries/return_value")["value"]


def requests_of(airflow: Airflow) -> set[str]:
    """What the runner was asked for."""
    runner = airflow.platform.container("dvc-runner-small")
    return set(docker("exec", runner, "ls", "/workspace/requests").split())


def is_healthy(name: str) -> bool:
    return docker("inspect", "--format", "{{.State.Health.Status}}", name) == "healthy"


def test_the_verdict_holds_and_a_second_run_changes_nothing(airflow: Airflow) -> None:
    code, judged, text = airflow.platform.verify()
    assert code == 0, text
    held = {check.name: check.detail for check in judged.checks if check.ok}
    assert (
        "metadatabase, scheduler, dag_processor, triggerer"
        in held["Every part of Airflow is alive"]
    )
    assert (
        "by_stages, at_once, small among them"
        in held["Airflow has the DAGs of the inventory, and a task reaches their projects"]
    )
    assert "Airflow's user of the store reaches only its own bucket" in held
    assert "Without a log-in Airflow only tells its health and version" in held
    assert "changed=0" in airflow.platform.play("site.yml")


def test_dags_are_read_without_errors_and_a_schedule_is_the_inventorys(airflow: Airflow) -> None:
    assert airflow.errors() == {}
    found = {one["dag_id"]: one for one in airflow.get("dags")["dags"]}
    assert set(found) == {"by_stages", "at_once", "small"}
    assert not any(one["is_paused"] for one in found.values())
    # none of a time that is past, as the first that Airflow knows
    assert found["small"]["next_dagrun_run_after"].startswith(f"{datetime.now(UTC).year + 1}-01-01")
    assert airflow.get("dags/small/dagRuns")["total_entries"] == 0
    assert found["at_once"]["next_dagrun_run_after"] is None


def test_a_wrong_password_a_strangers_token_and_a_stranger_are_refused(airflow: Airflow) -> None:
    assert airflow.token("wrong-but-long-enough").status_code == 401
    assert airflow.ask("GET", "dags", key="e30.e30.e30").status_code in REFUSED
    assert requests.get(f"{airflow.base}/api/v2/dags", timeout=30).status_code == 401
    page = requests.get(f"{airflow.base}/auth/users/list/", timeout=30, allow_redirects=False)
    assert page.status_code == 302
    assert "/auth/login" in page.headers["Location"]


def test_each_stage_is_a_task_and_the_run_is_in_mlflow(airflow: Airflow) -> None:
    run = airflow.start("by_stages", "word=seven77")
    assert airflow.end(run) == "success"
    assert airflow.states(run) == dict.fromkeys(("make", "count", "push_and_record"), "success")
    assert "made seven77" in airflow.log(run, "make")
    came = result(airflow, run, "push_and_record")
    assert came["metrics"] == {"metrics.json": {"letters": 8}}
    (logged,) = came["mlflow_runs"]
    seen = mlflow(airflow, logged)["data"]
    assert {"key": "project", "value": "small"} in seen["tags"]
    _, judged, _ = airflow.platform.verify()
    (detail,) = [c.detail for c in judged.checks if c.ok and "recorded is in MLflow" in c.name]
    assert detail == f"the last by by_stages: {logged}"
    assert [one["value"] for one in seen["metrics"] if "letters" in one["key"]] == [8.0]


def test_the_log_of_a_task_that_ended_lies_in_the_bucket(airflow: Airflow) -> None:
    run = airflow.start("at_once")
    assert airflow.end(run) == "success"
    wait_for(
        lambda: "s3://airflow-logs/dag_id=at_once" in airflow.log(run, "run"), "it to be there"
    )
    assert "Asked the runner of small" in airflow.log(run, "run")
    find = ("exec", airflow.container("scheduler"), "find", "/logs/dag_id=at_once", "-type", "f")
    wait_for(lambda: docker(*find) == "", "the copy on the volume to be gone")


def test_a_stage_that_fails_ends_the_run_with_the_runners_words(airflow: Airflow) -> None:
    run = airflow.start("by_stages", "word=wrong")
    assert airflow.end(run) == "failed"
    assert airflow.states(run) == {
        "make": "failed",
        "count": "upstream_failed",
        "push_and_record": "upstream_failed",
    }
    said = airflow.log(run, "make")
    assert "made wrong" in said
    words = "The pipeline stopped (dvc repro ended with code 255): made wrong. Finished stages are"
    assert f'"exc_type": "AirflowException", "exc_value": "{words}' in said
    assert "RunnerError" not in said
    assert airflow.end(airflow.start("by_stages")) == "success"


def test_a_run_that_is_ended_in_airflow_ends_in_the_runner(airflow: Airflow) -> None:
    run = airflow.start("by_stages", "seconds=300")
    wait_for(lambda: "made plain" in airflow.log(run, "make"), "the stage to run")
    assert airflow.ask("PATCH", run, {"state": "failed"}).status_code == 200
    wait_for(lambda: is_free(airflow), "the runner to be free", 60)
    assert airflow.end(airflow.start("by_stages")) == "success"


def is_free(airflow: Airflow) -> bool:
    runner = airflow.platform.container("dvc-runner-small")
    asked = docker("exec", runner, "dvc_runner", "status")
    return '"running"' not in asked and '"waiting": []' in asked


def test_a_run_that_is_ended_after_a_restart_of_the_scheduler_ends_in_the_runner_too(
    airflow: Airflow,
) -> None:
    before = requests_of(airflow)
    run = airflow.start("by_stages", "seconds=600", "word=twice")
    wait_for(lambda: "made twice" in airflow.log(run, "make"), "the stage to run")
    docker("restart", "--time", "5", airflow.container("scheduler"))
    wait_for(lambda: "made twice" in airflow.log(run, "make", 2), "a second try to follow it")
    assert len(requests_of(airflow) - before) == 1
    assert airflow.ask("PATCH", run, {"state": "failed"}).status_code == 200
    wait_for(lambda: is_free(airflow), "the runner to be free", 60)


@pytest.mark.parametrize("hindrance", ["", "dvc-runner-api", "airflow-scheduler"])
def test_a_task_that_is_cleared_while_it_runs_asks_anew_and_its_run_ends(
    airflow: Airflow, hindrance: str
) -> None:
    before, word = requests_of(airflow), f"cleared{len(hindrance)}"
    run = airflow.start("by_stages", "seconds=600", f"word={word}")
    wait_for(lambda: f"made {word}" in airflow.log(run, "make"), "the stage to run")
    cleared = {"dry_run": False, "only_failed": False, "task_ids": ["make"]}
    away = airflow.platform.container(hindrance)
    if hindrance:  # nobody there who could end the run as the task is ended
        docker("kill", away)
    try:
        answer = airflow.ask(
            "POST",
            "dags/by_stages/clearTaskInstances",
            {**cleared, "dag_run_id": unquote(run.rpartition("/")[2])},
        )
        assert answer.status_code == 200, answer.text
        if hindrance == "dvc-runner-api":
            second = f"{run}/taskInstances/make"
            wait_for(lambda: airflow.get(second)["try_number"] == 2, "the second try")
            time.sleep(15)  # whoever ends a task waits less
    finally:
        if hindrance:
            docker("start", away)
    # one run at a time: the second one's stage runs when the first one's has ended
    wait_for(lambda: f"made {word}" in airflow.log(run, "make", 2), "the stage to run anew")
    assert len(requests_of(airflow) - before) == 2
    assert airflow.ask("PATCH", run, {"state": "failed"}).status_code == 200
    wait_for(lambda: is_free(airflow), "the runner to be free", 60)


BROKEN = "from airflow.sdk import DAG\nwith DAG('broken'):\n    this is no python\n"
OWN = """
from airflow.sdk import DAG, task
from dvc_stage import DvcStageOperator

with DAG("of_a_user", schedule=None, is_paused_upon_creation=False):

    @task
    def before():
        import os

        print("tracking is at", os.environ["MLFLOW_TRACKING_URI"])

    before() >> DvcStageOperator(task_id="all_of_it", project="small", parameters=["word=nine"])
"""


def test_a_dag_with_a_syntax_error_is_told_and_one_beside_it_runs(airflow: Airflow) -> None:
    (folder(airflow) / "broken.py").write_text(BROKEN)
    (folder(airflow) / "own.py").write_text(OWN)
    try:
        wait_for(lambda: "broken.py" in airflow.errors(), "the error to be told")
        assert "SyntaxError: invalid syntax" in airflow.errors()["broken.py"]
        wait_for(
            lambda: airflow.ask("GET", "dags/of_a_user").status_code == 200, "the DAG to be there"
        )
        run = airflow.start("of_a_user")
        assert airflow.end(run) == "success"
        assert "tracking is at http://mlflow:5000" in airflow.log(run, "before")
        assert result(airflow, run, "all_of_it")["metrics"] == {"metrics.json": {"letters": 5}}
        code, judged, text = airflow.platform.verify()
        assert code == 0, text
        (detail,) = [check.detail for check in judged.checks if "the DAGs of the" in check.name]
        assert "of the user's files broken.py cannot be read: SyntaxError" in detail
    finally:
        for path in folder(airflow).glob("*.py"):
            path.unlink()
    wait_for(lambda: airflow.errors() == {}, "the error to be gone with its file")


def test_a_project_that_the_runner_does_not_know_fails_in_one_sentence(airflow: Airflow) -> None:
    path = folder(airflow) / "own.py"
    path.write_text(OWN.replace('"small"', '"nowhere"').replace("of_a_user", "of_nowhere"))
    try:
        wait_for(
            lambda: airflow.ask("GET", "dags/of_nowhere").status_code == 200, "the DAG to be there"
        )
        run = airflow.start("of_nowhere")
        assert airflow.end(run) == "failed"
        said = airflow.log(run, "all_of_it")
        assert "There is no project 'nowhere' (there are small)." in said
    finally:
        path.unlink()


def test_a_folder_that_belongs_to_somebody_else_is_told_in_one_sentence_and_heals(
    airflow: Airflow,
) -> None:
    name = airflow.container("dag-processor")
    os.chown(folder(airflow), 0, 0)
    folder(airflow).chmod(0o700)
    docker("restart", "--time", "5", name)

    def told() -> bool:
        log = subprocess.run(
            ["docker", "logs", "--tail", "5", name], capture_output=True, text=True, check=True
        )
        return "cannot be read by 10001:10001, it is 0:0, mode 700: set airflow_user" in log.stderr

    wait_for(told, "the sentence")
    folder(airflow).chmod(0o755)
    wait_for(lambda: is_healthy(name), "the processor to heal")
    os.chown(folder(airflow), 10001, 10001)


def test_a_schema_that_is_not_whole_is_made_whole_and_a_newer_one_is_told(
    airflow: Airflow,
) -> None:
    sql = ("exec", airflow.platform.container("postgresql"), "psql", "-d", "airflow", "-Atc")
    before = docker(*sql, "SELECT version_num FROM alembic_version")
    # as it is where a migration was killed before its end was noted
    docker(*sql, "DELETE FROM alembic_version")
    docker("restart", airflow.container())
    wait_for(
        lambda: docker(*sql, "SELECT version_num FROM alembic_version") == before, "the revision"
    )
    docker(*sql, "UPDATE alembic_version SET version_num = 'feedfeedfeed'")
    docker("restart", airflow.container())

    def told() -> bool:
        words = ["docker", "logs", "--tail", "20", airflow.container()]
        log = subprocess.run(words, capture_output=True, text=True, check=True)
        return "has revision feedfeedfeed, which this Airflow does not know" in log.stderr

    wait_for(told, "the sentence")
    docker(*sql, f"UPDATE alembic_version SET version_num = '{before}'")  # noqa: S608 - from there
    wait_for(lambda: is_healthy(airflow.container()), "the API to heal")


def test_a_database_that_was_away_is_taken_up_again_by_every_part(airflow: Airflow) -> None:
    server = airflow.platform.container("postgresql")
    parts = ["", "scheduler", "dag-processor", "triggerer"]
    docker("stop", server)
    try:
        wait_for(lambda: not is_healthy(airflow.container()), "the outage to be seen")
    finally:
        docker("start", server)
    for part in parts:
        wait_for(lambda part=part: is_healthy(airflow.container(part)), f"{part} to be healthy")  # type: ignore[misc]
    assert airflow.end(airflow.start("by_stages")) == "success"


def test_a_password_that_the_database_does_not_know_is_told_in_one_sentence(
    airflow: Airflow,
) -> None:
    words = ("exec", "-i", airflow.container(), "python", "-")
    done = subprocess.run(
        ["docker", *words], input=AS_NOBODY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Database airflow on postgresql does not let airflow in: " in done.stderr
    assert "are airflow_database* of the inventory what it was given?" in done.stderr
    assert "Traceback" not in done.stderr


def test_each_part_may_be_started_again_while_a_stage_runs(airflow: Airflow) -> None:
    before = requests_of(airflow)
    run = airflow.start("by_stages", "seconds=45", "word=restarted")
    wait_for(lambda: "made restarted" in airflow.log(run, "make"), "the stage to run")
    parts = [airflow.container(part) for part in ("", "dag-processor", "triggerer", "scheduler")]
    parts += [airflow.platform.container(name) for name in ("dvc-runner-api", "minio")]
    for name in parts:
        docker("restart", "--time", "5", name)
    for name in parts:
        wait_for(lambda name=name: is_healthy(name), f"{name} to be healthy")  # type: ignore[misc]
    assert airflow.end(run) == "success"
    assert result(airflow, run, "push_and_record")["metrics"] == {"metrics.json": {"letters": 10}}
    # a request for each of the tasks, however many tries they had
    assert len(requests_of(airflow) - before) == 3
    again = {"dry_run": False, "only_failed": False}
    assert airflow.ask("POST", f"{run}/clear", again).status_code == 200
    assert airflow.end(run) == "success"
    assert len(requests_of(airflow) - before) == 6


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on this machine")
def test_a_user_logs_in_with_a_browser_and_sees_the_run_green(airflow: Airflow) -> None:
    assert airflow.end(airflow.start("by_stages")) == "success"
    with browser_at(airflow.base, DESK) as page:
        page.goto("/dags/by_stages")
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", "wrong-but-long-enough")
        page.get_by_role("button", name="Sign In").click()
        expect(page.get_by_text("Invalid login")).to_be_visible()
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", airflow.secret("airflow_admin_password"))
        page.get_by_role("button", name="Sign In").click()
        page.wait_for_url(lambda url: "/auth/login" not in url)
        page.goto("/dags/by_stages")
        expect(page.get_by_text("push_and_record").first).to_be_visible()
        green = page.get_by_role("link", name=re.compile("[0-9] success$"))
        expect(green).to_be_visible()
        shot(page, "airflow")


def test_a_rotation_refuses_old_passwords_and_keeps_runs_and_what_was_encrypted(
    airflow: Airflow, tmp_path: Path
) -> None:
    connection = {"connection_id": "kept", "conn_type": "http", "password": "of-a-user"}
    assert airflow.ask("POST", "connections", connection).status_code == 201
    old = {name: airflow.secret(name) for name in ("airflow_admin_password", "airflow_fernet_key")}
    key = airflow.token().json()["access_token"]
    log = tmp_path / "rotation"
    with gate() as door:
        run = airflow.start("by_stages", f"gate={door.address}", "word=rotated")
        wait_for(door.asked.is_set, "the stage to run")
        before = airflow.get("dags/by_stages/dagRuns")["total_entries"]
        with begun(airflow.platform, log, "playbooks/rotate.yml", {}) as rotation:
            said = "the queue is held; in work is small since"
            wait_for(lambda: said in log.read_text(), "the rotation to wait")
            # the second stage is asked for while the rotation holds the queue
            door.opened.set()
            assert rotation.wait(900) == 0, log.read_text()
    assert airflow.secret("airflow_fernet_key") != old["airflow_fernet_key"]
    assert airflow.token(old["airflow_admin_password"]).status_code == 401
    assert airflow.ask("GET", "dags", key=key).status_code in REFUSED
    assert airflow.get("dags/by_stages/dagRuns")["total_entries"] == before
    words = ["airflow", "connections", "get", "kept", "--output", "json"]
    said = docker("exec", airflow.container("scheduler"), *words)
    assert "of-a-user" in said
    assert airflow.end(run) == "success"
    found = result(airflow, run, "push_and_record")
    assert found["metrics"] == {"metrics.json": {"letters": 8}}
    assert airflow.end(airflow.start("by_stages")) == "success"


def test_who_was_the_admin_before_has_neither_password_nor_rights(airflow: Airflow) -> None:
    key = airflow.token().json()["access_token"]
    airflow.platform.play("site.yml", "--tags", "platform", airflow_admin="boss")
    try:
        boss = airflow.token(name="boss").json()["access_token"]
        assert airflow.ask("GET", "connections", key=boss).status_code == 200
        assert airflow.token().status_code == 401
        # of a log-in before
        wait_for(
            lambda: airflow.ask("GET", "connections", key=key).status_code in REFUSED,
            "the session before to be worth nothing",
        )
        again = airflow.platform.play("site.yml", "--tags", "platform", airflow_admin="boss")
        assert "changed=0" in again
    finally:
        airflow.platform.play("site.yml", "--tags", "platform")
    assert airflow.ask("GET", "connections").status_code == 200
    assert airflow.token(name="boss").status_code == 401


def test_another_airflow_user_is_refused_by_what_the_volumes_hold(airflow: Airflow) -> None:
    other = {"airflow_user": "10011:10011"}
    told = airflow.platform.attempt("site.yml", "--tags", "platform", **other)
    said = "is not for 10011:10011, it is 10001:10001's: set airflow_user back to its owner"
    assert said in " ".join(told.split())
    airflow.platform.play("site.yml", "--tags", "platform")
    assert airflow.ask("GET", "dags").status_code == 200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"airflow_admin_password": "short"}, "airflow_admin_password is shorter than 16"),
        ({"airflow_fernet_key": "x" * 44}, "airflow_fernet_key is none: give 32 bytes in base64"),
        ({"airflow_proxy_token": "short"}, "airflow_proxy_token is shorter than 16 characters"),
        ({"airflow_proxy_roles": {"admin": ["Op"]}}, "airflow_proxy_roles gives a group several"),
        ({"airflow_dags_folder": "dags"}, "name a folder of the host by its absolute path"),
        ({"airflow_database_host": ""}, "airflow_database_host is empty: put a host in the group"),
        ({"airflow_dags": {"x": {"project": "y"}}}, "there is no such project (there are small)"),
        ({"airflow_runner_token": ""}, "airflow_runner_token is empty: give what the API"),
    ],
)
def test_a_setting_that_would_not_do_is_refused_before_anything_is_touched(
    airflow: Airflow, given: dict[str, object], said: str
) -> None:
    told = airflow.platform.attempt("site.yml", "--check", **given)
    assert said in " ".join(told.split())
    assert "changed=0" in told
