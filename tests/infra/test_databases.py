"""MLflow on a database server: moved there with all it had, through every fault, and back up."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from tests.infra.faults_support import (
    LABEL,
    Platform,
    copy_project,
    docker,
    free_ports,
    wait_for,
)

NAME = "mlops-databases"
# what ends an address where it is not written as MLflow wants it
PASSWORD = "p/a@s:s%w#o?r[d]&more"  # noqa: S105 - of a database that the test removes
WIRING = """\
---
{kind}_exec: "/opt/{{{{ platform_name }}}}/bin/{program}"
{kind}_databases:
  - {{name: "{{{{ mlflow_backend_database }}}}", owner: "{{{{ mlflow_backend_user }}}}",
      password: "{{{{ mlflow_backend_password }}}}"}}
  - {{name: other, owner: other, password: "{{{{ mlflow_backend_password }}}}"}}
"""
QUICK = ("--skip-tags", "pipeline,verify")
SQL = {
    "postgresql": ("psql", "-qAt", "-c"),
    "mysql": ("mariadb", "--socket=/tmp/mysqld.sock", "-N", "-e"),
}
# a database as the first MLflow made it, with a run
OLDEST = """\
import sqlalchemy
from mlflow.store.db.utils import InitialBase
engine = sqlalchemy.create_engine(open("/run/secrets/backend_store_uri").read().strip())
with engine.begin() as connection:
    connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE"))
    connection.execute(sqlalchemy.text("CREATE SCHEMA public"))
InitialBase.metadata.create_all(engine)
with engine.begin() as connection:
    for statement in (
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)"
        " VALUES (1, 'old', 'mlflow-artifacts:/1', 'active')",
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id,"
        " status, start_time, end_time, source_version, lifecycle_stage, artifact_uri,"
        " experiment_id) VALUES ('0123456789abcdef0123456789abcdef', '', 'LOCAL', '', '', 'me',"
        " 'FINISHED', 1, 2, '', 'active', 'mlflow-artifacts:/1/r', 1)",
        "INSERT INTO params (key, value, run_uuid)"
        " VALUES ('depth', '3', '0123456789abcdef0123456789abcdef')",
    ):
        connection.execute(sqlalchemy.text(statement))
"""
SHORT = {"platform_start_timeout": 5}


def wire(platform: Platform, **programs: str) -> None:
    """Have an inventory run MLflow and MinIO, and database servers by what administers each."""
    hosts = platform.inventory / "hosts.yml"
    inventory = yaml.safe_load(hosts.read_text())
    groups = inventory["all"]["children"]
    kept = {name: groups[name] for name in ("minio", "mlflow")}
    inventory["all"]["children"] = {**kept, **dict.fromkeys(programs, groups["minio"])}
    hosts.write_text(yaml.safe_dump(inventory))
    for kind, program in programs.items():
        path = platform.inventory / f"group_vars/all/{kind}.yml"
        path.write_text(WIRING.format(kind=kind, program=program))


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with MLflow on SQLite, and both database servers beside it."""
    home = tmp_path_factory.mktemp("databases")
    platform = Platform(
        copy_project(home / "project"),
        {
            "platform_name": NAME,
            "postgresql_data": str(home / "small"),
            "postgresql_memory": "256m",
            "mysql_memory": "256m",
            "mlflow_backend_password": PASSWORD,
            **free_ports(),
        },
    )
    wire(platform, postgresql="postgresql", mysql="mysql")
    small = Path(platform.variables["postgresql_data"])
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(small)], check=True)
    try:
        platform.up(*QUICK)
        yield platform
    finally:
        platform.close()
        subprocess.run(["umount", str(small)], check=True)


def client(it: Platform) -> MlflowClient:
    return MlflowClient(f"http://127.0.0.1:{it.variables['mlflow_port']}")


def ask(it: Platform, kind: str, query: str, database: str = "mlflow") -> str:
    """Return what a query by the superuser is answered."""
    at = (database,) if kind == "mysql" else ("-d", database)
    program, *options = SQL[kind]
    return docker("exec", it.container(kind), program, *at, *options, query)


def record(it: Platform) -> str:
    """Record what a user does, and return the run's id."""
    asked = client(it)
    run = asked.create_run(asked.create_experiment(f"e{time.time_ns()}")).info.run_id
    asked.log_batch(
        run,
        metrics=[Metric("rmse", 0.1 + 0.2, 1, 0), Metric("rmse", float("nan"), 2, 1)],
        params=[Param("A", "upper"), Param("a", "lower"), Param("long", "ü" * 6000)],
    )
    asked.set_tag(run, "note", "'\"\\%s 😀")
    name = f"model-{run[:6]}"
    asked.create_registered_model(name)
    asked.create_model_version(name, f"runs:/{run}/model", run)
    asked.set_registered_model_alias(name, "champion", "1")
    return str(run)


def assert_recorded(it: Platform, run: str) -> None:
    asked = client(it)
    data = asked.get_run(run).data
    assert data.params == {"A": "upper", "a": "lower", "long": "ü" * 6000}
    assert data.tags["note"] == "'\"\\%s 😀"
    first, second = asked.get_metric_history(run, "rmse")
    assert first.value == 0.1 + 0.2
    assert second.value != second.value
    assert asked.get_model_version_by_alias(f"model-{run[:6]}", "champion").run_id == run


def use(it: Platform, kind: str) -> None:
    """Have the inventory say which database MLflow is on."""
    path = it.inventory / f"group_vars/all/{NAME}.yml"
    said = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**said, "mlflow_backend": kind}))


def ask_as_owner(it: Platform, kind: str, database: str, query: str, user: str = "mlflow") -> str:
    """Return what an owner is answered over the network, or why not."""
    password = it.variables["mlflow_backend_password"]
    start = {
        "mysql": ("-e", f"MYSQL_PWD={password}", it.container(kind), "mariadb", "-h127.0.0.1"),
        "postgresql": ("-e", f"PGPASSWORD={password}", it.container(kind), "psql", "-h127.0.0.1"),
    }[kind]
    rest = {
        "mysql": (f"-u{user}", database, "-N", "-e", query),
        "postgresql": (f"-U{user}", "-qAt", database, "-c", query),
    }[kind]
    done = subprocess.run(
        ["docker", "exec", *start, *rest], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def moved_experiment(it: Platform) -> str:
    """Return the experiment that was recorded on SQLite."""
    found = client(it).search_experiments(filter_string="name LIKE 'e%'")
    return str(min(int(each.experiment_id) for each in found))


def ask_mlflow(it: Platform) -> int:
    """Write a large tag until it is refused, or a few times; return the last status."""
    url = f"http://127.0.0.1:{it.variables['mlflow_port']}/api/2.0/mlflow/experiments/create"
    for _ in range(20):
        tags = [{"key": str(number), "value": "x" * 4900} for number in range(20)]
        body = json.dumps({"name": f"e{time.time_ns()}", "tags": tags}).encode()
        asked = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=60):  # noqa: S310
                continue
        except urllib.error.HTTPError as error:
            return error.code
    return 200


def docker_log(container: str) -> str:
    """Return all that a container wrote."""
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def healthy(it: Platform, service: str) -> bool:
    """Tell whether a container is healthy."""
    form = "{{.State.Health.Status}}"
    return docker("inspect", "--format", form, it.container(service)) == "healthy"


def on_volume(it: Platform, *words: str) -> str:
    """Run a command on MLflow's volume, whether MLflow runs or not."""
    image = docker("inspect", "--format", "{{.Config.Image}}", it.container("mlflow"))
    volume = f"{it.name}_mlflow:/data"
    return docker("run", "--rm", "--volume", volume, "--entrypoint", words[0], image, *words[1:])


def test_a_server_that_no_host_runs_is_refused_before_anything_is_touched(it: Platform) -> None:
    lives = it.lives()
    refused = it.play(*QUICK, given={"mlflow_backend": "mysql", "mlflow_backend_host": ""})
    assert refused.code
    refused.assert_says("mlflow_backend is mysql and no host runs one: put a host in the group")
    assert it.lives() == lives


def test_what_sqlite_holds_is_moved_to_mariadb_by_a_run_that_was_killed_and_made_again(
    it: Platform,
) -> None:
    run = record(it)
    use(it, "mysql")
    began = it.start(*QUICK)
    job = it.container("mlflow-database")
    wait_for(lambda: docker("ps", "--quiet", "--filter", f"name={job}"), "the job that moves")
    began.kill_family()
    docker("kill", job, check=False)
    it.up(*QUICK)
    assert_recorded(it, run)
    assert run in ask(it, "mysql", "SELECT run_uuid FROM runs").split()
    there = docker("exec", it.container("mlflow"), "ls", "/data").split()
    assert "mlflow.db.moved" in there
    assert "mlflow.db" not in there
    assert "moved, counted and compared" in docker_log(job)
    record(it)


def test_going_back_to_the_file_says_where_the_records_are(it: Platform) -> None:
    refused = it.play(*QUICK, given={"mlflow_backend": "sqlite", **SHORT})
    assert refused.code
    refused.assert_says("was moved from /data/mlflow.db to a database server")
    it.up(*QUICK)


def test_an_owner_reaches_its_own_database_and_no_other(it: Platform) -> None:
    said = ask_as_owner(it, "mysql", "other", "SELECT 1")
    assert "Access denied" in said
    said = ask_as_owner(it, "postgresql", "other", "SELECT 1")
    assert "permission denied for database" in said
    assert "1" in ask_as_owner(it, "postgresql", "mlflow", "SELECT 1")


def test_passwords_that_were_changed_by_hand_are_set_again_and_nothing_is_started_anew(
    it: Platform,
) -> None:
    ask(it, "mysql", "SET PASSWORD FOR other@'%' = PASSWORD('changed by hand')")
    ask(it, "postgresql", "ALTER ROLE other PASSWORD 'changed by hand'")
    lives = it.lives()
    assert it.up(*QUICK).changed > 0
    assert it.lives() == lives
    assert it.up(*QUICK).changed == 0
    for kind in SQL:
        assert "1" in ask_as_owner(it, kind, "other", "SELECT 1", user="other")


def test_a_restart_of_the_database_costs_no_client_a_request(it: Platform) -> None:
    run = client(it).create_run("0").info.run_id
    over = threading.Event()
    failed: list[str] = []
    logged = [0]

    def log() -> None:
        asked = client(it)
        while not over.is_set():
            try:
                asked.log_metric(run, "m", logged[0])
                logged[0] += 1
            except MlflowException as error:
                failed.append(str(error))

    thread = threading.Thread(target=log)
    thread.start()
    wait_for(lambda: logged[0] > 5, "metrics before the restart")
    docker("restart", it.container("mysql"))
    before = logged[0]
    wait_for(lambda: logged[0] > before + 5, "metrics after the restart")
    over.set()
    thread.join()
    assert not failed
    assert len(client(it).get_metric_history(run, "m")) == logged[0]


def test_a_server_that_starts_before_its_database_waits_and_needs_no_hand(it: Platform) -> None:
    docker("stop", it.container("mysql"))
    docker("restart", it.container("mlflow"))
    wait_for(lambda: "waiting for mlflow on mysql" in docker_log(it.container("mlflow")), "a word")
    docker("start", it.container("mysql"))
    wait_for(lambda: healthy(it, "mlflow"), "MLflow")
    record(it)


def test_what_is_gone_starts_at_once_and_what_a_backup_had_for_a_password_is_set_again(
    it: Platform,
) -> None:
    ask(it, "mysql", "SET PASSWORD FOR mlflow@'%' = PASSWORD('of the backup')")
    docker("compose", "--project-directory", str(it.directory), "down")
    of_it = ("--filter", f"label={LABEL}={NAME}")
    what = ("--filter", "event=start", "--filter", "event=health_status")
    form = ("--format", "{{.Actor.Attributes.name}} {{.Action}}")
    words = ["docker", "events", *of_it, *what, *form]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as told:
        it.up(*QUICK)
        told.terminate()
        happened = told.communicate()[0].splitlines()
    healthy_database = happened.index(f"{it.container('mysql')} health_status: healthy")
    assert happened.index(f"{it.container('mlflow')} start") < healthy_database
    record(it)


def test_a_database_that_holds_records_is_not_moved_into(it: Platform) -> None:
    docker("exec", it.container("mlflow"), "cp", "/data/mlflow.db.moved", "/data/mlflow.db")
    refused = it.play(*QUICK, given={"mlflow_memory": "1400m"})
    assert refused.code
    refused.assert_says("holds records of its own, and /data/mlflow.db holds others")
    on_volume(it, "rm", "/data/mlflow.db")
    it.up(*QUICK)


def test_the_same_file_is_moved_to_postgresql_whose_numbers_go_on_after_it(it: Platform) -> None:
    docker("exec", it.container("mlflow"), "mv", "/data/mlflow.db.moved", "/data/mlflow.db")
    use(it, "postgresql")
    it.up(*QUICK)
    (run,) = (each.info.run_id for each in client(it).search_runs([moved_experiment(it)]))
    assert_recorded(it, run)
    assert run in ask(it, "postgresql", "SELECT run_uuid FROM runs").split()
    assert_recorded(it, record(it))


def test_what_the_verdict_promises_of_both_servers_holds_and_fails_when_it_does_not(
    it: Platform,
) -> None:
    assert it.play(playbook="playbooks/verify.yml").code == 0
    ask(it, "postgresql", "GRANT CONNECT ON DATABASE mlflow TO other")
    ask(it, "mysql", "GRANT SELECT ON mlflow.* TO other@'%'")
    wrong = it.play(playbook="playbooks/verify.yml")
    assert wrong.code
    assert wrong.said.count("other reaches mlflow") == 2
    ask(it, "postgresql", "REVOKE CONNECT ON DATABASE mlflow FROM other")
    ask(it, "mysql", "REVOKE SELECT ON mlflow.* FROM other@'%'")


def test_a_schema_as_the_first_mlflow_had_it_is_brought_up_with_its_runs(it: Platform) -> None:
    docker("exec", "-i", it.container("mlflow"), "python3", "-", text=OLDEST)
    docker("restart", it.container("mlflow"))
    wait_for(lambda: healthy(it, "mlflow"), "MLflow on the old database")
    found = client(it).get_experiment_by_name("old")
    assert found
    (run,) = client(it).search_runs([found.experiment_id])
    assert run.data.params == {"depth": "3"}


def test_a_full_disk_fails_what_writes_and_heals_once_there_is_room(it: Platform) -> None:
    filler = Path(it.variables["postgresql_data"]) / "filler"
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={filler}", "bs=1M"], capture_output=True, check=False
    )
    refused = ask_mlflow(it)
    filler.unlink()
    assert refused >= 400
    wait_for(lambda: ask_mlflow(it) == 200, "room for a run")
    record(it)


def test_data_of_another_major_version_are_refused_and_left_as_they_are(it: Platform) -> None:
    name = it.container("postgresql")
    docker("exec", name, "sh", "-c", "echo 16 > /data/cluster/PG_VERSION")
    docker("restart", name)
    try:
        refused = it.play(*QUICK, given={**SHORT, "postgresql_connections": 50})
        assert refused.code
        refused.assert_says("The data are of PostgreSQL 16 and this is 17", "pg_dumpall")
        restarts = docker("inspect", "--format", "{{.RestartCount}} {{.State.Running}}", name)
        assert restarts == "0 true"
    finally:
        docker("exec", name, "sh", "-c", "echo 17 > /data/cluster/PG_VERSION")
        docker("restart", name)
    it.up(*QUICK)
