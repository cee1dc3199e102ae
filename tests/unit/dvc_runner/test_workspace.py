"""What the runner does to its workspace, piece by piece."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import DVC, At, git, repository, state_of


@pytest.fixture
def at(runner: ModuleType, tmp_path: Path) -> At:
    """A workspace with a local remote and no tracking server."""
    return runner.settings(
        {
            "RUNNER_WORKSPACE": str(tmp_path / "workspace"),
            "RUNNER_REMOTE_URL": str(tmp_path / "remote"),
            "RUNNER_DVC": DVC,
        }
    )


# --- setting up


def test_setting_up_twice_changes_nothing(runner: ModuleType, at: At) -> None:
    runner.set_up(at)
    before = state_of(at.workspace)
    runner.set_up(at)
    assert state_of(at.workspace) == before
    assert (at.project / ".git/HEAD").is_file()


def test_a_workspace_of_another_user_is_refused_with_both_uids(
    runner: ModuleType, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.set_up(at)
    owner = at.project.stat().st_uid
    monkeypatch.setattr(runner.os, "getuid", lambda: owner + 1)
    with pytest.raises(runner.RunnerError, match=f"uid {owner} and the runner is uid {owner + 1}"):
        runner.set_up(at)


def test_the_remote_is_named_outside_of_what_git_tracks(
    runner: ModuleType, at: At, tmp_path: Path
) -> None:
    repository(at.project)
    runner.set_up(at)
    git(at.project, "add", "--all")
    tracked = git(at.project, "ls-files")
    assert ".dvc/config" in tracked.splitlines()
    assert "config.local" not in tracked
    shown = runner.call([DVC, "remote", "list"], at.project)
    assert shown.split() == ["platform", str(tmp_path / "remote"), "(default)"]


def test_a_project_without_dvc_is_set_up_even_where_that_was_killed_half_way(
    runner: ModuleType, at: At
) -> None:
    repository(at.project)
    (at.project / ".dvc/cache").mkdir(parents=True)
    (at.project / ".dvc/cache/kept").write_text("1\n")
    runner.set_up(at)
    assert (at.project / ".dvc/cache/kept").exists()
    assert git(at.project, "status", "--porcelain", "-uall").split() == [
        *("??", ".dvc/.gitignore"),
        *("??", ".dvc/config"),
    ]


# --- bringing a snapshot in


def brought(runner: ModuleType, at: At, project: Path) -> str:
    """Take a snapshot of a project into the workspace; returns its id."""
    found = runner.make_snapshot(project, at.workspace / "snapshots")
    runner.write_bundle(found, at.workspace / "project.bundle")
    commit: str = runner.fetch(at, str(at.workspace / "project.bundle"), found["id"])
    assert commit == found["id"]
    return commit


def test_a_snapshot_that_is_there_needs_no_source(
    runner: ModuleType, at: At, tmp_path: Path
) -> None:
    runner.set_up(at)
    commit = brought(runner, at, repository(tmp_path / "project"))
    assert runner.fetch(at, "", commit) == commit


def test_a_snapshot_that_is_missing_is_asked_for(runner: ModuleType, at: At) -> None:
    runner.set_up(at)
    with pytest.raises(runner.RunnerError, match=f"Snapshot {'0' * 40} is not in the workspace"):
        runner.fetch(at, "", "0" * 40)


def test_a_git_address_brings_its_tip(runner: ModuleType, at: At, tmp_path: Path) -> None:
    runner.set_up(at)
    project = repository(tmp_path / "project")
    assert runner.fetch(at, f"file://{project}", "") == git(project, "rev-parse", "HEAD")


def test_an_address_that_does_not_answer_is_named(
    runner: ModuleType, at: At, tmp_path: Path
) -> None:
    runner.set_up(at)
    with pytest.raises(runner.RunnerError, match=r"git fetch at .*no-such"):
        runner.fetch(at, f"file://{tmp_path}/no-such", "")


def test_the_lock_of_the_last_run_stays_when_the_project_changes(
    runner: ModuleType, at: At, tmp_path: Path
) -> None:
    runner.set_up(at)
    project = repository(tmp_path / "project", train__py="1\n")
    first = brought(runner, at, project)
    runner.check_out(at, first, "")
    (at.project / "dvc.lock").write_text("of the run\n")
    runner.record(at, first)
    (project / "train.py").write_text("2\n")
    second = brought(runner, at, project)
    runner.check_out(at, second, first)
    assert (at.project / "dvc.lock").read_text() == "of the run\n"
    assert (at.project / "train.py").read_text() == "2\n"


def test_a_lock_that_the_project_brings_anew_replaces_that_of_the_last_run(
    runner: ModuleType, at: At, tmp_path: Path
) -> None:
    runner.set_up(at)
    project = repository(tmp_path / "project", dvc__lock="first of the project\n")
    first = brought(runner, at, project)
    runner.check_out(at, first, "")
    (at.project / "dvc.lock").write_text("of the run\n")
    runner.record(at, first)
    (project / "dvc.lock").write_text("second of the project\n")
    second = brought(runner, at, project)
    runner.check_out(at, second, first)
    assert (at.project / "dvc.lock").read_text() == "second of the project\n"


def test_what_a_run_changed_in_tracked_files_is_forgotten_with_the_next_snapshot(
    runner: ModuleType, at: At, tmp_path: Path
) -> None:
    runner.set_up(at)
    commit = brought(runner, at, repository(tmp_path / "project", params__yaml="a: 1\n"))
    runner.check_out(at, commit, "")
    runner.override(at.project, {"params.yaml:a": 2})
    runner.record(at, commit)
    assert (at.project / "params.yaml").read_text() == "a: 2\n"
    assert git(at.project, "log", "-1", "--format=%P", "runs") == commit
    runner.check_out(at, commit, commit)
    assert (at.project / "params.yaml").read_text() == "a: 1\n"


def test_lineage_is_that_of_the_project_and_not_of_the_snapshot(
    runner: ModuleType, at: At, tmp_path: Path
) -> None:
    runner.set_up(at)
    project = repository(tmp_path / "project")
    (project / "new.txt").write_text("1\n")
    told = runner.lineage(at, brought(runner, at, project))
    head = git(project, "rev-parse", "HEAD")
    assert told == {"PIPELINE_GIT_COMMIT": head, "PIPELINE_GIT_DIRTY": "true"}


@pytest.mark.parametrize("message", ["a subject", "12", '{"json": "but of somebody else"}', "[]"])
def test_lineage_of_a_fetched_project_is_its_own_commit(
    message: str, runner: ModuleType, at: At
) -> None:
    repository(at.project)
    git(at.project, "commit", "--quiet", "--allow-empty", "-m", message)
    head = git(at.project, "rev-parse", "HEAD")
    told = runner.lineage(at, head)
    assert told == {"PIPELINE_GIT_COMMIT": head, "PIPELINE_GIT_DIRTY": "false"}


# --- parameters

PARAMS = """\
# the model
model:
  kind: tree     # or forest
  depth: null    # no limit
  "quoted": 'yes'
split: 0.2
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """A params.yaml with comments."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return path


def test_a_parameter_is_set_and_every_comment_stays(runner: ModuleType, params: Path) -> None:
    runner.override(params.parent, {"params.yaml:model.depth": 5, "params.yaml:split": 0.3})
    expected = PARAMS.replace("depth: null", "depth: 5").replace("split: 0.2", "split: 0.3")
    assert params.read_text().split() == expected.split()


def test_a_parameter_that_has_its_value_already_does_not_touch_the_file(
    runner: ModuleType, params: Path
) -> None:
    before = state_of(params.parent)
    runner.override(params.parent, {"params.yaml:split": 0.2, "params.yaml:model.depth": None})
    assert state_of(params.parent) == before


def test_a_parameter_without_a_file_is_one_of_params_yaml(runner: ModuleType, params: Path) -> None:
    runner.override(params.parent, {":split": 0.4})
    assert "split: 0.4" in params.read_text()


@pytest.mark.parametrize(
    ("name", "key", "known"),
    [
        ("params.yaml:model.depht", "depht", "kind, depth, quoted"),
        ("params.yaml:modle.depth", "modle", "model, split"),
        ("params.yaml:split.size", "size", "no keys"),
        ("params.yaml:model.depth.more", "more", "no keys"),
    ],
)
def test_an_unknown_parameter_is_refused_with_what_there_is(
    name: str, key: str, known: str, runner: ModuleType, params: Path
) -> None:
    with pytest.raises(runner.RunnerError) as refusal:
        runner.override(params.parent, {name: 1})
    assert f"names {name}, and params.yaml has no {key!r} there (it has {known})" in str(
        refusal.value
    )
    assert params.read_text() == PARAMS


@pytest.mark.parametrize(
    ("names", "has"),
    [
        (["params.yaml:split", "params.yaml:model.depth", ":split"], True),
        (["params.yaml:split", "params.yaml:size"], False),
        (["params.yaml:split.size"], False),
        (["other.yaml:split"], False),
        ([], True),
    ],
)
def test_a_project_has_a_parameter_or_has_not(
    names: list[str], has: bool, runner: ModuleType, params: Path
) -> None:
    assert runner.has_params(params.parent, names) is has


def test_a_missing_parameter_file_is_refused_by_its_name(runner: ModuleType, params: Path) -> None:
    with pytest.raises(runner.RunnerError, match=r"names other\.yaml:a, and .* has no other\.yaml"):
        runner.override(params.parent, {"other.yaml:a": 1})


KEYS = {"source": "c.yaml:in.source", "sha256": "c.yaml:in.sha256"}


def test_a_file_that_was_handed_in_is_read_from_the_inputs_and_checked(runner: ModuleType) -> None:
    asked = runner.data_request("/given/wine.csv", KEYS, {"name": "wine.csv", "sha256": "ab"})
    assert asked == {"c.yaml:in.source": "../inputs/wine.csv", "c.yaml:in.sha256": "ab"}


@pytest.mark.parametrize("data", ["https://example.invalid/wine.csv", "uci"])
def test_an_address_or_a_known_source_is_passed_on_and_clears_the_checksum(
    data: str, runner: ModuleType
) -> None:
    asked = runner.data_request(data, KEYS, {})
    assert asked == {"c.yaml:in.source": data, "c.yaml:in.sha256": ""}


def test_data_stays_until_other_data_is_named(runner: ModuleType) -> None:
    mine = {"c.yaml:source": "mine.csv"}
    state = {"data": mine, "params": {"p:a": 1, **mine}}
    assert runner.effective_params({}, state) == mine
    assert runner.effective_params({"params": {"p:a": 2}}, state) == {"p:a": 2, **mine}
    other = {"c.yaml:source": "other.csv"}
    assert runner.effective_params({"data": other}, state) == other


def test_a_parameter_of_an_earlier_run_does_not_stay(runner: ModuleType) -> None:
    assert runner.effective_params({}, {"params": {"p:a": 1}}) == {}


# --- inputs


def test_a_file_handed_in_is_stored_with_its_size_and_checksum(runner: ModuleType, at: At) -> None:
    content = b"a;b\n" * 700_000
    told = runner.receive(at, "wine.csv", io.BytesIO(content))
    assert told == {
        "name": "wine.csv",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert (at.inputs / "wine.csv").read_bytes() == content


class Breaking(io.BytesIO):
    """A stream that breaks off after its first block."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise ConnectionResetError("broke off")
        return super().read(size)


def test_a_transfer_that_breaks_off_leaves_the_old_file_and_nothing_else(
    runner: ModuleType, at: At
) -> None:
    runner.receive(at, "wine.csv", io.BytesIO(b"old"))
    with pytest.raises(ConnectionResetError):
        runner.receive(at, "wine.csv", Breaking(b"x" * 3_000_000))
    assert state_of(at.inputs).keys() == {"wine.csv"}
    assert (at.inputs / "wine.csv").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["../wine.csv", "/etc/passwd", "a/b", "..", ""])
def test_an_input_can_not_be_placed_elsewhere(name: str, runner: ModuleType, at: At) -> None:
    with pytest.raises(runner.RunnerError, match="plain file name"):
        runner.receive(at, name, io.BytesIO(b"x"))


# --- one run at a time


def test_a_second_run_is_refused_and_says_where_the_first_is(runner: ModuleType, at: At) -> None:
    with runner.only_run(at):
        assert runner.is_running(at)
        with (
            pytest.raises(runner.RunnerError, match=f"under way in {at.workspace}: wait"),
            runner.only_run(at, patience=0),
        ):
            pass
    assert not runner.is_running(at)


def test_a_run_waits_for_somebody_who_only_looked(runner: ModuleType, at: At) -> None:
    at.workspace.mkdir()
    with (at.workspace / "lock").open("w") as look:
        fcntl.flock(look, fcntl.LOCK_EX)
        threading.Timer(0.2, lambda: fcntl.flock(look, fcntl.LOCK_UN)).start()
        with runner.only_run(at):
            assert runner.is_running(at)


def test_locks_of_a_killed_run_are_no_obstacle(runner: ModuleType, at: At) -> None:
    runner.set_up(at)
    locks = [at.project / ".git" / name for name in ("index.lock", "refs/heads/runs.lock")]
    locks += [at.project / ".dvc/tmp" / name for name in ("lock", "rwlock")]
    for path in locks:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    runner.forget_dead_locks(at.project)
    assert not [path for path in locks if path.exists()]


# --- what a run says


def test_progress_gives_each_complete_line_once(runner: ModuleType, at: At) -> None:
    at.workspace.mkdir()
    with runner.only_run(at):
        at.log.write_text("first \N{GRAPES} line\nsecond")
        said = runner.progress(at, 0)
        assert (said["running"], said["lines"], said["result"]) == (
            True,
            ["first \N{GRAPES} line"],
            None,
        )
        with at.log.open("a") as log:
            log.write(" line\nthird")
        said = runner.progress(at, said["offset"])
        assert said["lines"] == ["second line"]
    runner.write_json(at.result, {"ok": True})
    said = runner.progress(at, said["offset"])
    assert (said["running"], said["lines"], said["result"]) == (False, ["third"], {"ok": True})


def test_the_result_of_an_earlier_run_is_forgotten_before_the_next_one(
    runner: ModuleType, at: At
) -> None:
    at.workspace.mkdir()
    runner.write_json(at.result, {"ok": True})
    at.log.write_text("of the earlier run\n")
    runner.clear(at)
    said = runner.progress(at, 0)
    assert (said["lines"], said["result"]) == ([], None)


def test_a_run_that_is_under_way_is_not_forgotten(runner: ModuleType, at: At) -> None:
    at.workspace.mkdir()
    with runner.only_run(at):
        at.log.write_text("of this run\n")
        runner.clear(at)
        assert runner.progress(at, 0)["lines"] == ["of this run"]


# --- the tracking server


class Tracking(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        statuses = {"known": 200, "broken": 500}
        self.send_response(statuses.get(self.path.rpartition("=")[2], 404))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def tracking() -> Iterator[str]:
    """The address of something that answers as a tracking server does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Tracking) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_run_is_looked_up_on_the_tracking_server(
    runner: ModuleType, tracking: str, tmp_path: Path
) -> None:
    at = runner.settings({"RUNNER_WORKSPACE": str(tmp_path), "MLFLOW_TRACKING_URI": tracking})
    assert runner.run_is_tracked(at, "known")
    assert not runner.run_is_tracked(at, "unknown")
    with pytest.raises(runner.RunnerError, match=f"MLFLOW_TRACKING_URI {tracking} answers 500"):
        runner.run_is_tracked(at, "broken")


def test_a_tracking_server_that_is_down_is_named(runner: ModuleType, tmp_path: Path) -> None:
    address = "http://127.0.0.1:9"
    at = runner.settings({"RUNNER_WORKSPACE": str(tmp_path), "MLFLOW_TRACKING_URI": address})
    with pytest.raises(runner.RunnerError, match=f"{address} does not answer .*start it"):
        runner.run_is_tracked(at, "any")


# --- states


@pytest.mark.parametrize("content", ["", "{half", "[]", "3"])
def test_a_damaged_state_counts_as_none(content: str, runner: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(content)
    assert runner.read_json(tmp_path / "state.json") == {}
    assert runner.read_json(tmp_path / "missing.json") == {}


def test_a_state_is_replaced_and_never_written_in_place(runner: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    runner.write_json(path, {"a": 1})
    with path.open() as reader:
        runner.write_json(path, {"a": 2})
        assert json.load(reader) == {"a": 1}
    assert runner.read_json(path) == {"a": 2}
