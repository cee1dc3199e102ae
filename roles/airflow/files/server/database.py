"""Bring Airflow's database to what is declared: its schema, what its key encrypts, and the admin.

A job asks for it before anything starts, and the API server whenever it does: whoever comes first
does it, under a lock of the database. It waits for a database that does not answer yet.

usage: database.py [SECONDS]    how long to wait; without it, for ever
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

SECRETS = Path("/run/secrets")
# the keys that the database may be encrypted with, a line each; a job alone has them
KEPT = Path("/keys/fernet_key")
# who had the inventory's password last, beside them
ADMIN = Path("/keys/admin")
PAUSE = 1.0
LOCK = 7_205_759_404
# tables of Airflow that no model of its core names
OTHERS = ("ab_", "alembic_version", "session", "celery_")


class RefusedError(Exception):
    """Why the database cannot be used, and what to do, in one sentence."""


def say(sentence: str) -> None:
    """Write a line to the log."""
    print(f"database: {sentence}", file=sys.stderr, flush=True)


def secret(name: str) -> str:
    """Return a secret of this container; empty where it has none of that name."""
    path = SECRETS / name
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def reason(error: BaseException) -> str:
    """Return the first line of what a driver said."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return said[0]


def connected(uri: str, patience: float) -> Engine:
    """Return the way to a database that answers; waits for it.

    Raises:
        RefusedError: it did not within `patience` seconds.
    """
    engine = sqlalchemy.create_engine(uri, pool_pre_ping=True)
    deadline, said, url = time.monotonic() + patience, "", engine.url
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
                "the server healthy, and are airflow_database* of the inventory what it was given?"
            )
        time.sleep(PAUSE)


@contextlib.contextmanager
def alone(engine: Engine) -> Iterator[None]:
    """Keep everybody else who asks for the same from the database, for as long as it takes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
        try:
            yield
        finally:
            connection.execute(text(f"SELECT pg_advisory_unlock({LOCK})"))


# --- schema


def revision_of(engine: Engine) -> str:
    """Return the revision of a database; empty where it has none."""
    from alembic.migration import MigrationContext  # noqa: PLC0415 - with Airflow, it takes seconds

    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def migrate(engine: Engine) -> None:
    """Bring a database to the schema of the installed Airflow.

    Raises:
        RefusedError: it is somebody else's, or of a newer Airflow, or a migration failed.
    """
    from airflow.models import import_all_models  # noqa: PLC0415
    from airflow.models.base import Base  # noqa: PLC0415
    from airflow.utils import db  # noqa: PLC0415

    current = revision_of(engine)
    known = {each.revision for each in db._get_script_object().walk_revisions()}
    if current and current not in known:
        raise RefusedError(
            f"Database {engine.url.database} has revision {current}, which this Airflow does not "
            "know: it is of a newer one. Run that version, or bring back a backup that was made "
            "with this one."
        )
    if not current:
        import_all_models()
        names = set(Base.metadata.tables)
        there = inspect(engine).get_table_names()
        if foreign := sorted(n for n in there if n not in names and not n.startswith(OTHERS)):
            raise RefusedError(
                f"Database {engine.url.database} has table {foreign[0]}, which is none of "
                "Airflow's: name an empty database in airflow_database."
            )
    try:
        db.check_migrations(1)
    except TimeoutError:
        say(f"bringing {engine.url.database} from revision {current or 'none'} to today's")
    else:
        return
    try:
        db.upgradedb()
    except SQLAlchemyError as error:
        raise RefusedError(
            f"The migration of {engine.url.database} from revision {current or 'none'} failed: "
            f"{reason(error)}. What had not ended was undone: mend the cause and run again."
        ) from error


# --- what is encrypted


def encrypt_anew() -> None:
    """Have what an earlier key encrypted (connections, variables) encrypted by today's.

    It is one transaction, and what today's key encrypted already stays: interrupted, it may be
    run again.
    """
    new = secret("fernet_key")
    kept = KEPT.read_text(encoding="utf-8").split() if KEPT.exists() else []
    if kept == [new]:
        return
    if kept:
        keys = [new, *(key for key in kept if key != new)]
        # interrupted, some are encrypted by the one and some by the other
        keep(keys)
        # before anything of Airflow looked at its key
        os.environ["AIRFLOW__CORE__FERNET_KEY"] = ",".join(keys)
        from airflow.cli.commands.rotate_fernet_key_command import (  # noqa: PLC0415
            rotate_fernet_key,
        )

        rotate_fernet_key(Namespace(subcommand="rotate-fernet-key"))
        say("what the database keeps encrypted is encrypted by another key now")
    keep([new])


def keep(keys: list[str]) -> None:
    """Note which keys the database may be encrypted with."""
    note(KEPT, "\n".join(keys))


def note(path: Path, content: str) -> None:
    """Write a file of the job's volume whole or not at all."""
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    part.write_text(content, encoding="utf-8")
    part.replace(path)


# --- the admin


def ensure_admin(name: str, password: str) -> None:
    """Have a user with all rights and this password; one that is there keeps all else.

    Who had that before, under another name, loses both, and stays for what a proxy says of him.

    Raises:
        RefusedError: Airflow did not take it.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import (  # noqa: PLC0415
        get_application_builder,
    )

    before = ADMIN.read_text(encoding="utf-8") if ADMIN.exists() else name
    with get_application_builder() as builder:
        give(builder.sm, name, password)
        if before != name and (user := builder.sm.find_user(before)):
            builder.sm.reset_password(user.id, secrets.token_urlsafe())
            user.roles = []
            builder.sm.update_user(user)
            say(f"{before} was the admin before, and has neither its password nor its rights now")
    note(ADMIN, name)


def give(users: Any, name: str, password: str) -> None:  # noqa: ANN401 - Airflow is not here
    """Give a user all rights and a password, where it has not both."""
    role, user = users.find_role("Admin"), users.find_user(name)
    if user is None:
        user = users.add_user(name, name, "of the platform", f"{name}@localhost", role, password)
    elif not users.check_password(name, password):
        users.reset_password(user.id, password)
    elif user.active and role in user.roles:
        return
    if not user:
        raise RefusedError(f"Airflow took no user {name}: see what it says above this line.")
    user.active = True
    if role not in user.roles:
        user.roles.append(role)
    users.update_user(user)
    say(f"{name} has the password of the inventory")


def main(argv: list[str]) -> int:
    """Prepare the database that the secret sql_alchemy_conn names."""
    logging.basicConfig(level=logging.WARNING)
    uri = secret("sql_alchemy_conn")
    try:
        engine = connected(uri, float(argv[0]) if argv else math.inf)
        with alone(engine):
            migrate(engine)
            # only a job has these
            if KEPT.parent.is_dir() and secret("admin_password"):
                encrypt_anew()
                ensure_admin(os.environ["AIRFLOW_ADMIN"], secret("admin_password"))
    except RefusedError as error:
        say(str(error))
    except SQLAlchemyError as error:
        say(f"The database could not be prepared: {reason(error)}. Mend the cause and run again.")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
