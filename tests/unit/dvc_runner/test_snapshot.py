"""A snapshot holds what git would commit of a project, and the project never notices."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvc_runner.git import RunnerError
from dvc_runner.snapshot import SNAPSHOT, make_snapshot, write_bundle

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


def test_a_clean_project_is_recorded_with_its_commit(project: Path, cache: Path) -> None:
    found = make_snapshot(project, cache)
    assert found["source_commit"] == git(project, "rev-parse", "HEAD")
    assert found["dirty"] is False
    assert files_of(found) == [".gitignore", "dvc.yaml", "train.py"]


def test_the_project_is_not_written_to(project: Path, cache: Path) -> None:
    (project / "train.py").write_text("2\n")
    (project / "new.py").write_text("3\n")
    before = state_of(project)
    make_snapshot(project, cache)
    assert state_of(project) == before


def test_a_snapshot_made_in_a_git_hook_leaves_the_hooks_repository_alone(
    project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(project.parent / "other", a__txt="1\n")
    before = state_of(other)
    with monkeypatch.context() as hook:
        hook.setenv("GIT_DIR", str(other / ".git"))
        hook.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
        hook.setenv("GIT_WORK_TREE", str(other))
        found = make_snapshot(project, cache)
    assert "train.py" in files_of(found)
    assert state_of(other) == before


@pytest.mark.parametrize(
    ("name", "content"), [("train.py", "changed\n"), ("new.py", "untracked\n"), ("dvc.yaml", "{}")]
)
def test_work_that_is_not_committed_counts_and_is_called_dirty(
    name: str, content: str, project: Path, cache: Path
) -> None:
    clean = make_snapshot(project, cache)
    (project / name).write_text(content)
    dirty = make_snapshot(project, cache)
    assert dirty["dirty"] is True
    assert dirty["source_commit"] == clean["source_commit"]
    assert dirty["id"] != clean["id"]
    assert name in files_of(dirty)


def test_a_deleted_file_is_gone_from_the_snapshot(project: Path, cache: Path) -> None:
    make_snapshot(project, cache)
    (project / "train.py").unlink()
    found = make_snapshot(project, cache)
    assert "train.py" not in files_of(found)
    assert found["dirty"] is True


def test_the_same_files_have_the_same_id_again_and_from_another_cache(
    project: Path, cache: Path
) -> None:
    first = make_snapshot(project, cache)
    (project / "train.py").write_text("2\n")
    make_snapshot(project, cache)
    (project / "train.py").write_text("1\n")
    again = make_snapshot(project, cache)
    elsewhere = make_snapshot(project, cache.with_name("another-cache"))
    assert first["id"] == again["id"] == elsewhere["id"]


def test_ignored_files_stay_out_wherever_the_rule_stands(project: Path, cache: Path) -> None:
    (project / "data").mkdir()
    (project / "data/big.csv").write_text("1\n")
    (project / "my.secret").write_text("1\n")
    (project / ".git/info/exclude").write_text("private.txt\n")
    (project / "private.txt").write_text("1\n")
    assert files_of(make_snapshot(project, cache)) == [".gitignore", "dvc.yaml", "train.py"]


def test_a_file_that_becomes_ignored_leaves_the_snapshot(project: Path, cache: Path) -> None:
    (project / "later.txt").write_text("1\n")
    assert "later.txt" in files_of(make_snapshot(project, cache))
    (project / ".git/info/exclude").write_text("later.txt\n")
    assert "later.txt" not in files_of(make_snapshot(project, cache))


def test_a_tracked_file_counts_even_where_a_rule_would_ignore_it(
    project: Path, cache: Path
) -> None:
    (project / "kept.secret").write_text("1\n")
    git(project, "add", "--force", "kept.secret")
    git(project, "commit", "--quiet", "-m", "forced")
    found = make_snapshot(project, cache)
    assert "kept.secret" in files_of(found)
    assert found["dirty"] is False


def test_a_project_in_a_sub_directory_is_taken_alone_and_obeys_the_rules_above_it(
    project: Path, cache: Path
) -> None:
    sub = project / "pipelines/one"
    sub.mkdir(parents=True)
    (sub / "dvc.yaml").write_text("stages: {}\n")
    (sub / "run.py").write_text("1\n")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "sub")
    (sub / "my.secret").write_text("ignored by a rule two directories up\n")
    found = make_snapshot(sub, cache)
    assert files_of(found) == ["dvc.yaml", "run.py"]
    assert (found["dirty"], found["source_commit"]) == (False, git(project, "rev-parse", "HEAD"))
    (project / "train.py").write_text("a change beside it\n")
    assert make_snapshot(sub, cache)["dirty"] is False


def monorepo(project: Path, pipeline: str) -> Path:
    """Commit a repository of a pipeline in a directory, with code and settings beside that."""
    for name in ("common", "churn/src"):
        (project / name).mkdir(parents=True)
        (project / name / "shared.py").write_text("1\n")
    (project / "churn/dvc.yaml").write_text(pipeline)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "churn")
    return project / "churn"


@pytest.mark.parametrize(
    "pipeline",
    [
        "stages: {a: {cmd: x, deps: [../common/shared.py]}}",
        "stages: {a: {wdir: src, cmd: x, deps: [../../common/shared.py]}}",
        "stages: {a: {foreach: [1], do: {cmd: x, outs: [{../common/shared.py: {push: false}}]}}}",
        "stages: {a: {cmd: x, params: [lr, {../common/shared.py: [N]}]}}",
        "vars: [../common/shared.py:N]",
    ],
)
def test_a_directory_whose_pipeline_needs_what_lies_beside_it_is_refused_with_the_way_to_have_it(
    pipeline: str, project: Path, cache: Path
) -> None:
    sub = monorepo(project, pipeline)
    with pytest.raises(RunnerError) as said:
        make_snapshot(sub, cache)
    assert f"dvc.yaml of {sub} names ../common/shared.py, which lies outside of" in str(said.value)
    assert "name the repository as its source" in str(said.value)
    assert "common/shared.py" in files_of(make_snapshot(project, cache))


@pytest.mark.parametrize(
    "pipeline",
    [
        "stages: {a: {wdir: src, cmd: x, deps: [../dvc.yaml, shared.py], outs: [../made.txt]}}",
        "stages: {a: {cmd: x, deps: [/elsewhere/x, 's3://b/../x'], outs: ['${up}/x', src]}}",
        "vars: [{a: 1}]\nstages: {a: {wdir: '${up}', deps: [../x]}, b: [], c: {deps: ../x}}",
        "[]",
        "<<<<<<< one",
        "",
    ],
)
def test_a_directory_that_needs_nothing_beside_it_is_taken(
    pipeline: str, project: Path, cache: Path
) -> None:
    sub = monorepo(project, pipeline)
    assert "src/shared.py" in files_of(make_snapshot(sub, cache))


def test_a_directory_without_git_is_taken_whole(tmp_path: Path, cache: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "dvc.yaml").write_text("stages: {}\n")
    (plain / ".gitignore").write_text("out.csv\n")
    (plain / "out.csv").write_text("1\n")
    found = make_snapshot(plain, cache)
    assert files_of(found) == [".gitignore", "dvc.yaml"]
    assert (found["source_commit"], found["dirty"]) == ("none", True)
    assert not (plain / ".git").exists()
    assert make_snapshot(plain, cache)["id"] == found["id"]


def test_a_directory_that_its_repository_ignores_is_taken_as_one_without_git(
    project: Path, cache: Path
) -> None:
    inside = project / "data/pipeline"
    inside.mkdir(parents=True)
    (inside / "dvc.yaml").write_text("stages: {}\n")
    found = make_snapshot(inside, cache)
    assert files_of(found) == ["dvc.yaml"]
    assert found["source_commit"] == "none"


@pytest.mark.parametrize(
    "name", ["wein-\N{LATIN SMALL LETTER U WITH DIAERESIS}.csv", " a b ", "x\ny"]
)
def test_a_file_may_have_any_name(name: str, project: Path, cache: Path) -> None:
    (project / name).write_text("1\n")
    assert name in files_of(make_snapshot(project, cache))


def test_a_file_name_may_be_no_text_at_all(project: Path, cache: Path) -> None:
    odd = project / b"latin-\xfc.csv".decode(errors="surrogateescape")
    odd.write_text("1\n")
    found = make_snapshot(project, cache)
    assert found["dirty"] is True
    odd.unlink()
    assert make_snapshot(project, cache)["dirty"] is False


def test_links_and_modes_are_kept(project: Path, cache: Path) -> None:
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "link").symlink_to("nowhere")
    found = make_snapshot(project, cache)
    tree = git(Path(found["repository"]), "ls-tree", found["id"])
    modes = {line.split("\t")[1]: line.split()[0] for line in tree.splitlines()}
    assert (modes["run.sh"], modes["link"], modes["train.py"]) == ("100755", "120000", "100644")


def test_a_snapshot_that_was_killed_half_way_is_no_obstacle(project: Path, cache: Path) -> None:
    found = make_snapshot(project, cache)
    (Path(found["repository"]) / "index.lock").write_text("")
    (Path(found["repository"]) / "refs/heads/snapshot.lock").write_text("")
    (project / "train.py").write_text("2\n")
    assert make_snapshot(project, cache)["id"] != found["id"]


def test_two_platforms_may_take_a_snapshot_at_the_same_time(project: Path, cache: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(make_snapshot(project, cache)["id"]))
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
    made: bool, tmp_path: Path, cache: Path
) -> None:
    place = tmp_path / "nothing"
    if made:
        place.mkdir()
    with pytest.raises(RunnerError, match=f"dvc_runner_project {place} has no dvc.yaml"):
        make_snapshot(place, cache)


def test_a_bundle_holds_the_snapshot_that_was_asked_for_and_not_a_later_one(
    project: Path, cache: Path, tmp_path: Path
) -> None:
    first = make_snapshot(project, cache)
    (project / "later.txt").write_text("later\n")
    assert make_snapshot(project, cache)["id"] != first["id"]
    write_bundle(first, tmp_path / "project.bundle")
    said = git(project, "bundle", "list-heads", str(tmp_path / "project.bundle"))
    assert said.split()[0] == first["id"]


def test_a_bundle_carries_the_snapshot_to_another_repository(
    project: Path, cache: Path, tmp_path: Path
) -> None:
    found = make_snapshot(project, cache)
    write_bundle(found, tmp_path / "project.bundle")
    other = tmp_path / "other"
    git(tmp_path, "init", "--quiet", str(other))
    git(other, "fetch", "--quiet", str(tmp_path / "project.bundle"), SNAPSHOT)
    assert git(other, "rev-parse", "FETCH_HEAD") == found["id"]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set git up as a user does: for the whole system, or for this user."""

    def write(kind: str, **settings: str) -> None:
        path = tmp_path / f"git-{kind}"
        monkeypatch.setenv(f"GIT_CONFIG_{kind.upper()}", str(path))
        for key, value in settings.items():
            git(tmp_path, "config", "--file", str(path), key.replace("__", "."), value)

    return write


def committed(project: Path, **files: bytes) -> None:
    """Write and commit files of a project, dots written as `__`."""
    for name, content in files.items():
        (project / name.replace("__", ".")).write_bytes(content)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "more")


def content(snapshot: dict[str, Any], name: str) -> bytes:
    """Return a file of a snapshot."""
    return subprocess.run(
        ["git", "-C", snapshot["repository"], "show", f"{snapshot['id']}:{name}"],
        capture_output=True,
        check=True,
    ).stdout


def is_dirty(project: Path) -> bool:
    """Ask git, as a user does."""
    return bool(git(project, "status", "--porcelain", "--", "."))


@pytest.mark.parametrize("kind", ["system", "global"])
def test_lines_that_end_in_crlf_on_this_machine_alone_are_no_change(
    kind: str, project: Path, cache: Path, configure: Callable[..., None]
) -> None:
    configure(kind, core__autocrlf="true")
    (project / "train.py").unlink()
    git(project, "checkout", "--", "train.py")
    assert (project / "train.py").read_bytes() == b"1\r\n"
    found = make_snapshot(project, cache)
    assert (found["dirty"], is_dirty(project)) == (False, False)
    (project / "new.py").write_bytes(b"2\r\n")
    found = make_snapshot(project, cache)
    assert found["dirty"] is True
    assert [content(found, name) for name in ("train.py", "new.py")] == [b"1\n", b"2\n"]


@pytest.mark.parametrize("place", [".gitattributes", ".git/info/attributes"])
def test_attributes_decide_what_a_change_is_wherever_they_stand(
    place: str, project: Path, cache: Path, configure: Callable[..., None]
) -> None:
    configure("global", core__autocrlf="true")
    (project / place).write_text("*.csv -text\n")
    committed(project, a__csv=b"x;y\r\n1;2\r\n")
    sub = project / "pipelines/one"
    sub.mkdir(parents=True)
    (sub / "dvc.yaml").write_text("stages: {}\n")
    committed(sub, b__csv=b"x;y\r\n3;4\r\n")
    for at, name in ((project, "a.csv"), (sub, "b.csv")):
        found = make_snapshot(at, cache)
        assert (found["dirty"], is_dirty(at)) == (False, False)
        assert content(found, name) == (at / name).read_bytes()
        (at / name).write_bytes(b"x;y\r\n5;6\r\n")
        found = make_snapshot(at, cache)
        assert (found["dirty"], content(found, name)) == (True, b"x;y\r\n5;6\r\n")


@pytest.mark.parametrize("kind", ["system", "global"])
def test_a_file_that_a_filter_makes_is_taken_as_it_is_here(
    kind: str, project: Path, cache: Path, configure: Callable[..., None]
) -> None:
    # as Git LFS does: git stores one thing, the work tree has another
    settings = {"clean": "tr a-z n-za-m", "smudge": "tr a-z n-za-m", "required": "true"}
    configure(kind, **{f"filter__large__{key}": value for key, value in settings.items()})
    sub = project / "pipelines/one"
    sub.mkdir(parents=True)
    (project / ".gitattributes").write_text("*.bin filter=large\n")
    (sub / "dvc.yaml").write_text("stages: {}\n")
    committed(sub, data__bin=b"weights\n")
    assert git(sub, "show", "HEAD:./data.bin") == "jrvtugf"
    clean = make_snapshot(sub, cache)
    assert (clean["dirty"], is_dirty(sub)) == (False, False)
    assert content(clean, "data.bin") == b"weights\n"
    (sub / "data.bin").write_bytes(b"others\n")
    (sub / "new.bin").write_bytes(b"more\n")
    found = make_snapshot(sub, cache)
    assert found["dirty"] is True
    assert [content(found, name) for name in ("data.bin", "new.bin")] == [b"others\n", b"more\n"]
    git(sub, "checkout", "--", "data.bin")
    (sub / "new.bin").unlink()
    assert make_snapshot(sub, cache)["id"] == clean["id"]


def test_what_a_filter_only_takes_off_is_off_in_the_snapshot(
    project: Path, cache: Path, configure: Callable[..., None]
) -> None:
    configure("global", filter__strip__clean="sed s/output.*//", filter__strip__smudge="cat")
    (project / ".gitattributes").write_text("*.ipynb filter=strip\n")
    committed(project, a__ipynb=b"cell output 1\n")
    clean = make_snapshot(project, cache)
    assert content(clean, "a.ipynb") == b"cell \n"
    (project / "a.ipynb").write_bytes(b"cell output of another run\n")
    assert not git(project, "diff")
    found = make_snapshot(project, cache)
    assert (found["dirty"], content(found, "a.ipynb")) == (is_dirty(project), b"cell \n")


def test_a_file_that_git_is_to_forget_is_taken_while_it_is_there_and_no_rule_ignores_it(
    project: Path, cache: Path
) -> None:
    committed(project, a__txt=b"1\n", b__secret=b"1\n")
    git(project, "add", "--force", "b.secret")
    git(project, "commit", "--quiet", "-m", "forced")
    git(project, "rm", "--quiet", "--cached", "a.txt", "b.secret")
    found = make_snapshot(project, cache)
    assert found["dirty"] is True
    assert files_of(found) == [".gitignore", "a.txt", "dvc.yaml", "train.py"]


def test_a_file_may_become_a_directory_and_a_link(project: Path, cache: Path) -> None:
    committed(project, a=b"1\n", b=b"1\n")
    for name in ("a", "b"):
        (project / name).unlink()
    (project / "a").mkdir()
    (project / "a/inside").write_text("1\n")
    (project / "b").symlink_to("train.py")
    found = make_snapshot(project, cache)
    assert files_of(found) == [".gitignore", "a/inside", "b", "dvc.yaml", "train.py"]
    assert content(found, "b") == b"train.py"


def test_a_file_in_conflict_is_taken_as_it_is(project: Path, cache: Path) -> None:
    git(project, "checkout", "--quiet", "-b", "other")
    committed(project, train__py=b"2\n")
    git(project, "checkout", "--quiet", "-")
    committed(project, train__py=b"3\n")
    with pytest.raises(subprocess.CalledProcessError):
        git(project, "merge", "other")
    found = make_snapshot(project, cache)
    assert found["dirty"] is True
    assert content(found, "train.py") == (project / "train.py").read_bytes()


def test_a_project_without_a_commit_is_taken_with_its_new_files(
    tmp_path: Path, cache: Path
) -> None:
    project = tmp_path / "young"
    project.mkdir()
    git(project, "init", "--quiet")
    (project / "dvc.yaml").write_text("stages: {}\n")
    found = make_snapshot(project, cache)
    assert (found["source_commit"], found["dirty"]) == ("none", True)
    assert files_of(found) == ["dvc.yaml"]


def test_new_files_make_it_dirty_even_where_git_was_told_not_to_look_for_them(
    project: Path, cache: Path
) -> None:
    git(project, "config", "status.showUntrackedFiles", "no")
    (project / "new.py").write_text("1\n")
    found = make_snapshot(project, cache)
    assert found["dirty"] is True
    assert "new.py" in files_of(found)


@pytest.mark.parametrize("dirty", [False, True])
def test_a_repository_with_longer_ids_hands_over_what_another_takes(
    dirty: bool, tmp_path: Path, cache: Path
) -> None:
    project = tmp_path / "modern"
    project.mkdir()
    git(project, "init", "--quiet", "--object-format=sha256")
    committed(project, dvc__yaml=b"stages: {}\n", train__py=b"1\n")
    if dirty:
        (project / "train.py").write_text("2\n")
    found = make_snapshot(project, cache)
    assert (found["dirty"], len(found["source_commit"])) == (dirty, 64)
    write_bundle(found, tmp_path / "project.bundle")
    git(tmp_path, "init", "--quiet", "other")
    git(tmp_path / "other", "fetch", "--quiet", str(tmp_path / "project.bundle"), SNAPSHOT)
    assert content(found, "train.py") == (project / "train.py").read_bytes()


def test_no_hook_of_the_checkout_hears_of_a_snapshot(project: Path, cache: Path) -> None:
    hook = project / ".git/hooks/post-index-change"
    hook.write_text("#!/bin/sh\ntouch heard\n")
    hook.chmod(0o755)
    (project / "train.py").write_text("2\n")
    make_snapshot(project, cache)
    assert not (project / "heard").exists()


def test_a_partial_clone_hands_over_what_is_in_its_work_tree(
    project: Path, cache: Path, tmp_path: Path
) -> None:
    (project / "docs").mkdir()
    committed(project, **{"docs/big__md": b"1\n"})
    git(project, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", "--sparse", project.as_uri(), "clone")
    found = make_snapshot(clone, cache)
    assert found["dirty"] is False
    assert files_of(found) == [".gitignore", "dvc.yaml", "train.py"]
    git(project, "config", "uploadpack.allowFilter", "false")
    write_bundle(found, tmp_path / "project.bundle")
    assert not (clone / "docs").exists()


# --- submodules


def with_submodule(project: Path) -> Path:
    """Give a project a submodule, which has one itself; returns its place in the project."""
    deep = repository(project.parent / "deep", deep__txt="deep\n")
    shared = repository(project.parent / "shared", lib__py="1\n", __gitignore="*.pyc\n")
    allowed = ("-c", "protocol.file.allow=always")
    git(shared, *allowed, "submodule", "--quiet", "add", str(deep), "deep")
    git(shared, "commit", "--quiet", "-m", "deep")
    git(project, *allowed, "submodule", "--quiet", "add", str(shared), "libs/my shared")
    git(project, *allowed, "submodule", "--quiet", "update", "--init", "--recursive")
    git(project, "commit", "--quiet", "-m", "a submodule")
    return project / "libs/my shared"


def test_a_submodules_files_are_in_the_snapshot(project: Path, cache: Path, tmp_path: Path) -> None:
    inside = with_submodule(project)
    found = make_snapshot(project, cache)
    assert (found["dirty"], found["source_commit"]) == (False, git(project, "rev-parse", "HEAD"))
    names = {".gitignore", ".gitmodules", "deep/deep.txt", "deep/dvc.yaml", "dvc.yaml", "lib.py"}
    assert {f"libs/my shared/{name}" for name in names} <= set(files_of(found))
    assert make_snapshot(project, cache)["id"] == found["id"]
    for name, text in (("lib.py", "2\n"), ("new.py", "new\n"), ("deep/deep.txt", "deeper\n")):
        (inside / name).write_text(text)
    (inside / "lib.pyc").write_text("no\n")
    other = make_snapshot(project, cache)
    assert other["dirty"] is True
    assert content(other, "libs/my shared/lib.py") == b"2\n"
    assert content(other, "libs/my shared/new.py") == b"new\n"
    assert content(other, "libs/my shared/deep/deep.txt") == b"deeper\n"
    assert "libs/my shared/lib.pyc" not in files_of(other)
    write_bundle(other, tmp_path / "project.bundle")
    git(tmp_path, "init", "--quiet", "elsewhere")
    git(tmp_path / "elsewhere", "fetch", "--quiet", str(tmp_path / "project.bundle"), SNAPSHOT)
    git(tmp_path / "elsewhere", "checkout", "--quiet", "FETCH_HEAD")
    assert (tmp_path / "elsewhere/libs/my shared/lib.py").read_text() == "2\n"


def test_a_submodule_that_is_not_checked_out_is_named_with_what_to_do(
    project: Path, cache: Path, tmp_path: Path
) -> None:
    with_submodule(project)
    git(tmp_path, "clone", "--quiet", str(project), "clone")
    with pytest.raises(RunnerError, match=r"Submodule libs/my shared of .*/clone is not checked o"):
        make_snapshot(tmp_path / "clone", cache)
    name = "submodule.libs/my shared.update"
    git(tmp_path / "clone", "config", "--file", ".gitmodules", name, "none")
    assert "train.py" in files_of(make_snapshot(tmp_path / "clone", cache))


# --- Git LFS

OID = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n".encode()
LARGE = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"


def test_a_pointer_whose_content_is_nowhere_is_named_with_what_to_do(
    project: Path, cache: Path
) -> None:
    # as a clone is on a machine without git-lfs
    committed(project, __gitattributes=LARGE, weights__bin=POINTER, small__bin=b"plain\n")
    with pytest.raises(RunnerError, match=r"weights.bin of .* are pointers of Git LFS") as refusal:
        make_snapshot(project, cache)
    assert "run `git lfs pull` there" in str(refusal.value)
    (project / "weights.bin").write_bytes(b"content\n")
    assert content(make_snapshot(project, cache), "weights.bin") == b"content\n"


def test_the_content_of_a_pointer_is_taken_from_where_git_lfs_keeps_it(
    project: Path, cache: Path
) -> None:
    # as a clone is that was told to skip the smudge filter
    committed(project, __gitattributes=LARGE, weights__bin=POINTER)
    kept = project / ".git/lfs/objects" / OID[:2] / OID[2:4] / OID
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights\r\n\0")
    assert content(make_snapshot(project, cache), "weights.bin") == b"weights\r\n\0"
    found = make_snapshot(project, cache)
    assert (found["dirty"], files_of(found).count("weights.bin")) == (False, 1)


def test_a_text_about_pointers_is_none(project: Path, cache: Path) -> None:
    about = b"A pointer looks so:\n" + POINTER
    committed(project, __gitattributes=LARGE, readme__md=about, more__md=POINTER + b"and more\n")
    assert content(make_snapshot(project, cache), "readme.md") == about
