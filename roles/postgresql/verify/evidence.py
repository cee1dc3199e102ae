"""Whose databases are whose, and who is let in, read through the server's socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform_verify.evidence import Json, Reader, gather

SERVICE = "postgresql"
SCRAM = "SCRAM-SHA-256$"


def rows(query: str) -> list[tuple[Any, ...]]:
    """Return what the superuser is answered."""
    import psycopg2  # noqa: PLC0415 - there only

    connection = psycopg2.connect(dbname="postgres")
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def databases() -> Json:
    """Map each database to its owner and to the roles that may connect to it, superusers aside."""
    found = rows(
        "SELECT d.datname, pg_get_userbyid(d.datdba), array(SELECT r.rolname::text FROM pg_roles r"
        " WHERE r.rolcanlogin AND NOT r.rolsuper"
        " AND has_database_privilege(r.oid, d.oid, 'CONNECT') ORDER BY 1)"
        " FROM pg_database d WHERE d.datallowconn"
    )
    return {name: {"owner": owner, "reached_by": reached} for name, owner, reached in found}


def roles() -> Json:
    """Map each role that may log in to what it may do beyond that, and how its password is kept."""
    found = rows(
        "SELECT rolname, rolsuper, rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,"
        " rolpassword FROM pg_authid WHERE rolcanlogin"
    )
    return {
        name: {
            "superuser": superuser,
            "powers": powers,
            "kept": "none" if kept is None else "scram" if kept.startswith(SCRAM) else "other",
        }
        for name, superuser, powers, kept in found
    }


def rules() -> list[list[str]]:
    """List connection and method of each rule by which the server lets in."""
    return [list(row) for row in rows("SELECT type, auth_method FROM pg_hba_file_rules")]


def let_in(names: list[str]) -> list[str]:
    """List who is let in over the network with a wrong password, or with none."""
    import psycopg2  # noqa: PLC0415 - there only

    found = []
    for name in names:
        for password in ("wrong", ""):
            try:
                psycopg2.connect(
                    host="127.0.0.1", user=name, password=password, dbname="postgres"
                ).close()
            except psycopg2.OperationalError:
                continue
            found.append(f"{name} with {'a wrong' if password else 'no'} password")
    return found


def of_postgresql(given: Mapping[str, Any]) -> Json:
    """Read whose databases are whose and who is let in."""
    names = ["postgres", "stranger", *sorted(set(given.get("postgresql", {}).values()))]
    return gather(
        {
            "databases": databases,
            "roles": roles,
            "rules": rules,
            "let_in": lambda: let_in(names),
        }
    )


AT_ONCE: dict[str, Reader] = {"postgresql": of_postgresql}
