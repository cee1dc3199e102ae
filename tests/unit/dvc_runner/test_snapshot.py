"""A snapshot holds what git would commit of a project, and the project never notices."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import git, repository, state_of


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where snapshots are kept."""
    return tmp_path / "cache"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed project that ignores its data."""
    return repository(tmp_path / "project", __gitignore="/data/\n*.secret\n", train__py="1\n")


def files_of(snapshot: dict[str, Any]) -> list[str]:
    """The names of a snapshot's files."""
    listed = subprocess.run(
        ["git", "-C", snapshot["repository"], "ls-tree", "-rz", "--name-only", snapshot["id"]],
        capture_output=True,
        check=True,
    )
    return sorted(name.decode() for name in listed.stdout.split(b"\0") if name)


def test_a_clean_project_is_recorded_with_its_commit(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    found = runner.make_snapshot(project, cache)
    assert found["source_commit"] == git(project, "rev-parse", "HEAD")
    assert found["dirty"] is False
    assert files_of(found) == [".gitignore", "dvc.yaml", "train.py"]


def test_the_project_is_not_written_to(runner: ModuleType, project: Path, cache: Path) -> None:
    (project / "train.py").write_text("2\n")
    (project / "new.py").write_text("3\n")
    before = state_of(project)
    runner.make_snapshot(project, cache)
    assert state_of(project) == before


def test_a_snapshot_made_in_a_git_hook_leaves_the_hooks_repository_alone(
    runner: ModuleType, project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(project.parent / "other", a__txt="1\n")
    before = state_of(other)
    with monkeypatch.context() as hook:
        hook.setenv("GIT_DIR", str(other / ".git"))
        hook.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
        hook.setenv("GIT_WORK_TREE", str(other))
        found = runner.make_snapshot(project, cache)
    assert "train.py" in files_of(found)
    assert state_of(other) == before


@pytest.mark.parametrize(
    ("name", "content"), [("train.py", "changed\n"), ("new.py", "untracked\n"), ("dvc.yaml", "{}")]
)
def test_work_that_is_not_committed_counts_and_is_called_dirty(
    name: str, content: str, runner: ModuleType, project: Path, cache: Path
) -> None:
    clean = runner.make_snapshot(project, cache)
    (project / name).write_text(content)
    dirty = runner.make_snapshot(project, cache)
    assert dirty["dirty"] is True
    assert dirty["source_commit"] == clean["source_commit"]
    assert dirty["id"] != clean["id"]
    assert name in files_of(dirty)


def test_a_deleted_file_is_gone_from_the_snapshot(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    runner.make_snapshot(project, cache)
    (project / "train.py").unlink()
    found = runner.make_snapshot(project, cache)
    assert "train.py" not in files_of(found)
    assert found["dirty"] is True


def test_the_same_files_have_the_same_id_again_and_from_another_cache(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    first = runner.make_snapshot(project, cache)
    (project / "train.py").write_text("2\n")
    runner.make_snapshot(project, cache)
    (project / "train.py").write_text("1\n")
    again = runner.make_snapshot(project, cache)
    elsewhere = runner.make_snapshot(project, cache.with_name("another-cache"))
    assert first["id"] == again["id"] == elsewhere["id"]


def test_ignored_files_stay_out_wherever_the_rule_stands(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    (project / "data").mkdir()
    (project / "data/big.csv").write_text("1\n")
    (project / "my.secret").write_text("1\n")
    (project / ".git/info/exclude").write_text("private.txt\n")
    (project / "private.txt").write_text("1\n")
    assert files_of(runner.make_snapshot(project, cache)) == [".gitignore", "dvc.yaml", "train.py"]


def test_a_file_that_becomes_ignored_leaves_the_snapshot(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    (project / "later.txt").write_text("1\n")
    assert "later.txt" in files_of(runner.make_snapshot(project, cache))
    (project / ".git/info/exclude").write_text("later.txt\n")
    assert "later.txt" not in files_of(runner.make_snapshot(project, cache))


def test_a_tracked_file_counts_even_where_a_rule_would_ignore_it(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    (project / "kept.secret").write_text("1\n")
    git(project, "add", "--force", "kept.secret")
    git(project, "commit", "--quiet", "-m", "forced")
    found = runner.make_snapshot(project, cache)
    assert "kept.secret" in files_of(found)
    assert found["dirty"] is False


def test_a_project_in_a_sub_directory_is_taken_alone_and_obeys_the_rules_above_it(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    sub = project / "pipelines/one"
    sub.mkdir(parents=True)
    (sub / "dvc.yaml").write_text("stages: {}\n")
    (sub / "run.py").write_text("1\n")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "sub")
    (sub / "my.secret").write_text("ignored by a rule two directories up\n")
    found = runner.make_snapshot(sub, cache)
    assert files_of(found) == ["dvc.yaml", "run.py"]
    assert (found["dirty"], found["source_commit"]) == (False, git(project, "rev-parse", "HEAD"))
    (project / "train.py").write_text("a change beside it\n")
    assert runner.make_snapshot(sub, cache)["dirty"] is False


def test_a_directory_without_git_is_taken_whole(
    runner: ModuleType, tmp_path: Path, cache: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "dvc.yaml").write_text("stages: {}\n")
    (plain / ".gitignore").write_text("out.csv\n")
    (plain / "out.csv").write_text("1\n")
    found = runner.make_snapshot(plain, cache)
    assert files_of(found) == [".gitignore", "dvc.yaml"]
    assert (found["source_commit"], found["dirty"]) == ("none", True)
    assert not (plain / ".git").exists()
    assert runner.make_snapshot(plain, cache)["id"] == found["id"]


def test_a_directory_that_its_repository_ignores_is_taken_as_one_without_git(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    inside = project / "data/pipeline"
    inside.mkdir(parents=True)
    (inside / "dvc.yaml").write_text("stages: {}\n")
    found = runner.make_snapshot(inside, cache)
    assert files_of(found) == ["dvc.yaml"]
    assert found["source_commit"] == "none"


@pytest.mark.parametrize(
    "name", ["wein-\N{LATIN SMALL LETTER U WITH DIAERESIS}.csv", " a b ", "x\ny"]
)
def test_a_file_may_have_any_name(
    name: str, runner: ModuleType, project: Path, cache: Path
) -> None:
    (project / name).write_text("1\n")
    assert name in files_of(runner.make_snapshot(project, cache))


def test_a_file_name_may_be_no_text_at_all(runner: ModuleType, project: Path, cache: Path) -> None:
    odd = project / b"latin-\xfc.csv".decode(errors="surrogateescape")
    odd.write_text("1\n")
    found = runner.make_snapshot(project, cache)
    assert found["dirty"] is True
    odd.unlink()
    assert runner.make_snapshot(project, cache)["dirty"] is False


def test_links_and_modes_are_kept(runner: ModuleType, project: Path, cache: Path) -> None:
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "link").symlink_to("nowhere")
    found = runner.make_snapshot(project, cache)
    tree = git(Path(found["repository"]), "ls-tree", found["id"])
    modes = {line.split("\t")[1]: line.split()[0] for line in tree.splitlines()}
    assert (modes["run.sh"], modes["link"], modes["train.py"]) == ("100755", "120000", "100644")


def test_a_snapshot_that_was_killed_half_way_is_no_obstacle(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    found = runner.make_snapshot(project, cache)
    (Path(found["repository"]) / "index.lock").write_text("")
    (Path(found["repository"]) / "refs/heads/snapshot.lock").write_text("")
    (project / "train.py").write_text("2\n")
    assert runner.make_snapshot(project, cache)["id"] != found["id"]


def test_two_platforms_may_take_a_snapshot_at_the_same_time(
    runner: ModuleType, project: Path, cache: Path
) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(runner.make_snapshot(project, cache)["id"]))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


@pytest.mark.parametrize("made", [True, False])
def test_a_directory_that_is_no_project_is_refused_by_its_path(
    made: bool, runner: ModuleType, tmp_path: Path, cache: Path
) -> None:
    place = tmp_path / "nothing"
    if made:
        place.mkdir()
    with pytest.raises(runner.RunnerError, match=f"dvc_runner_project {place} has no dvc.yaml"):
        runner.make_snapshot(place, cache)


def test_a_bundle_carries_the_snapshot_to_another_repository(
    runner: ModuleType, project: Path, cache: Path, tmp_path: Path
) -> None:
    found = runner.make_snapshot(project, cache)
    runner.write_bundle(found, tmp_path / "project.bundle")
    other = tmp_path / "other"
    git(tmp_path, "init", "--quiet", str(other))
    git(other, "fetch", "--quiet", str(tmp_path / "project.bundle"), runner.SNAPSHOT)
    assert git(other, "rev-parse", "FETCH_HEAD") == found["id"]
