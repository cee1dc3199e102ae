"""What the runner does to its workspace, piece by piece."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
import yaml
from tests.unit.conftest import ROLES, load

from dvc_runner.command_line import main
from dvc_runner.git import RunnerError, TimeLimitError
from dvc_runner.limits import time_limit
from dvc_runner.lock import is_running, only_run
from dvc_runner.parameters import data_request, effective_params, has_params, override
from dvc_runner.remote import missing_in_remote, require_remote, s3_of
from dvc_runner.run import progress, run, run_and_report
from dvc_runner.settings import Settings, settings
from dvc_runner.snapshot import make_snapshot, write_bundle
from dvc_runner.state import read_json, write_json
from dvc_runner.tracking import run_is_tracked
from dvc_runner.turns import KEPT, STALE_SECONDS, ask, is_alive, turn
from dvc_runner.workspace import (
    check_out,
    fetch,
    forget_dead_locks,
    forget_inputs,
    lineage,
    receive,
    record,
    set_up,
)

from .conftest import DVC, git, repository, state_of


@pytest.fixture
def at(tmp_path: Path) -> Settings:
    """A workspace with a local remote and no tracking server."""
    return settings(
        {
            "RUNNER_WORKSPACE": str(tmp_path / "workspace"),
            "RUNNER_REMOTE_URL": str(tmp_path / "remote"),
            "RUNNER_DVC": DVC,
        }
    )


# --- setting up


def test_setting_up_twice_changes_nothing(at: Settings) -> None:
    set_up(at)
    before = state_of(at.workspace)
    set_up(at)
    assert state_of(at.workspace) == before
    assert (at.project / ".git/HEAD").is_file()


def test_a_workspace_of_another_user_is_refused_with_both_uids(
    at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(at)
    owner = at.project.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(RunnerError, match=f"uid {owner} and the runner is uid {owner + 1}"):
        set_up(at)


def dvc(at: Path, *words: str) -> str:
    """Ask DVC itself."""
    return subprocess.run([DVC, *words], cwd=at, capture_output=True, text=True, check=True).stdout


def test_the_remote_is_named_outside_of_what_git_tracks(at: Settings, tmp_path: Path) -> None:
    repository(at.project)
    set_up(at)
    git(at.project, "add", "--all")
    tracked = git(at.project, "ls-files")
    assert ".dvc/config" in tracked.splitlines()
    assert "config.local" not in tracked
    shown = dvc(at.project, "remote", "list")
    assert shown.split() == ["platform", str(tmp_path / "remote"), "(default)"]


def test_the_keys_of_the_platforms_bucket_are_with_its_remote_and_in_no_stages_environment(
    at: Settings, tmp_path: Path
) -> None:
    keys = tmp_path / "s3_credentials"
    keys.write_text("[default]\naws_access_key_id = runner\naws_secret_access_key = 50%/of=it\n")
    s3 = replace(
        at,
        remote_url="s3://dvc-storage",
        remote_endpoint="http://minio:9000",
        remote_credentials=str(keys),
    )
    repository(s3.project)
    set_up(s3)
    shown = dvc(s3.project, "config", "--local", "--list").split()
    settings_of_it = {row for row in shown if row.startswith("remote.platform.")}
    assert settings_of_it == {
        "remote.platform.url=s3://dvc-storage",
        "remote.platform.endpointurl=http://minio:9000",
        "remote.platform.region=us-east-1",
        "remote.platform.access_key_id=runner",
        "remote.platform.secret_access_key=50%/of=it",
    }
    assert (s3.project / ".dvc/config.local").stat().st_mode & 0o077 == 0
    declared = yaml.safe_load((ROLES / "dvc_runner/vars/main.yml").read_text())
    names = declared["__dvc_runner_environment"]
    assert [name for name in names if name.startswith("AWS_")] == ["AWS_CA_BUNDLE"]


def test_what_a_project_says_to_aws_is_not_said_to_the_platforms_bucket(
    at: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {
        "AWS_PROFILE": "team",
        "AWS_ENDPOINT_URL_S3": "http://theirs",
        "AWS_MAX_ATTEMPTS": "x",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/ca.crt")
    keys = tmp_path / "s3_credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    client, _, _ = s3_of(replace(at, remote_url="s3://ours", remote_credentials=str(keys)))
    assert client.meta.endpoint_url == "https://s3.amazonaws.com"
    assert theirs.items() <= os.environ.items()
    monkeypatch.setenv("RUNNER_REMOTE_ENDPOINT", "http://minio:9000")
    monkeypatch.setenv("RUNNER_REMOTE_CREDENTIALS", str(keys))
    evidence = load("dvc_runner/verify/evidence.py")
    with pytest.MonkeyPatch.context() as kept:
        kept.setattr(os, "environ", {**os.environ})
        evidence.as_the_remote()
        left = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert left == {
        "AWS_CA_BUNDLE": "/ca.crt",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": "http://minio:9000",
        "AWS_SHARED_CREDENTIALS_FILE": str(keys),
    }


def test_a_project_without_dvc_is_set_up_even_where_that_was_killed_half_way(at: Settings) -> None:
    repository(at.project)
    (at.project / ".dvc/cache").mkdir(parents=True)
    (at.project / ".dvc/cache/kept").write_text("1\n")
    set_up(at)
    assert (at.project / ".dvc/cache/kept").exists()
    assert git(at.project, "status", "--porcelain", "-uall").split() == [
        *("??", ".dvc/.gitignore"),
        *("??", ".dvc/config"),
    ]


# --- bringing a snapshot in


def brought(at: Settings, project: Path) -> str:
    """Take a snapshot of a project into the workspace; returns its id."""
    found = make_snapshot(project, at.workspace / "snapshots")
    write_bundle(found, at.workspace / "project.bundle")
    commit: str = fetch(at, str(at.workspace / "project.bundle"), found["id"])
    assert commit == found["id"]
    return commit


def test_a_snapshot_that_is_there_needs_no_source(at: Settings, tmp_path: Path) -> None:
    set_up(at)
    commit = brought(at, repository(tmp_path / "project"))
    assert fetch(at, "", commit) == commit


def test_a_snapshot_that_is_missing_is_asked_for(at: Settings) -> None:
    set_up(at)
    with pytest.raises(RunnerError, match=f"Snapshot {'0' * 40} is not in the workspace"):
        fetch(at, "", "0" * 40)


def test_a_bundle_that_is_not_there_is_named(at: Settings, tmp_path: Path) -> None:
    set_up(at)
    with pytest.raises(RunnerError, match=r"git fetch at .*no-such.bundle"):
        fetch(at, f"{tmp_path}/no-such.bundle", "")


def test_the_lock_of_the_last_run_stays_when_the_project_changes(
    at: Settings, tmp_path: Path
) -> None:
    set_up(at)
    project = repository(tmp_path / "project", train__py="1\n")
    first = brought(at, project)
    check_out(at, first, "")
    (at.project / "dvc.lock").write_text("of the run\n")
    record(at, first)
    (project / "train.py").write_text("2\n")
    second = brought(at, project)
    check_out(at, second, first)
    assert (at.project / "dvc.lock").read_text() == "of the run\n"
    assert (at.project / "train.py").read_text() == "2\n"


def test_a_lock_that_the_project_brings_anew_replaces_that_of_the_last_run(
    at: Settings, tmp_path: Path
) -> None:
    set_up(at)
    project = repository(tmp_path / "project", dvc__lock="first of the project\n")
    first = brought(at, project)
    check_out(at, first, "")
    (at.project / "dvc.lock").write_text("of the run\n")
    record(at, first)
    (project / "dvc.lock").write_text("second of the project\n")
    second = brought(at, project)
    check_out(at, second, first)
    assert (at.project / "dvc.lock").read_text() == "second of the project\n"


def test_what_a_run_changed_in_tracked_files_is_forgotten_with_the_next_snapshot(
    at: Settings, tmp_path: Path
) -> None:
    set_up(at)
    commit = brought(at, repository(tmp_path / "project", params__yaml="a: 1\n"))
    check_out(at, commit, "")
    override(at.project, {"params.yaml:a": 2})
    record(at, commit, params=["params.yaml:a"])
    assert (at.project / "params.yaml").read_text() == "a: 2\n"
    assert git(at.project, "log", "-1", "--format=%P", "runs") == commit
    check_out(at, commit, commit)
    assert (at.project / "params.yaml").read_text() == "a: 1\n"


def test_lineage_is_that_of_the_project_and_not_of_the_snapshot(
    at: Settings, tmp_path: Path
) -> None:
    set_up(at)
    project = repository(tmp_path / "project")
    (project / "new.txt").write_text("1\n")
    told = lineage(at, brought(at, project))
    head = git(project, "rev-parse", "HEAD")
    assert told == {"PIPELINE_GIT_COMMIT": head, "PIPELINE_GIT_DIRTY": "true"}


@pytest.mark.parametrize("message", ["a subject", "12", '{"json": "but of somebody else"}', "[]"])
def test_lineage_of_a_fetched_project_is_its_own_commit(message: str, at: Settings) -> None:
    repository(at.project)
    git(at.project, "commit", "--quiet", "--allow-empty", "-m", message)
    head = git(at.project, "rev-parse", "HEAD")
    told = lineage(at, head)
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


def test_a_parameter_is_set_and_every_comment_stays(params: Path) -> None:
    override(params.parent, {"params.yaml:model.depth": 5, "params.yaml:split": 0.3})
    expected = PARAMS.replace("depth: null", "depth: 5").replace("split: 0.2", "split: 0.3")
    assert params.read_text().split() == expected.split()


def test_a_parameter_that_has_its_value_already_does_not_touch_the_file(params: Path) -> None:
    before = state_of(params.parent)
    override(params.parent, {"params.yaml:split": 0.2, "params.yaml:model.depth": None})
    assert state_of(params.parent) == before


def test_a_parameter_without_a_file_is_one_of_params_yaml(params: Path) -> None:
    override(params.parent, {":split": 0.4})
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
    name: str, key: str, known: str, params: Path
) -> None:
    with pytest.raises(RunnerError) as refusal:
        override(params.parent, {name: 1})
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
def test_a_project_has_a_parameter_or_has_not(names: list[str], has: bool, params: Path) -> None:
    assert has_params(params.parent, names) is has


def test_a_missing_parameter_file_is_refused_by_its_name(params: Path) -> None:
    with pytest.raises(RunnerError, match=r"names other\.yaml:a, and .* has no other\.yaml"):
        override(params.parent, {"other.yaml:a": 1})


FILES = {
    "toml": "# the model\n[model]\ndepth = 3 # no more\n",
    "json": '{"model": {"depth": 3}}\n',
    "py": "# the model\nclass model:\n    depth = 3  # no more\n",
}


@pytest.mark.parametrize("kind", FILES)
def test_a_parameter_is_set_wherever_dvc_reads_one(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"params.{kind}"
    path.write_text(FILES[kind])
    override(tmp_path, {f"params.{kind}:model.depth": 5})
    assert path.read_text().strip() == FILES[kind].replace("3", "5").strip()
    assert has_params(tmp_path, [f"params.{kind}:model.depth"])
    with pytest.raises(RunnerError, match=rf"params\.{kind} has no 'width' there"):
        override(tmp_path, {f"params.{kind}:model.width": 5})


def test_a_value_that_dvc_can_not_write_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "params.py"
    path.write_text('kind = "tree"\n')
    with pytest.raises(RunnerError, match=r"sets params\.py:kind to 'forest', and DVC can not"):
        override(tmp_path, {"params.py:kind": "forest"})
    assert path.read_text() == 'kind = "tree"\n'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("params.ini", "a = 1\n", "only parameters in .yaml, .yml, .json, .toml, .py files can"),
        ("params.toml", "a = = 1\n", "The project's params.toml is not readable"),
        ("params.yaml", "<<<<<<< a\na: [\n", "The project's params.yaml is not readable"),
    ],
)
def test_a_file_that_holds_no_parameters_is_refused_in_a_sentence(
    name: str, content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RunnerError) as refusal:
        override(tmp_path, {f"{name}:a": 2})
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


KEYS = {"source": "c.yaml:in.source", "sha256": "c.yaml:in.sha256"}


def test_a_file_that_was_handed_in_is_read_from_the_inputs_and_checked() -> None:
    asked = data_request("/given/wine.csv", KEYS, {"name": "wine.csv", "sha256": "ab"})
    assert asked == {"c.yaml:in.source": "../inputs/wine.csv", "c.yaml:in.sha256": "ab"}


@pytest.mark.parametrize("data", ["https://example.invalid/wine.csv", "uci"])
def test_an_address_or_a_known_source_is_passed_on_and_clears_the_checksum(data: str) -> None:
    asked = data_request(data, KEYS, {})
    assert asked == {"c.yaml:in.source": data, "c.yaml:in.sha256": ""}


def test_data_stays_until_other_data_is_named() -> None:
    mine = {"c.yaml:source": "mine.csv"}
    state = {"data": mine, "params": {"p:a": 1, **mine}}
    assert effective_params({}, state) == mine
    assert effective_params({"params": {"p:a": 2}}, state) == {"p:a": 2, **mine}
    other = {"c.yaml:source": "other.csv"}
    assert effective_params({"data": other}, state) == other


@pytest.mark.parametrize("name", ["params.yaml:source", ":source", "source"])
def test_a_parameter_given_now_that_names_the_data_beats_what_is_remembered(name: str) -> None:
    remembered = {"params.yaml:source": "mine.csv", "params.yaml:sha256": "ab"}
    assert effective_params({"params": {name: "uci"}}, {"data": remembered}) == {name: "uci"}
    given = {"params.yaml:source": "new.csv", "params.yaml:sha256": "cd"}
    both = effective_params({"params": {name: "uci"}, "data": given}, {"data": remembered})
    assert both["params.yaml:source"] == "new.csv"


def test_a_parameter_of_an_earlier_run_does_not_stay() -> None:
    assert effective_params({}, {"params": {"p:a": 1}}) == {}


# --- inputs


def test_a_file_handed_in_is_stored_with_its_size_and_checksum(at: Settings) -> None:
    content = b"a;b\n" * 700_000
    told = receive(at, "wine.csv", io.BytesIO(content))
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


def test_a_transfer_that_breaks_off_leaves_the_old_file_and_nothing_else(at: Settings) -> None:
    receive(at, "wine.csv", io.BytesIO(b"old"))
    with pytest.raises(ConnectionResetError):
        receive(at, "wine.csv", Breaking(b"x" * 3_000_000))
    assert state_of(at.inputs).keys() == {"wine.csv"}
    assert (at.inputs / "wine.csv").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["../wine.csv", "/etc/passwd", "a/b", "..", ""])
def test_an_input_can_not_be_placed_elsewhere(name: str, at: Settings) -> None:
    with pytest.raises(RunnerError, match="plain file name"):
        receive(at, name, io.BytesIO(b"x"))


# --- one run at a time


def test_a_second_run_is_refused_and_says_where_the_first_is(at: Settings) -> None:
    with only_run(at):
        assert is_running(at)
        with (
            pytest.raises(RunnerError, match=f"under way in {at.workspace}: wait"),
            only_run(at, patience=0),
        ):
            pass
    assert not is_running(at)


def test_a_run_waits_for_somebody_who_only_looked(at: Settings) -> None:
    at.workspace.mkdir()
    with (at.workspace / "lock").open("w") as look:
        fcntl.flock(look, fcntl.LOCK_EX)
        threading.Timer(0.2, lambda: fcntl.flock(look, fcntl.LOCK_UN)).start()
        with only_run(at):
            assert is_running(at)


def test_locks_of_a_killed_run_are_no_obstacle(at: Settings) -> None:
    set_up(at)
    locks = [at.project / ".git" / name for name in ("index.lock", "refs/heads/runs.lock")]
    locks += [at.project / ".dvc/tmp" / name for name in ("lock", "rwlock")]
    for path in locks:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    forget_dead_locks(at.project)
    assert not [path for path in locks if path.exists()]


# --- what a run says


def test_progress_gives_each_complete_line_once(at: Settings) -> None:
    at.workspace.mkdir()
    with only_run(at):
        at.log.write_text("first \N{GRAPES} line\nsecond")
        said = progress(at, 0)
        assert (said["running"], said["lines"], said["result"]) == (
            True,
            ["first \N{GRAPES} line"],
            None,
        )
        with at.log.open("a") as log:
            log.write(" line\nthird")
        said = progress(at, said["offset"])
        assert said["lines"] == ["second line"]
    write_json(at.result, {"ok": True})
    said = progress(at, said["offset"])
    assert (said["running"], said["lines"], said["result"]) == (False, ["third"], {"ok": True})


# --- requests


def asked(at: Settings, name: str, **request: object) -> Settings:
    """Keep a request under a name."""
    mine = replace(at, asked=name)
    ask(mine, request)
    return mine


def test_a_request_is_kept_with_a_log_and_a_result_of_its_own(at: Settings) -> None:
    first, second = asked(at, "a1", force=True), asked(at, "b2", force=False)
    assert (read_json(first.request), read_json(second.request)) == (
        {"force": True},
        {"force": False},
    )
    first.log.write_text("of the first\n")
    write_json(first.result, {"ok": True})
    assert progress(first, 0)["lines"] == ["of the first"]
    assert progress(first, 0)["result"] == {"ok": True}
    assert (progress(second, 0)["lines"], progress(second, 0)["result"]) == ([], None)


def test_requests_have_their_turn_in_the_order_they_came(at: Settings) -> None:
    names = ["c0", "b1", "a2"]
    said: dict[str, list[str]] = {name: [] for name in names}
    for number, name in enumerate(names):
        os.utime(asked(at, name).request, (number + 1, number + 1))
    served = []

    def serve(name: str) -> None:
        with turn(replace(at, asked=name), said[name].append):
            served.append(name)
            if name == "c0":
                time.sleep(1.5)
        write_json(replace(at, asked=name).result, {"ok": True})

    threads = [threading.Thread(target=serve, args=(name,)) for name in names]
    threads[0].start()
    while not served:
        time.sleep(0.01)
    for thread in reversed(threads[1:]):
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert served == names
    assert said["c0"] == []
    assert said["b1"][0].startswith("Waiting for the run that began at ")
    assert "and 1 more that came before" in "".join(said["a2"])


def test_a_request_whose_process_was_killed_holds_nobody_up(at: Settings) -> None:
    asked(at, "a1")
    with turn(asked(at, "b2"), print):
        assert is_alive(replace(at, asked="b2").request)
        assert not is_alive(replace(at, asked="a1").request)


def test_a_request_is_served_once(at: Settings) -> None:
    with (
        pytest.raises(RunnerError, match=r"Request a1 is not in .*: ask again"),
        turn(replace(at, asked="a1"), print),
    ):
        pass
    mine = asked(at, "a1")
    with (
        turn(mine, print),
        pytest.raises(RunnerError, match="a1 is served already"),
        turn(mine, print),
    ):
        pass


def test_old_requests_are_cleaned_away_and_live_ones_are_not(at: Settings) -> None:
    for number in range(KEPT + 5):
        write_json(asked(at, f"{number:x}").result, {"ok": True})
    assert len(list(at.requests.iterdir())) == KEPT + 1
    old = time.time() - STALE_SECONDS - 1
    with turn(asked(at, "abc"), print):
        for path in at.requests.iterdir():
            os.utime(path, (old, old))
        asked(at, "def")
        assert {path.name for path in at.requests.iterdir()} == {"abc", "def"}
        # without a result it may still be handed over
        os.utime(at.requests / "def", (old, old))
        asked(at, "fed")
        assert {path.name for path in at.requests.iterdir()} == {"abc", "def", "fed"}


def test_what_a_request_to_come_names_is_not_cleaned_away(at: Settings) -> None:
    set_up(at)
    for name in ("0123456789abcdef/mine.csv", "fedcba9876543210/old.csv", "abc.bundle", "d.bundle"):
        receive(at, name, io.BytesIO(b"1"))
    asked(
        at, "a1", data={"c:source": "../inputs/0123456789abcdef/mine.csv"}, source="in/abc.bundle"
    )
    (at.inputs / ".part-of-another").mkdir()
    forget_inputs(at, {})
    assert sorted(path.name for path in at.inputs.iterdir()) == [
        *(".part-of-another", "0123456789abcdef", "abc.bundle"),
    ]


# --- the remote


class Bucket(BaseHTTPRequestHandler):
    """What S3 answers for a bucket called after its answer."""

    def do_GET(self) -> None:
        code = self.path.split("/")[1].partition("?")[0]
        status = {"there": 200, "NoSuchBucket": 404}.get(code, 403)
        body = f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode()
        if status == 200:
            body = b"<ListBucketResult/>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of something that answers as S3 does."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with served(Bucket) as address:
        yield address


def remote(at: Settings, url: str, endpoint: str) -> Settings:
    """The same workspace with a remote on S3, and no DVC that could be called."""
    return replace(at, remote_url=url, remote_endpoint=endpoint, dvc="/nonexistent")


@pytest.mark.parametrize("prefix", ["", "/below/it"])
def test_a_bucket_that_can_be_listed_is_a_remote(store: str, prefix: str, at: Settings) -> None:
    require_remote(remote(at, f"s3://there{prefix}", store))
    require_remote(at)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("NoSuchBucket", r"does not exist \(NoSuchBucket\): make it there, or correct"),
        ("InvalidAccessKeyId", r"refuses \(InvalidAccessKeyId: said so\): set dvc_runner_s3_acc"),
        ("AccessDenied", r"refuses \(AccessDenied: said so\): set dvc_runner_s3_access_key"),
    ],
)
def test_a_run_begins_with_whether_its_outputs_can_be_pushed(
    answer: str, said: str, store: str, at: Settings
) -> None:
    write = {"done": False, "data": {"a": "b"}}
    at.workspace.mkdir()
    write_json(at.state, write)
    with pytest.raises(RunnerError, match=f"Bucket {answer} at {store} {said}"):
        run(remote(at, f"s3://{answer}", store), {"snapshot": "none"})
    assert read_json(at.state) == write


def test_a_key_that_is_refused_while_outputs_are_looked_for_is_named_too(
    store: str, at: Settings
) -> None:
    with pytest.raises(RunnerError, match=r"Bucket AccessDenied at .* refuses .*set dvc_runner_s3"):
        missing_in_remote(remote(at, "s3://AccessDenied", store), ["ab12"])
    assert missing_in_remote(remote(at, "s3://NoSuchBucket", store), ["ab12"]) == ["ab12"]
    assert missing_in_remote(remote(at, "s3://there", store), ["ab12"]) == []


@pytest.mark.usefixtures("store")
def test_a_remote_that_is_down_is_named(at: Settings) -> None:
    address = "http://127.0.0.1:9"
    with pytest.raises(RunnerError, match=f"Bucket there at {address} does not answer .*start it"):
        require_remote(remote(at, "s3://there", address))


class Pages(BaseHTTPRequestHandler):
    """A bucket of many objects, listed as S3 does; counts what it is asked."""

    asked = 0
    keys = [f"below/files/md5/{number:05x}" for number in range(20_000)]  # noqa: RUF012

    def do_GET(self) -> None:
        type(self).asked += 1
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("continuation-token", ["0"])[0])
        page = self.keys[start : start + 1000]
        rest = start + 1000 < len(self.keys)
        more = f"<NextContinuationToken>{start + 1000}</NextContinuationToken>" if rest else ""
        entries = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in page)
        body = (
            f"<ListBucketResult><IsTruncated>{str(rest).lower()}</IsTruncated>{more}{entries}"
            "</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.mark.usefixtures("store")
def test_for_many_objects_the_remote_is_asked_a_thousand_at_a_time(at: Settings) -> None:
    wanted = [f"files/md5/{number:05x}" for number in range(20_001)]
    with served(Pages) as address:
        lacking = missing_in_remote(remote(at, "s3://there/below", address), wanted)
    assert lacking == ["files/md5/04e20"]
    assert Pages.asked == 20


# --- limits


def test_a_run_that_takes_too_long_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    began, left = time.monotonic(), tmp_path / "left"
    stubborn = f"trap '' TERM; (sleep 30; touch {left}) & echo; wait; sleep 30"
    with (
        pytest.raises(TimeLimitError, match="longer than dvc_runner_timeout, 1 seconds"),
        time_limit(1),
    ):
        subprocess.run(["sh", "-c", stubborn], check=False, capture_output=True)
    assert time.monotonic() - began < 15
    assert not psutil.Process().children(recursive=True)


def test_a_run_that_ends_in_time_is_not_stopped_later() -> None:
    with time_limit(1):
        pass
    time.sleep(1.2)
    with time_limit(0):
        time.sleep(0.1)


def test_a_full_disk_is_said_in_a_sentence_and_the_result_is_written(
    at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dvc_runner.run.run", full)
    assert run_and_report(at, {"snapshot": ""}) == 1
    result = read_json(at.result)
    assert result["ok"] is False
    assert result["error"].startswith(f"The disk under {at.workspace} is full: free some of it")
    assert not (at.workspace / "reserve").exists()
    monkeypatch.setenv("RUNNER_WORKSPACE", str(at.workspace))
    set_up(at)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(read=full)))
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    assert main(["receive", "wine.csv"]) == 1
    assert errors.getvalue().startswith(f"The disk under {at.workspace} is full")


# --- the tracking server


class Tracking(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        statuses = {"known": 200, "broken": 500}
        if self.path.endswith("=private"):
            bearer = self.headers.get("Authorization") == "Bearer t0ken"
            statuses["private"] = 200 if bearer else 401
        self.send_response(statuses.get(self.path.rpartition("=")[2], 404))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def tracking() -> Iterator[str]:
    """The address of something that answers as a tracking server does."""
    with served(Tracking) as address:
        yield address


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_run_is_looked_up_on_the_tracking_server(tracking: str, tmp_path: Path) -> None:
    at = settings({"RUNNER_WORKSPACE": str(tmp_path), "MLFLOW_TRACKING_URI": tracking})
    assert run_is_tracked(at, "known")
    assert not run_is_tracked(at, "unknown")
    with pytest.raises(RunnerError, match=f"MLFLOW_TRACKING_URI {tracking} answers 500"):
        run_is_tracked(at, "broken")


def test_a_run_is_looked_up_with_the_token_that_a_project_has(
    tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = settings({"RUNNER_WORKSPACE": str(tmp_path), "MLFLOW_TRACKING_URI": tracking})
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert run_is_tracked(at, "private")


def test_a_tracking_server_that_is_down_is_named(tmp_path: Path) -> None:
    address = "http://127.0.0.1:9"
    at = settings({"RUNNER_WORKSPACE": str(tmp_path), "MLFLOW_TRACKING_URI": address})
    with pytest.raises(RunnerError, match=f"{address} does not answer .*start it"):
        run_is_tracked(at, "any")


# --- states


@pytest.mark.parametrize("content", ["", "{half", "[]", "3"])
def test_a_damaged_state_counts_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(content)
    assert read_json(tmp_path / "state.json") == {}
    assert read_json(tmp_path / "missing.json") == {}


def test_a_state_is_replaced_and_never_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"a": 1})
    with path.open() as reader:
        write_json(path, {"a": 2})
        assert json.load(reader) == {"a": 1}
    assert read_json(path) == {"a": 2}
