"""Bring MLflow's database to the schema of the MLflow that is installed, and move a file into it.

A server asks for it before it starts, and a job where the database is on a server: whoever comes
first does it, under a lock of the database. It waits for a database that does not answer yet.

usage: database.py [SECONDS]    how long to wait; without it, for ever
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy
from alembic.migration import MigrationContext
from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    MetaData,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import OperationalError, SQLAlchemyError

FILE = Path("/data/mlflow.db")
MOVED = FILE.with_name("mlflow.db.moved")
COPY = FILE.with_name("mlflow.db.copy")
# says where the records went, and stays when what was moved is removed
ELSEWHERE = FILE.with_name("mlflow.db.elsewhere")
ROWS = 1000
PAUSE = 1.0
# every row is somebody's, but those that MLflow makes for itself: table -> rows that count
USED = {"experiments": "experiment_id <> 0 OR name <> 'Default'", "workspaces": "name <> 'default'"}
LOCK = 7_205_759_403


class RefusedError(Exception):
    """Why the database cannot be used, and what to do, in one sentence."""


def say(sentence: str) -> None:
    """Write a line to the log."""
    print(f"database: {sentence}", file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """Return the first line of what a driver said."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return said[0]


# --- revisions


def revisions() -> tuple[set[str], str]:
    """Return the revisions that the installed MLflow knows, and the last of them."""
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise RefusedError("This image has no MLflow: name another in mlflow_image.")
    place = Path(spec.origin).parent / "store/db_migrations/versions"
    every = "\n".join(path.read_text(encoding="utf-8") for path in place.glob("*.py"))
    known, before = (
        set(re.findall(rf"^{name}\s*=\s*[\"'](\w+)[\"']", every, re.MULTILINE))
        for name in ("revision", "down_revision")
    )
    (last,) = known - before
    return known, last


def refuse_newer(current: str | None, known: set[str], where: str) -> None:
    """Raise RefusedError where a schema is of an MLflow that came later."""
    if current and current not in known:
        raise RefusedError(
            f"{where} has revision {current}, which this MLflow does not know: it is of a newer "
            "one. Run that version, or bring back a backup that was made with this one."
        )


# --- a file


def revision_of_file(path: Path) -> str | None:
    """Return the revision of a SQLite file."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        try:
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
    return row[0] if row else None


def current_copy(last: str) -> None:
    """Make COPY a copy of the file, in the schema of the installed MLflow."""
    COPY.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(FILE)) as old,
        contextlib.closing(sqlite3.connect(COPY)) as new,
    ):
        old.backup(new)
    if revision_of_file(COPY) != last:
        engine = engine_of(f"sqlite:///{COPY}")
        upgrade(engine)
        engine.dispose()


def prepare_file() -> None:
    """Bring the file to the schema of the installed MLflow: all of it, or it stays as it was."""
    if not FILE.exists():
        if signs := [str(path) for path in (MOVED, ELSEWHERE) if path.exists()]:
            where = f" ({ELSEWHERE.read_text().strip()})" if ELSEWHERE.exists() else ""
            raise RefusedError(
                f"What MLflow had recorded was moved from {FILE} to a database server{where}: set "
                "mlflow_backend in the inventory to that. To begin anew with an empty file, remove "
                f"{' and '.join(signs)}."
            )
        return  # the server makes it
    ELSEWHERE.unlink(missing_ok=True)
    known, last = revisions()
    current = revision_of_file(FILE)
    refuse_newer(current, known, str(FILE))
    if current == last:
        return
    say(f"bringing {FILE} from revision {current} to {last}")
    current_copy(last)
    COPY.replace(FILE)


# --- a server


def schema() -> ModuleType:
    """Return what MLflow itself makes and changes its tables with."""
    # it takes seconds, and most starts need none of it
    from mlflow.store.db import utils  # noqa: PLC0415

    return utils


def engine_of(uri: str) -> Engine:
    """Return SQLAlchemy's way to a database."""
    return sqlalchemy.create_engine(uri, pool_pre_ping=True)


def connected(uri: str, patience: float) -> Engine:
    """Return the way to a database that answers; waits for it.

    Raises:
        RefusedError: it did not within `patience` seconds.
    """
    engine, deadline, said = engine_of(uri), time.monotonic() + patience, ""
    url = engine.url
    while True:
        try:
            with engine.connect():
                return engine
        except OperationalError as error:
            if reason(error) != said:
                said = reason(error)
                say(f"waiting for {url.database} on {url.host}: {said}")
        if time.monotonic() > deadline:
            raise RefusedError(
                f"Database {url.database} on {url.host} does not let {url.username} in: {said}. Is "
                "the server healthy, and are mlflow_backend_* of the inventory what it was given?"
            )
        time.sleep(PAUSE)


def lock_name(database: str) -> str:
    """Return the name of a database's lock: MySQL takes 64 characters, as many as a database's."""
    return f"mlflow schema {hashlib.sha256(database.encode()).hexdigest()[:32]}"


@contextlib.contextmanager
def alone(engine: Engine) -> Iterator[None]:
    """Keep everybody else who asks for the same from the database, for as long as it takes."""
    if engine.dialect.name == "postgresql":
        take, leave = f"SELECT pg_advisory_lock({LOCK})", f"SELECT pg_advisory_unlock({LOCK})"
    else:
        name = f"'{lock_name(engine.url.database or '')}'"
        take, leave = f"SELECT GET_LOCK({name}, 86400)", f"SELECT RELEASE_LOCK({name})"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(take))
        try:
            yield
        finally:
            connection.execute(text(leave))


def revision_of(engine: Engine) -> str | None:
    """Return the revision of a database; None where it has none."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine) -> None:
    """Bring a database to the schema of the installed MLflow.

    Raises:
        RefusedError: the database is somebody else's, or a migration failed; where the database
            undid it, it says so.
    """
    if revision_of(engine) is None and (others := foreign(engine)):
        raise RefusedError(
            f"Database {engine.url.database} has table {others[0]}, which is none of this MLflow's:"
            " name an empty database in mlflow_backend_database."
        )
    try:
        if schema()._is_empty_database(engine):
            schema()._initialize_tables(engine)
        else:
            schema()._upgrade_db(engine)
    except SQLAlchemyError as error:
        if is_lost(error):
            raise RefusedError(
                f"The connection to database {engine.url.database} was lost while its schema was "
                f"changed: {reason(error)}. Run again when the server is back."
            ) from error
        more = next(iter(foreign(engine)), "") or used(engine)
        if not more:
            # the beginning of a schema, from a migration that was killed: there is nothing to lose
            found = MetaData()
            found.reflect(engine)
            found.drop_all(engine)
            schema()._initialize_tables(engine)
            return
        undone = engine.dialect.name == "postgresql"
        raise RefusedError(
            f"The migration of {engine.url.database} from revision {revision_of(engine)} failed: "
            f"{reason(error)}. It was not made anew, for table {more} would have been lost. "
            + (
                "The database undid it: mend the cause and run again."
                if undone
                else "This kind of server cannot undo half a migration, so bring back the backup "
                "from before it, then run again."
            )
        ) from error


def is_lost(error: SQLAlchemyError) -> bool:
    """Tell whether an error is of the way to a database, and says nothing of what is in it."""
    said: tuple[object, ...] = getattr(getattr(error, "orig", None), "args", ())
    # from 2000 on the numbers are those of a client of MySQL
    unreachable = bool(said) and isinstance(said[0], int) and 2000 <= said[0] < 3000  # noqa: PLR2004
    return unreachable or bool(getattr(error, "connection_invalidated", False))


def foreign(engine: Engine) -> list[str]:
    """List the tables of a database that are none of this MLflow's."""
    own = {each.name for each in tables()}
    there = inspect(engine).get_table_names()
    return sorted(name for name in there if name not in own and not name.startswith("alembic_"))


def used(engine: Engine) -> str:
    """Return the first of MLflow's tables in which somebody has recorded anything; '' for none."""
    there = set(inspect(engine).get_table_names())
    with engine.connect() as connection:
        for name in sorted(there & {each.name for each in tables()}):
            rows = select(1).select_from(sqlalchemy.table(name))
            if connection.execute(rows.where(text(USED.get(name, "1 = 1"))).limit(1)).first():
                return name
    return ""


def prepare_server(uri: str, patience: float) -> None:
    """Bring a database to the schema of the installed MLflow, and what the file has into it."""
    engine = connected(uri, patience)
    known, last = revisions()
    where = f"Database {engine.url.database} on {engine.url.host}"
    if MOVED.exists():
        # a move that was killed at its end
        remember(engine)
    if revision_of(engine) == last and not FILE.exists():
        return
    with alone(engine):
        current = revision_of(engine)
        refuse_newer(current, known, where)
        if current != last:
            say(f"bringing {engine.url.database} from revision {current} to {last}")
            upgrade(engine)
        if FILE.exists():
            refuse_newer(revision_of_file(FILE), known, str(FILE))
            move(engine, last)


# --- the move


def remember(engine: Engine) -> None:
    """Leave a note of where the records are, for who goes back to a file."""
    url = engine.url
    ELSEWHERE.write_text(f"{engine.dialect.name}: {url.database} on {url.host}\n", encoding="utf-8")


def tables() -> list[Table]:
    """List MLflow's tables, each after those that it refers to."""
    found: list[Table] = schema().Base.metadata.sorted_tables
    for each in found:
        for column in each.columns:
            if isinstance(column.type, JSON):
                # nothing stays nothing: it would become the word null
                column.type = JSON(none_as_null=True)
    return found


def plain(value: object) -> object:
    """Return a value of a row as every kind of database gives it."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return int(value) if isinstance(value, bool) else value


def counted(connection: Connection, every: list[Table]) -> dict[str, tuple[int, str]]:
    """Map each table to how many rows it has and a hash of them that no order changes."""
    found = {}
    for each in every:
        rows, total = 0, 0
        # of a fixed column order, computed ones too
        for row in connection.execute(select(each).execution_options(yield_per=ROWS)):
            seen = repr([plain(value) for value in row])
            total += int.from_bytes(hashlib.sha256(seen.encode()).digest(), "big")
            rows += 1
        found[each.name] = (rows, f"{total % 2**256:064x}")
    return found


def refuse_unknown_tables(connection: Connection, every: list[Table]) -> None:
    """Raise RefusedError where a file has rows in a table that MLflow does not know."""
    others = set(inspect(connection).get_table_names()) - {each.name for each in every}
    for name in sorted(others - {"alembic_version"}):
        if connection.execute(select(1).select_from(sqlalchemy.table(name)).limit(1)).first():
            raise RefusedError(
                f"{FILE} has rows in table {name}, which is none of this MLflow's and would be "
                "left behind: move or drop it, then run again."
            )


def move(engine: Engine, last: str) -> None:
    """Copy what the file holds into an empty database, compare both, and put the file aside.

    It is one transaction: interrupted, it did nothing, and begins anew.

    Raises:
        RefusedError: the database has records of its own, or did not take every row as it is.
    """
    current_copy(last)
    source, every = engine_of(f"sqlite:///{COPY}"), tables()
    where = f"{engine.url.database} on {engine.url.host}"
    with source.connect() as old:
        refuse_unknown_tables(old, every)
        has = counted(old, every)
        with engine.connect() as new:
            same = counted(new, every) == has if used(engine) else False
        if not same and used(engine):
            raise RefusedError(
                f"Database {where} holds records of its own, and {FILE} holds others: name an "
                "empty database to move them to, or set mlflow_backend back to sqlite. Where those "
                f"of the file are not wanted, rename it to {MOVED.name}."
            )
        if not same:
            say(f"moving {sum(rows for rows, _ in has.values())} rows of {FILE} to {where}")
            with engine.begin() as new:
                copy(old, new, every)
                became = counted(new, every)
                if wrong := [name for name in has if has[name] != became[name]]:
                    raise RefusedError(
                        f"Not every row of {', '.join(wrong)} is in {where} as it was in {FILE}: "
                        "the move was undone and the file is as it was. Report it."
                    )
    source.dispose()
    COPY.unlink()
    for end in ("-wal", "-shm"):
        if (beside := Path(f"{FILE}{end}")).exists():
            beside.replace(f"{MOVED}{end}")
    FILE.replace(MOVED)
    remember(engine)
    report = ", ".join(f"{name} {rows}" for name, (rows, _) in has.items() if rows)
    say(f"moved, counted and compared: {report}; the file is kept as {MOVED}")


def copy(old: Connection, new: Connection, every: list[Table]) -> None:
    """Replace every row of a database by those of another.

    Raises:
        RefusedError: a row does not fit.
    """
    if new.dialect.name == "mysql":
        # the default experiment is number 0, which the server would take for one that it is to give
        new.execute(text("SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"))
    for each in reversed(every):
        new.execute(delete(each))
    for each in every:
        columns = [column for column in each.columns if column.computed is None]
        result = old.execute(select(*columns).execution_options(yield_per=ROWS))
        names = [column.name for column in columns]
        for part in result.partitions(ROWS):
            rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in part]
            try:
                new.execute(insert(each), rows)
            except SQLAlchemyError as error:
                raise RefusedError(
                    f"A row of table {each.name} does not fit into the database: {reason(error)}. "
                    "Nothing was moved; change or delete it with mlflow_backend set to sqlite, "
                    "then run again."
                ) from error
        if new.dialect.name == "postgresql":
            next_numbers(new, each)


def next_numbers(new: Connection, table: Table) -> None:
    """Have the numbers that a table gives go on after those that were copied."""
    for column in table.primary_key:
        given = new.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
        if given:
            most = new.scalar(select(func.max(column)))
            new.execute(select(func.setval(given, (most or 0) + 1, False)))


def main(argv: list[str]) -> int:
    """Prepare the database that MLFLOW_BACKEND_STORE_URI names."""
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    try:
        if uri.startswith("sqlite:"):
            prepare_file()
        else:
            prepare_server(uri, float(argv[0]) if argv else math.inf)
    except RefusedError as error:
        say(str(error))
    except ImportError as error:
        say(
            f"The image has not every package that is needed ({reason(error)}): with a database "
            "server, mlflow_image has to have psycopg for postgresql and pymysql for mysql."
        )
    except SQLAlchemyError as error:
        say(f"The database could not be prepared: {reason(error)}. Mend the cause and run again.")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
