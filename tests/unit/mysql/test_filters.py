"""What the server is told, and which databases, owners and sizes are refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.conftest import load

mysql = load("mysql/filter_plugins/mysql.py")

ONE = {"name": "mlflow", "owner": "mlflow", "password": "correct horse battery"}


@pytest.mark.parametrize(
    ("databases", "said"),
    [
        ([{**ONE, "name": "ml_flow"}], "name 'ml_flow' is none"),
        ([{**ONE, "name": "mysql"}], "name 'mysql' is none"),
        ([{**ONE, "owner": "root"}], "owner 'root' is none"),
        ([{**ONE, "password": "short"}], "has 5 characters"),
        ([ONE, ONE], "lists 'mlflow' twice"),
        ([ONE, {**ONE, "name": "b", "password": "p" * 12}], "another password elsewhere"),
    ],
)
def test_what_the_server_would_not_take_is_refused(
    databases: list[dict[str, Any]], said: str
) -> None:
    told = "; ".join(mysql.faults(databases, "512m", 100))
    assert said in told
    assert all(each["password"] not in told for each in databases)


def test_what_is_well_declared_is_not_refused() -> None:
    assert mysql.faults([ONE, {**ONE, "name": "models"}], "256m", 1) == []


@pytest.mark.parametrize(
    ("memory", "connections", "said"),
    [("128m", 100, "mysql_memory is '128m'"), ("1g", 5000, "mysql_connections is 5000")],
)
def test_sizes_that_no_server_works_with_are_refused(
    memory: str, connections: int, said: str
) -> None:
    assert said in "; ".join(mysql.faults([ONE], memory, connections))


def test_an_image_of_mysql_is_given_the_memory_that_it_needs() -> None:
    image = ("mysql:8.4", "a-long-password")
    assert mysql.faults([ONE], "768m", 100, *image) == []
    (said,) = mysql.faults([ONE], "512m", 100, *image)
    assert "mysql_memory is '512m': give 768m or more" in said


def test_an_image_of_mysql_needs_a_password_of_root() -> None:
    assert "mysql_root_password" in "; ".join(mysql.faults([ONE], "1g", 10, "mysql:8.4.0", ""))
    assert mysql.faults([ONE], "1g", 10, "mysql:8.4.0", "p" * 12) == []


def test_text_is_compared_as_it_is_and_the_buffer_leaves_room_for_clients() -> None:
    said = mysql.settings("1g", 100, "utf8mb4_nopad_bin")
    assert "--collation-server=utf8mb4_nopad_bin" in said
    assert "--innodb-buffer-pool-size=409M" in said


def test_an_owner_is_given_everything_in_its_own_databases_and_nothing_else() -> None:
    assert mysql.grants(["mlflow", "models"]) == {"mlflow.*": "ALL", "models.*": "ALL"}


def test_why_an_owner_could_not_be_made_is_told_without_its_password() -> None:
    failed = {"failed": True, "msg": f"near '{ONE['password']}'"}
    result = {"msg": "One or more items failed", "results": [{"failed": False}, failed, failed]}
    assert mysql.told(result, [ONE]) == "near '***'"
    assert mysql.told({"failed": True, "msg": "no server"}, [ONE]) == "no server"
