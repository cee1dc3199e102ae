"""What the server is told, and which databases, owners and sizes are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from tests.unit.conftest import load

postgresql = load("postgresql/filter_plugins/postgresql.py")

KNOWN = "correct horse battery"
ONE = {"name": "mlflow", "owner": "mlflow", "password": KNOWN}


def verifier(password: str) -> str:
    """Return what a server keeps of a password, as RFC 5802 makes it."""
    salt = b"sixteen bytes of"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored, server = hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256$4096:{text[0]}${text[1]}:{text[2]}"


def seen(**changed: object) -> list[list[dict[str, Any]]]:
    """Return the answers of a server that has ONE as it is declared, but for what is changed."""
    role = {"rolname": "mlflow", "rolpassword": verifier(KNOWN), "plain": True}
    database = {"datname": "mlflow", "owner": "mlflow", "open": False}
    return [
        [{key: changed.get(key, value) for key, value in role.items()}],
        [{key: changed.get(key, value) for key, value in database.items()}],
    ]


def test_what_is_as_declared_is_left_alone() -> None:
    assert postgresql.wrong_owners([ONE], seen()) == []
    assert postgresql.wrong_databases([ONE], seen()) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"rolname": "somebody"},
        {"rolpassword": verifier("another password")},
        {"rolpassword": None},
        {"rolpassword": "md5" + "0" * 32},
        {"plain": False},
    ],
)
def test_an_owner_who_is_missing_or_otherwise_is_made_again(changed: dict[str, Any]) -> None:
    assert postgresql.wrong_owners([ONE], seen(**changed)) == [ONE]


@pytest.mark.parametrize("changed", [{"datname": "other"}, {"owner": "postgres"}, {"open": True}])
def test_a_database_that_is_missing_foreign_or_open_is_put_right(changed: dict[str, Any]) -> None:
    wrong = postgresql.wrong_databases([ONE], seen(**changed))
    assert wrong == [{"name": "mlflow", "owner": "mlflow"}]


def test_a_database_is_not_taken_from_an_owner_whose_its_tables_would_stay() -> None:
    (told,) = postgresql.owner_faults([ONE], seen(owner="somebody"), "/opt/one/bin/postgresql")
    assert "set the owner back" in told
    assert (
        "/opt/one/bin/postgresql psql mlflow -c"
        """ 'REASSIGN OWNED BY "somebody" TO "mlflow"'"""
    ) in told
    assert KNOWN not in told


@pytest.mark.parametrize("changed", [{}, {"datname": "other"}, {"owner": "postgres"}])
def test_a_database_that_is_nobody_elses_is_not_refused(changed: dict[str, Any]) -> None:
    assert postgresql.owner_faults([ONE], seen(**changed), "") == []


def test_an_owner_of_two_databases_is_looked_at_once() -> None:
    both = [ONE, {**ONE, "name": "models"}]
    assert len(postgresql.wrong_owners(both, [[], []])) == 1


@pytest.mark.parametrize(
    ("databases", "said"),
    [
        ([{**ONE, "name": "Ml-Flow"}], "name 'Ml-Flow' is none"),
        ([{**ONE, "owner": "postgres"}], "owner 'postgres' is none"),
        ([{**ONE, "name": "pg_data"}], "name 'pg_data' is none"),
        ([{**ONE, "password": "short"}], "has 5 characters"),
        ([{**ONE, "password": "pässword pässword"}], "of ASCII"),
        ([ONE, ONE], "lists 'mlflow' twice"),
        ([ONE, {**ONE, "name": "b", "password": "p" * 12}], "another password elsewhere"),
    ],
)
def test_what_the_server_would_not_take_is_refused(
    databases: list[dict[str, Any]], said: str
) -> None:
    told = "; ".join(postgresql.faults(databases, "512m", 100))
    assert said in told
    assert all(each["password"] not in told for each in databases)


@pytest.mark.parametrize(
    ("memory", "connections", "said"),
    [
        ("64m", 100, "postgresql_memory is '64m'"),
        ("much", 100, "postgresql_memory is 'much'"),
        ("1g", 0, "postgresql_connections is 0"),
    ],
)
def test_sizes_that_no_server_works_with_are_refused(
    memory: str, connections: int, said: str
) -> None:
    assert said in "; ".join(postgresql.faults([ONE], memory, connections))


@pytest.mark.parametrize("memory", ["128m", "512m", "2g", "1048576k"])
def test_buffers_and_sorts_of_every_client_fit_into_the_memory_given(memory: str) -> None:
    lines = dict(line.split(" = ") for line in postgresql.settings(memory, 100).splitlines())
    said = {name: value.strip("'") for name, value in lines.items()}
    sizes = {name: int(value[:-2]) for name, value in said.items() if value.endswith("MB")}
    assert sizes["shared_buffers"] + sizes["work_mem"] * 100 + sizes["maintenance_work_mem"] <= (
        postgresql.megabytes(memory) * 1.25
    )
    assert "password_encryption = 'scram-sha-256'\n" in postgresql.settings(memory, 100)
