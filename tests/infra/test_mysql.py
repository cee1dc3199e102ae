"""MLflow on MySQL itself, as an image that was not built by the platform."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.faults_support import Platform, copy_project, docker, free_ports, image_of
from tests.infra.test_databases import QUICK, assert_recorded, client, record, wire

IMAGE = "mlops-test/mysql:sid"
ROOT = "{{ lookup('platform_secret', 'mysql_root_password') }}"


def made_from_sid() -> str:
    """Build the image where it is missing, for that takes what Debian has today; return its id."""
    if not docker("images", "--quiet", IMAGE):
        given = ("--network", "host", "--build-arg", f"BASE_IMAGE={image_of('base')}")
        docker("build", *given, "--tag", IMAGE, str(Path(__file__).parent / "mysql"))
    return docker("images", "--quiet", IMAGE)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose MLflow is on it from the start."""
    home = tmp_path_factory.mktemp("mysql")
    given = {
        "platform_name": "mlops-mysql",
        "mlflow_backend": "mysql",
        "mysql_image": IMAGE,
        "mysql_root_password": ROOT,
        "mysql_memory": "768m",
        **free_ports(),
    }
    platform = Platform(copy_project(home / "project"), given)
    wire(platform, mysql="mysql-admin")
    assert made_from_sid()
    try:
        platform.up(*QUICK)
        yield platform
    finally:
        platform.close()
        docker("rmi", IMAGE, check=False)


def ask(it: Platform, query: str, user: str, secret: str, database: str = "mlflow") -> str:
    """Return what a user of the server is answered, or why not."""
    password = (it.inventory / ".secrets" / it.name / secret).read_text().strip()
    given = ("-e", f"MYSQL_PWD={password}", it.container("mysql"))
    words = ("mysql", "-h127.0.0.1", f"-u{user}", "-N", "-e", query, database)
    done = subprocess.run(
        ["docker", "exec", *given, *words], capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).strip()


def test_mlflow_keeps_all_that_a_client_records_in_mysql(it: Platform) -> None:
    run = record(it)
    assert_recorded(it, run)
    assert run in ask(it, "SELECT run_uuid FROM runs", "root", "mysql_root_password")
    assert ask(it, "SELECT VERSION()", "root", "mysql_root_password")[0] in "89"
    assert it.up(*QUICK).changed == 0


def test_an_owner_reaches_no_other_database(it: Platform) -> None:
    assert ask(it, "SELECT 1", "mlflow", "mlflow_backend_password") == "1"
    for other in ("other", "mysql"):
        said = ask(it, "SELECT 1", "mlflow", "mlflow_backend_password", database=other)
        assert "Access denied for user 'mlflow'" in said
    assert ask(it, "SELECT 1", "other", "mlflow_backend_password", database="other") == "1"


def test_records_are_there_after_the_server_was_killed(it: Platform) -> None:
    run = record(it)
    docker("kill", it.container("mysql"))
    docker("start", it.container("mysql"))
    it.up(*QUICK)
    assert_recorded(it, run)
    assert client(it).search_experiments()


def test_a_wrong_password_of_root_is_told_by_its_name(it: Platform) -> None:
    said = it.play(*QUICK, given={"mysql_root_password": "another-one-of-root"})
    assert said.code
    said.assert_says("The server has another password of root than mysql_root_password")
    assert it.up(*QUICK).changed >= 0
