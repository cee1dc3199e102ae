"""The directory of a project ends up as declared, and no run leaves it half way."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import RunModule

MODULE = "platform/library/platform_files.py"
ME = os.geteuid()
SECRET = "correct-horse-battery"  # noqa: S105 - of nobody
as_root = pytest.mark.skipif(ME != 0, reason="only root gives files to another user")


def entry(path: str, content: str, mode: str = "0644", owner: int = ME) -> dict[str, Any]:
    return {"path": path, "content": content, "mode": mode, "owner": owner}


def tree(directory: Path) -> dict[str, str]:
    """Every file below a directory, with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes().decode()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


def test_files_are_written_with_their_directories(project: Path, run_module: RunModule) -> None:
    files = [entry("compose.yaml", "name: x\n"), entry("services/web/files/web.conf", "a = ä\n")]
    answer = run_module(MODULE, directory=str(project), files=files)
    assert answer["changed"]
    assert answer["written"] == ["compose.yaml", "services/web/files/web.conf"]
    assert tree(project) == {"compose.yaml": "name: x\n", "services/web/files/web.conf": "a = ä\n"}


@pytest.mark.parametrize("content", ["a\n", "", "no end of line", "dos\r\nlines\r\n", "ünïcode\n"])
def test_writing_again_changes_nothing(content: str, project: Path, run_module: RunModule) -> None:
    given = {"directory": str(project), "files": [entry("a", content)], "owned": ["services"]}
    run_module(MODULE, **given)
    before = (project / "a").stat()
    again = run_module(MODULE, **given)
    after = (project / "a").stat()
    assert (again["changed"], again["written"], again["diff"]) == (False, [], [])
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_only_what_differs_is_written_again(project: Path, run_module: RunModule) -> None:
    run_module(MODULE, directory=str(project), files=[entry("a", "1"), entry("b", "1")])
    answer = run_module(MODULE, directory=str(project), files=[entry("a", "1"), entry("b", "2")])
    assert answer["written"] == ["b"]


def test_check_mode_tells_everything_and_writes_nothing(
    project: Path, run_module: RunModule
) -> None:
    run_module(MODULE, directory=str(project), files=[entry("services/old", "1"), entry("a", "1")])
    before = tree(project)
    answer = run_module(
        MODULE,
        check=True,
        directory=str(project),
        files=[entry("a", "2"), entry("new/b", "3")],
        owned=["services"],
    )
    assert answer["changed"]
    assert (answer["written"], answer["removed"]) == (["a", "new/b"], ["services/old"])
    assert tree(project) == before


def test_check_mode_works_where_there_is_no_directory_yet(
    project: Path, run_module: RunModule
) -> None:
    answer = run_module(MODULE, check=True, directory=str(project), files=[entry("a", "1")])
    assert answer["written"] == ["a"]
    assert not project.exists()


def test_a_diff_shows_what_changes_in_a_file(project: Path, run_module: RunModule) -> None:
    run_module(MODULE, directory=str(project), files=[entry("a", "old\n")])
    (diff,) = run_module(MODULE, directory=str(project), files=[entry("a", "new\n", "0600")])[
        "diff"
    ]
    assert (diff["before_header"], diff["after_header"]) == (str(project / "a"),) * 2
    assert diff["before"] == f"# mode 0644, owner {ME}\nold\n"
    assert diff["after"] == f"# mode 0600, owner {ME}\nnew\n"


def test_an_answer_never_holds_a_secret_new_changed_kept_or_removed(
    project: Path, run_module: RunModule
) -> None:
    place = "services/web/secrets/key"
    new = SECRET + "-of-today"
    answers = [
        run_module(MODULE, directory=str(project), secrets=[entry(place, SECRET, "0600")]),
        run_module(MODULE, directory=str(project), secrets=[entry(place, new, "0600")]),
        run_module(MODULE, directory=str(project), secrets=[entry(place, new, "0600")]),
        run_module(MODULE, directory=str(project), owned=["services"]),
    ]
    assert [answer["changed"] for answer in answers] == [True, True, False, True]
    assert answers[3]["removed"] == [place]
    for answer in answers:
        assert SECRET not in str(answer)


def test_a_diff_tells_that_a_secret_changed_even_where_its_length_did_not(
    project: Path, run_module: RunModule
) -> None:
    run_module(MODULE, directory=str(project), secrets=[entry("key", "a" * 12, "0600")])
    answer = run_module(MODULE, directory=str(project), secrets=[entry("key", "b" * 12, "0600")])
    (diff,) = answer["diff"]
    assert diff["before"] != diff["after"]
    assert (project / "key").read_text() == "b" * 12


def test_a_mode_that_drifted_is_set_back(project: Path, run_module: RunModule) -> None:
    given = {"directory": str(project), "secrets": [entry("key", SECRET, "0600")]}
    run_module(MODULE, **given)
    (project / "key").chmod(0o644)
    assert run_module(MODULE, **given)["written"] == ["key"]
    assert (project / "key").stat().st_mode & 0o777 == 0o600


@as_root
def test_a_file_belongs_to_the_uid_that_reads_it(project: Path, run_module: RunModule) -> None:
    given = {"directory": str(project), "secrets": [entry("key", SECRET, "0600", 10001)]}
    run_module(MODULE, **given)
    status = (project / "key").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (10001, 10001, 0o600)
    os.chown(project / "key", 0, 0)
    assert run_module(MODULE, **given)["changed"]
    assert (project / "key").stat().st_uid == 10001


def test_what_is_no_longer_listed_goes_from_owned_directories_and_only_from_them(
    project: Path, run_module: RunModule
) -> None:
    first = [entry("services/db/files/db.conf", "1"), entry("services/web/files/web.conf", "1")]
    run_module(MODULE, directory=str(project), files=first)
    (project / "notes.txt").write_text("a user's own")
    (project / "services/web/files/left.bin").write_bytes(b"\xff\xfe")
    answer = run_module(MODULE, directory=str(project), files=first[1:], owned=["services"])
    assert answer["removed"] == ["services/db/files/db.conf", "services/web/files/left.bin"]
    assert tree(project).keys() == {"notes.txt", "services/web/files/web.conf"}
    assert not (project / "services/db").exists()


def test_a_file_is_replaced_and_never_written_in_place(
    project: Path, run_module: RunModule
) -> None:
    run_module(MODULE, directory=str(project), files=[entry("a", "old")])
    with (project / "a").open() as reader:
        run_module(MODULE, directory=str(project), files=[entry("a", "new")])
        assert reader.read() == "old"
    assert tree(project) == {"a": "new"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if ME != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs a user who may mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    small_disk: Path, run_module: RunModule
) -> None:
    run_module(MODULE, directory=str(small_disk), files=[entry("a", "old")])
    files = [entry("a", "x" * 200_000), entry("b", "never reached")]
    answer = run_module(MODULE, directory=str(small_disk), files=files)
    assert answer["failed"]
    assert f"{small_disk / 'a'} cannot be written (No space left on device" in answer["msg"]
    assert tree(small_disk) == {"a": "old"}
    assert shutil.disk_usage(small_disk).free > 0


@pytest.mark.parametrize("wanted", ["services/web/a", "services"])
def test_a_place_that_something_else_holds_is_named(
    wanted: str, project: Path, run_module: RunModule
) -> None:
    (project / "services").mkdir(parents=True)
    (project / "services/web").write_text("a file where a directory is wanted")
    answer = run_module(MODULE, directory=str(project), files=[entry(wanted, "1")])
    assert answer["failed"]
    assert f"{project / wanted} cannot be written (" in answer["msg"]
    assert tree(project) == {"services/web": "a file where a directory is wanted"}


def test_directories_may_be_entered_by_all_whatever_the_umask(
    project: Path, run_module: RunModule
) -> None:
    given = {"directory": str(project), "files": [entry("services/web/files/web.conf", "a")]}
    before = os.umask(0o077)
    try:
        run_module(MODULE, **given)
    finally:
        os.umask(before)
    ways = [project, *(path for path in project.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in ways} == {0o755}


def test_a_directory_that_not_all_may_enter_is_opened_and_told(
    project: Path, run_module: RunModule
) -> None:
    given = {"directory": str(project), "files": [entry("services/web/files/web.conf", "a")]}
    run_module(MODULE, **given)
    (project / "services/web").chmod(0o700)
    assert run_module(MODULE, **given)["written"] == ["services/web"]
    assert (project / "services/web").stat().st_mode & 0o777 == 0o755
    assert run_module(MODULE, **given)["changed"] is False


def test_a_marked_file_of_somebody_else_is_refused_and_one_of_ours_is_written(
    tmp_path: Path, run_module: RunModule
) -> None:
    path = tmp_path / "compose.yaml"
    entry = {
        "path": "compose.yaml",
        "content": "# ours\nb: 2\n",
        "mode": "0600",
        "owner": os.getuid(),
    }
    path.write_text("# theirs\na: 1\n")
    for check in (True, False):
        answer = run_module(
            MODULE, check, directory=str(tmp_path), files=[entry], marked=["compose.yaml"]
        )
        assert answer["failed"]
        assert f"{path} was not written by this platform" in answer["msg"]
        assert path.read_text() == "# theirs\na: 1\n"
    path.write_text("# ours\na: 1\n")
    answer = run_module(MODULE, directory=str(tmp_path), files=[entry], marked=["compose.yaml"])
    assert answer["changed"]
    assert path.read_text() == "# ours\nb: 2\n"


@pytest.mark.parametrize("turned", [False, True])
def test_a_file_becomes_a_tree_of_files_and_a_tree_a_file(
    tmp_path: Path, run_module: RunModule, turned: bool
) -> None:
    steps = [["bin/dash"], ["bin/dash/a.json"]]
    for paths in reversed(steps) if turned else steps:
        files = [{"path": p, "content": "x", "mode": "0644", "owner": os.getuid()} for p in paths]
        answer = run_module(MODULE, directory=str(tmp_path), files=files, owned=["bin"])
        assert not answer.get("failed"), answer
        there = [each for each in (tmp_path / "bin").rglob("*") if each.is_file()]
        found = [str(each.relative_to(tmp_path)) for each in there]
        assert found == paths


def folder_state(path: Path) -> tuple[int, int, int]:
    seen = path.stat()
    return seen.st_mode & 0o7777, seen.st_uid, seen.st_gid


def test_a_folder_of_a_container_is_made_once_with_its_owner(
    project: Path, tmp_path: Path, run_module: RunModule
) -> None:
    folder = tmp_path / "srv" / "lab" / "notebooks"
    owner = ME or 10001
    given = {"directory": str(project), "folders": [{"path": str(folder), "owner": owner}]}
    told = run_module(MODULE, check=True, **given)
    assert (told["changed"], told["made"], folder.exists()) == (True, [str(folder)], False)
    assert f"owner {owner}" in told["diff"][0]["after"]
    made = run_module(MODULE, **given)
    assert (made["changed"], made["diff"]) == (True, told["diff"])
    assert folder_state(folder) == (0o750, owner, owner)
    assert folder_state(folder.parent)[:2] == (0o755, ME)
    assert [*folder.parent.iterdir()] == [folder]
    again = run_module(MODULE, **given)
    assert (again["changed"], again["made"], again["diff"]) == (False, [], [])


@as_root
def test_a_folder_that_is_there_stays_whose_it_is(
    project: Path, tmp_path: Path, run_module: RunModule
) -> None:
    home = tmp_path / "ana"
    home.mkdir(mode=0o700)
    os.chown(home, 1234, 1235)
    given = {"directory": str(project), "folders": [{"path": str(home), "owner": 10001}]}
    answer = run_module(MODULE, **given)
    assert (answer["changed"], folder_state(home)) == (False, (0o700, 1234, 1235))


def test_a_folder_that_cannot_be_made_is_told_with_what_to_do(
    project: Path, tmp_path: Path, run_module: RunModule
) -> None:
    (tmp_path / "file").write_text("")
    folder = {"path": str(tmp_path / "file" / "notebooks"), "owner": ME}
    answer = run_module(MODULE, directory=str(project), folders=[folder])
    assert answer["failed"]
    assert "make it yourself, so that uid" in answer["msg"]
