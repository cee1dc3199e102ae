"""What the server is told, from the few words the inventory says, and what it has against that."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LEAST = 12
NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
RESERVED = ("postgres", "template0", "template1", "public")
MEMORY = re.compile(r"([1-9][0-9]*)([kmg])\Z")
KIB = {"k": 1, "m": 1 << 10, "g": 1 << 20}
# MiB: below it the server starts and cannot work
LEAST_MEMORY = 128
MOST_CONNECTIONS = 1000
VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)\Z")


def megabytes(memory: str) -> int:
    """Return a limit such as 512m or 2g in MiB; 0 where it is none."""
    match = MEMORY.match(memory)
    return int(match[1]) * KIB[match[2]] // 1024 if match else 0


def faults(databases: Sequence[Mapping[str, Any]], memory: str, connections: int) -> list[str]:
    """Say what is wrong with the databases and the size, in sentences that never hold a secret."""
    return [*size_faults(memory, connections), *database_faults(databases)]


def size_faults(memory: str, connections: int) -> Iterator[str]:
    """Say which sizes the server would not work with."""
    if megabytes(memory) < LEAST_MEMORY:
        yield f"postgresql_memory is {memory!r}: give {LEAST_MEMORY}m or more, such as 512m or 2g"
    if not 1 <= connections <= MOST_CONNECTIONS:
        yield f"postgresql_connections is {connections}: give 1 to {MOST_CONNECTIONS}"


def database_faults(databases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say which databases and owners the server would not take."""
    names = [str(each["name"]) for each in databases]
    passwords: dict[str, str] = {}
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"postgresql_databases lists {name!r} twice: merge the two"
    for each in databases:
        where, owner = f"postgresql_databases: {each['name']}", str(each["owner"])
        for kind, name in (("name", str(each["name"])), ("owner", owner)):
            if not NAME.match(name) or name in RESERVED or name.startswith("pg_"):
                yield (
                    f"{where}: {kind} {name!r} is none: use small letters, digits and underscores,"
                    f" 63 at most, no digit first, and none of {', '.join(RESERVED)} or pg_..."
                )
        password = str(each["password"])
        if len(password) < LEAST or not (password.isascii() and password.isprintable()):
            yield (
                f"{where}: the password of {owner} has {len(password)} characters: give {LEAST} or"
                " more of ASCII, or remove it from the inventory to have one generated"
            )
        if passwords.setdefault(owner, password) != password:
            yield f"{where}: {owner} has another password elsewhere in the list: give one"


def settings(memory: str, connections: int) -> str:
    """Return the server's configuration.

    Args:
        memory: what its container may use, such as 512m.
        connections: how many clients there may be at once.
    """
    size = megabytes(memory)
    given = {
        "listen_addresses": "*",
        "unix_socket_directories": "/tmp",  # noqa: S108 - the container's own
        "hba_file": "/config/pg_hba.conf",
        "max_connections": connections,
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "shared_buffers": f"{size // 4}MB",
        "effective_cache_size": f"{size * 5 // 8}MB",
        "maintenance_work_mem": f"{max(16, size // 16)}MB",
        # each sort of each client may take it
        "work_mem": f"{max(1, size // 4 // connections)}MB",
        # compiling a query takes longer than the queries of a tracking server
        "jit": "off",
    }
    return "".join(f"{name} = '{value}'\n" for name, value in given.items())


def is_password_of(verifier: str | None, password: str) -> bool:
    """Tell whether a SCRAM verifier, as the server keeps it, was made from a password."""
    match = VERIFIER.match(verifier or "")
    if not match:
        return False
    salt = base64.b64decode(match[2])
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, int(match[1]))
    key = hmac.digest(salted, b"Server Key", "sha256")
    return hmac.compare_digest(base64.b64encode(key).decode(), match[4])


def wrong_owners(
    databases: Sequence[Mapping[str, Any]], seen: Sequence[Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """List the owners that are not there, have another password, or may do more than an owner."""
    there = {row["rolname"]: row for row in seen[0]}
    wanted = {each["owner"]: dict(each) for each in databases}
    return [
        each
        for owner, each in wanted.items()
        if owner not in there
        or not there[owner]["plain"]
        or not is_password_of(there[owner]["rolpassword"], str(each["password"]))
    ]


def wrong_databases(
    databases: Sequence[Mapping[str, Any]], seen: Sequence[Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """List the databases that are not there, are somebody else's, or are open to everybody."""
    there = {row["datname"]: (row["owner"], row["open"]) for row in seen[1]}
    return [
        {"name": each["name"], "owner": each["owner"]}
        for each in databases
        if there.get(each["name"]) != (each["owner"], False)
    ]


def owner_faults(
    databases: Sequence[Mapping[str, Any]],
    seen: Sequence[Sequence[Mapping[str, Any]]],
    command: str,
) -> list[str]:
    """Say which databases are another owner's, whose tables would stay with that one.

    Args:
        databases: those that are declared.
        seen: what the server has, its roles and its databases.
        command: what runs a program in the server's container.
    """
    there = {row["datname"]: row["owner"] for row in seen[1]}
    return [
        f"postgresql_databases: {each['name']} is to be {each['owner']}'s, and it and its tables"
        f" are {there[each['name']]}'s: set the owner back to that, or give everything that"
        f" {there[each['name']]} owns to {each['owner']} ({command} psql {each['name']} -c"
        f" 'REASSIGN OWNED BY {quoted(there[each['name']])} TO {quoted(each['owner'])}'), then run"
        " again"
        for each in databases
        # who administers the server may have made it by hand
        if there.get(each["name"], "postgres") not in (each["owner"], "postgres")
    ]


def quoted(name: object) -> str:
    """Return a name as SQL takes it, whatever its letters."""
    return '"' + str(name).replace('"', '""') + '"'


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "postgresql_faults": faults,
            "postgresql_owner_faults": owner_faults,
            "postgresql_settings": settings,
            "postgresql_wrong_databases": wrong_databases,
            "postgresql_wrong_owners": wrong_owners,
        }
