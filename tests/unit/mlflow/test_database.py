"""The database is brought to the schema of this MLflow, and a file's records are moved whole."""

# MLflow has types for a part of itself only
# mypy: disallow-untyped-calls=False
from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.store.db.utils import _get_latest_schema_revision
from sqlalchemy import Engine
from tests.unit.conftest import load

NAMES = {"FILE": "", "MOVED": ".moved", "COPY": ".copy", "ELSEWHERE": ".elsewhere"}
# MLflow's own queries use what SQLAlchemy will drop
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with what a user of MLflow has: runs of every kind of value, a model with an alias."""
    path = tmp_path_factory.mktemp("recorded") / "mlflow.db"
    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.create_experiment("wine", artifact_location="mlflow-artifacts:/1")
    run = client.create_run(experiment).info.run_id
    client.log_batch(
        run,
        metrics=[
            Metric("rmse", 0.1 + 0.2, 1, 0),
            Metric("rmse", float("nan"), 2, 1),
            Metric("most", float("inf"), 3, 0),
        ],
        params=[Param("A", "upper"), Param("a", "lower"), Param("odd", "ü'\"\\%s 'x'")],
        tags=[RunTag("note", "n" * 5000)],
    )
    client.set_terminated(run)
    client.create_registered_model("wine")
    client.create_model_version("wine", f"runs:/{run}/model", run)
    client.set_registered_model_alias("wine", "champion", "1")
    return path


@pytest.fixture
def database(tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, and the file where it looks for it."""
    module = load("mlflow/files/server/database.py")
    for name, path in NAMES.items():
        monkeypatch.setattr(module, name, tmp_path / f"mlflow.db{path}")
    shutil.copy(recorded, module.FILE)
    return module


@pytest.fixture
def empty(tmp_path: Path, database: ModuleType) -> Iterator[Engine]:
    """An empty database with this MLflow's schema: what a server has differs in its types only."""
    engine = database.engine_of(f"sqlite:///{tmp_path}/target.db")
    database.upgrade(engine)
    yield engine
    engine.dispose()


def rows(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        counted = sqlalchemy.select(sqlalchemy.func.count()).select_from(sqlalchemy.table(table))
        return int(connection.scalar(counted) or 0)


def revision(path: Path, becomes: str = "") -> str:
    with sqlite3.connect(path) as connection:
        if becomes:
            connection.execute("UPDATE alembic_version SET version_num = ?", (becomes,))
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_the_last_revision_is_the_one_that_mlflow_itself_wants(database: ModuleType) -> None:
    known, last = database.revisions()
    assert last == _get_latest_schema_revision()
    assert last in known


def test_a_file_of_this_mlflow_is_left_as_it_is(database: ModuleType) -> None:
    before = database.FILE.read_bytes()
    database.prepare_file()
    assert database.FILE.read_bytes() == before


def test_a_file_of_a_newer_mlflow_is_refused_and_left_as_it_is(database: ModuleType) -> None:
    revision(database.FILE, becomes="0123456789ab")
    before = database.FILE.read_bytes()
    with pytest.raises(database.RefusedError, match=r"0123456789ab.*newer"):
        database.prepare_file()
    assert database.FILE.read_bytes() == before


def test_everything_that_was_recorded_is_moved_and_the_file_is_kept(
    database: ModuleType, empty: Engine, recorded: Path
) -> None:
    database.move(empty, database.revisions()[1])
    client = MlflowClient(str(empty.url))
    experiment = client.get_experiment_by_name("wine")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"A": "upper", "a": "lower", "odd": "ü'\"\\%s 'x'"}
    assert run.data.tags["note"] == "n" * 5000
    assert client.get_metric_history(run.info.run_id, "rmse")[0].value == 0.1 + 0.2
    assert client.get_model_version_by_alias("wine", "champion").version in (1, "1")
    assert database.MOVED.read_bytes() == recorded.read_bytes()
    assert not database.FILE.exists()
    assert not database.COPY.exists()


def test_a_move_that_ended_before_the_file_was_put_aside_ends_when_it_is_made_again(
    database: ModuleType, empty: Engine
) -> None:
    last = database.revisions()[1]
    database.move(empty, last)
    database.MOVED.rename(database.FILE)
    database.move(empty, last)
    assert database.MOVED.exists()
    assert rows(empty, "runs") == 1


def test_a_database_that_holds_other_records_is_not_written_to(
    database: ModuleType, empty: Engine
) -> None:
    MlflowClient(str(empty.url)).create_experiment("theirs")
    with pytest.raises(database.RefusedError, match="holds records of its own"):
        database.move(empty, database.revisions()[1])
    assert rows(empty, "runs") == 0
    assert database.FILE.exists()


def test_a_row_that_changes_on_its_way_undoes_the_move(database: ModuleType, empty: Engine) -> None:
    trigger = (
        "CREATE TRIGGER t AFTER INSERT ON params BEGIN"
        " UPDATE params SET value = 'cut' WHERE key = NEW.key; END"
    )
    with empty.begin() as connection:
        connection.execute(sqlalchemy.text(trigger))
    with pytest.raises(database.RefusedError, match="Not every row of params"):
        database.move(empty, database.revisions()[1])
    assert rows(empty, "runs") == 0
    assert database.FILE.exists()


def test_a_table_that_mlflow_does_not_know_is_not_left_behind_in_silence(
    database: ModuleType, empty: Engine
) -> None:
    with sqlite3.connect(database.FILE) as connection:
        connection.execute("CREATE TABLE plugins (name TEXT)")
        connection.execute("INSERT INTO plugins VALUES ('one')")
    with pytest.raises(database.RefusedError, match="table plugins"):
        database.move(empty, database.revisions()[1])


def test_going_back_to_a_file_that_was_moved_is_refused(database: ModuleType) -> None:
    database.FILE.rename(database.MOVED)
    with pytest.raises(database.RefusedError, match="mlflow_backend"):
        database.prepare_file()


def test_going_back_is_refused_when_the_file_that_was_moved_is_removed(
    database: ModuleType, empty: Engine
) -> None:
    database.move(empty, database.revisions()[1])
    database.MOVED.unlink()
    with pytest.raises(database.RefusedError, match=r"target\.db.*elsewhere"):
        database.prepare_file()
    database.ELSEWHERE.unlink()
    database.prepare_file()


def test_a_move_that_was_killed_at_its_end_is_noted_by_the_next_start(
    database: ModuleType, empty: Engine
) -> None:
    database.FILE.rename(database.MOVED)
    database.prepare_server(str(empty.url), 0)
    assert "target.db" in database.ELSEWHERE.read_text()


def test_a_file_that_is_brought_back_is_used_and_the_note_goes(database: ModuleType) -> None:
    database.ELSEWHERE.write_text("postgresql: mlflow on postgresql")
    database.prepare_file()
    assert not database.ELSEWHERE.exists()


def test_a_new_platform_has_no_file_to_look_at(database: ModuleType) -> None:
    database.FILE.unlink()
    database.prepare_file()
    assert not database.FILE.exists()


def test_the_beginning_of_a_schema_that_cannot_be_gone_on_with_is_made_anew(
    tmp_path: Path, database: ModuleType
) -> None:
    engine = database.engine_of(f"sqlite:///{tmp_path}/killed.db")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE runs (run_uuid TEXT)"))
    database.upgrade(engine)
    assert database.revision_of(engine) == database.revisions()[1]
    engine.dispose()


def made(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))


@pytest.fixture
def bare(tmp_path: Path, database: ModuleType) -> Iterator[Engine]:
    """A database with nothing in it."""
    engine = database.engine_of(f"sqlite:///{tmp_path}/bare.db")
    yield engine
    engine.dispose()


@pytest.mark.parametrize("insert", ["", "INSERT INTO customers VALUES ('one')"])
def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(
    database: ModuleType, bare: Engine, insert: str
) -> None:
    made(bare, "CREATE TABLE customers (name TEXT)", *([insert] if insert else []))
    with pytest.raises(database.RefusedError, match="has table customers, which is none"):
        database.upgrade(bare)
    assert sqlalchemy.inspect(bare).get_table_names() == ["customers"]
    assert rows(bare, "customers") == bool(insert)


def failing(error: Exception, monkeypatch: pytest.MonkeyPatch, database: ModuleType) -> None:
    def fail(_: Engine) -> None:
        raise error

    monkeypatch.setattr(database.schema(), "_upgrade_db", fail)


@pytest.mark.parametrize(
    ("table", "insert"),
    [
        ("webhooks", "(webhook_id, name, url, status) VALUES ('1', 'n', 'u', 'ACTIVE')"),
        ("registered_models", "(name, workspace) VALUES ('prompt', 'default')"),
        ("evaluation_datasets", "(dataset_id, name) VALUES ('d', 'n')"),
        ("secrets", None),
        ("customers", None),
    ],
)
def test_a_failed_migration_removes_no_row_of_anybody(
    database: ModuleType,
    empty: Engine,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    insert: str | None,
) -> None:
    if insert is None:
        # of any columns: what is asked is whether there is a row
        made(empty, f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} (a TEXT)")
        insert = "VALUES ('one')"
    made(empty, "PRAGMA foreign_keys = OFF", f"INSERT INTO {table} {insert}")
    failing(sqlalchemy.exc.OperationalError("", {}, Exception("disk full")), monkeypatch, database)
    with pytest.raises(database.RefusedError, match=f"disk full.*table {table} would"):
        database.upgrade(empty)
    assert rows(empty, table) == 1


def test_a_lost_connection_makes_nothing_anew(
    database: ModuleType, empty: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(empty, "CREATE INDEX ours ON runs (name)")
    gone = sqlalchemy.exc.OperationalError("", {}, Exception("gone"), connection_invalidated=True)
    refused = sqlalchemy.exc.OperationalError("", {}, Exception(2003, "no route"))
    for error in (gone, refused):
        failing(error, monkeypatch, database)
        with pytest.raises(database.RefusedError, match="was lost while"):
            database.upgrade(empty)
    indexes = [each["name"] for each in sqlalchemy.inspect(empty).get_indexes("runs")]
    assert "ours" in indexes


def test_a_target_with_a_row_in_any_table_is_not_written_to(
    database: ModuleType, empty: Engine
) -> None:
    made(empty, "INSERT INTO evaluation_datasets (dataset_id, name) VALUES ('d', 'n')")
    with pytest.raises(database.RefusedError, match="holds records of its own"):
        database.move(empty, database.revisions()[1])
    assert rows(empty, "evaluation_datasets") == 1


def test_a_target_on_which_mlflow_has_only_been_started_is_empty(
    database: ModuleType, empty: Engine
) -> None:
    MlflowClient(str(empty.url)).search_experiments()
    assert rows(empty, "experiments") == 1
    database.move(empty, database.revisions()[1])
    assert rows(empty, "runs") == 1


def test_a_lock_of_mysql_has_a_name_that_it_takes(database: ModuleType) -> None:
    names = {database.lock_name("d" * 63 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 64 for name in names)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ImportError("No module named 'psycopg'"), "mlflow_image has to have psycopg"),
        (sqlalchemy.exc.ProgrammingError("", {}, Exception("no right to")), "no right to"),
    ],
)
def test_what_a_driver_has_against_it_is_one_sentence(
    database: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
) -> None:
    def fail(_: str) -> Engine:
        raise error

    monkeypatch.setattr(database, "engine_of", fail)
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql+psycopg://u:hidden@h/d")
    assert database.main(["0"]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert "hidden" not in said
