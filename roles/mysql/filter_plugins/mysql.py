"""What the server is told, from the few words the inventory says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LEAST = 12
# a grant takes an underscore for any letter, and would reach another's database
DATABASE = re.compile(r"[a-z][a-z0-9]{0,62}\Z")
OWNER = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
RESERVED = ("mysql", "sys", "root", "mariadb", "performance_schema", "information_schema")
MEMORY = re.compile(r"([1-9][0-9]*)([kmg])\Z")
KIB = {"k": 1, "m": 1 << 10, "g": 1 << 20}
# MiB: below it the server starts and cannot work
LEAST_MEMORY = 256
# MySQL itself has 300 before its buffers hold anything
LEAST_MEMORY_OF_IMAGE = 768
MOST_CONNECTIONS = 1000


def megabytes(memory: str) -> int:
    """Return a limit such as 512m or 2g in MiB; 0 where it is none."""
    match = MEMORY.match(memory)
    return int(match[1]) * KIB[match[2]] // 1024 if match else 0


def faults(
    databases: Sequence[Mapping[str, Any]],
    memory: str,
    connections: int,
    image: str = "",
    root_password: str = "",
) -> list[str]:
    """Say what is wrong with the databases and the size, in sentences that never hold a secret."""
    least = LEAST_MEMORY_OF_IMAGE if image else LEAST_MEMORY
    found = [*size_faults(memory, connections, least), *database_faults(databases)]
    if image and len(root_password) < LEAST:
        found.append(
            f"mysql_root_password has {len(root_password)} characters and mysql_image needs one of "
            f"{LEAST} or more: set mysql_root_password"
        )
    return found


def size_faults(memory: str, connections: int, least: int) -> Iterator[str]:
    """Say which sizes the server would not work with, below `least` MiB of memory."""
    if megabytes(memory) < least:
        yield f"mysql_memory is {memory!r}: give {least}m or more, such as {least * 2}m or 2g"
    if not 1 <= connections <= MOST_CONNECTIONS:
        yield f"mysql_connections is {connections}: give 1 to {MOST_CONNECTIONS}"


def database_faults(databases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say which databases and owners the server would not take."""
    names = [str(each["name"]) for each in databases]
    passwords: dict[str, str] = {}
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"mysql_databases lists {name!r} twice: merge the two"
    for each in databases:
        name, owner, password = (str(each[key]) for key in ("name", "owner", "password"))
        where = f"mysql_databases: {name}"
        if not DATABASE.match(name) or name in RESERVED:
            yield f"{where}: name {name!r} is none: use small letters and digits, a letter first"
        if not OWNER.match(owner) or owner in RESERVED:
            yield (
                f"{where}: owner {owner!r} is none: use small letters, digits and underscores, "
                f"32 at most, a letter first, and none of {', '.join(RESERVED)}"
            )
        if len(password) < LEAST or not (password.isascii() and password.isprintable()):
            yield (
                f"{where}: the password of {owner} has {len(password)} characters: give {LEAST} or"
                " more of ASCII, or remove it from the inventory to have one generated"
            )
        if passwords.setdefault(owner, password) != password:
            yield f"{where}: {owner} has another password elsewhere in the list: give one"


def settings(memory: str, connections: int, collation: str) -> list[str]:
    """Return the server's arguments, which MariaDB and MySQL both know.

    Args:
        memory: what its container may use, such as 512m.
        connections: how many clients there may be at once.
        collation: how text is compared where a table does not say.
    """
    given = {
        "max-connections": connections,
        "innodb-buffer-pool-size": f"{megabytes(memory) * 2 // 5}M",
        "character-set-server": "utf8mb4",
        "collation-server": collation,
        # a name server that is slow is nobody's matter here
        "skip-name-resolve": "ON",
        "local-infile": "OFF",
        "default-time-zone": "+00:00",
    }
    return [*(f"--{name}={value}" for name, value in given.items()), "--skip-log-bin"]


def grants(databases: Sequence[str]) -> dict[str, str]:
    """Return all rights on everything in these databases, as community.mysql has it."""
    return {f"{name}.*": "ALL" for name in databases}


def told(failed: Mapping[str, Any], databases: Sequence[Mapping[str, Any]]) -> str:
    """Return what a task that failed said, or each part of its loop, without a password."""
    parts = [each for each in failed.get("results") or [failed] if each.get("failed")]
    text = "; ".join(dict.fromkeys(str(each.get("msg")) for each in parts))
    for password in {str(each["password"]) for each in databases} - {""}:
        text = text.replace(password, "***")
    return text


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "mysql_faults": faults,
            "mysql_grants": grants,
            "mysql_settings": settings,
            "mysql_told": told,
        }
