"""Whose databases are whose, and who is let in, read through the server's socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform_verify.evidence import Json, Reader, gather

SERVICE = "mysql"
SOCKET = "/tmp/mysqld.sock"  # noqa: S108 - the container's own


def rows(query: str) -> list[tuple[Any, ...]]:
    """Return what the user of the server is answered."""
    import pymysql  # noqa: PLC0415 - there only

    connection = pymysql.connect(unix_socket=SOCKET, user="mysql")
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def name_of(grantee: str) -> str:
    """Return the user of a grantee such as 'mlflow'@'%'; one of the machine alone has its host."""
    user, _, host = grantee.replace("'", "").rpartition("@")
    return user if host == "%" else f"{user}@{host}"


def grants() -> Json:
    """Map each user to the databases that it reaches."""
    found: Json = {}
    query = "SELECT DISTINCT GRANTEE, TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES"
    for grantee, database in rows(query):
        found.setdefault(name_of(grantee), []).append(database)
    return found


def powers() -> list[str]:
    """List the users that may do something in every database."""
    query = (
        "SELECT DISTINCT GRANTEE FROM information_schema.USER_PRIVILEGES"
        " WHERE PRIVILEGE_TYPE <> 'USAGE'"
    )
    return sorted(name_of(row[0]) for row in rows(query))


def let_in(names: list[str]) -> list[str]:
    """List who is let in over the network with a wrong password, or with none."""
    import pymysql  # noqa: PLC0415 - there only

    found = []
    for name in names:
        for password in ("wrong", ""):
            try:
                pymysql.connect(host="127.0.0.1", user=name, password=password).close()
            except pymysql.OperationalError:
                continue
            found.append(f"{name} with {'a wrong' if password else 'no'} password")
    return found


def of_mysql(given: Mapping[str, Any]) -> Json:
    """Read whose databases are whose and who is let in."""
    names = ["root", "mysql", "stranger", *sorted(set(given.get("mysql", {}).values()))]
    return gather(
        {
            "databases": lambda: sorted(row[0] for row in rows("SHOW DATABASES")),
            "grants": grants,
            "powers": powers,
            "let_in": lambda: let_in(names),
        }
    )


AT_ONCE: dict[str, Reader] = {"mysql": of_mysql}
