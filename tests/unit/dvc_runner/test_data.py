"""Data of a project comes from wherever it is, and is the platform's from then on."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.sshd import SshServer

from dvc_runner.data import nowhere
from dvc_runner.handover import cache_of, names_of_data
from dvc_runner.settings import settings

from .conftest import DVC, World, dvc, git

pytestmark = pytest.mark.processes

PIPELINE = """\
stages:
  count:
    cmd: cat numbers.csv many/*.csv | wc -l > count.txt
    deps: [numbers.csv, many]
    outs: [count.txt]
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world with a project whose data is a file and a directory under DVC, and in its cache."""
    made = World(tmp_path)
    made.project.mkdir()
    git(made.project, "init", "--quiet")
    dvc(made.project, "init", "--quiet")
    (made.project / "many").mkdir()
    for number in range(3):
        (made.project / f"many/{number}.csv").write_text(f"{number}\n")
    (made.project / "numbers.csv").write_text("1\n2\n")
    (made.project / "dvc.yaml").write_text(PIPELINE)
    dvc(made.project, "add", "numbers.csv", "many")
    saved(made.project)
    return made


def saved(project: Path) -> None:
    """Commit all of a project."""
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "more")


def counted(world: World) -> int:
    """What the pipeline counted."""
    return int((world.work / "project/count.txt").read_text())


def without_cache(world: World) -> None:
    """Have the checkout be a fresh clone, and the runner's workspace a new one."""
    clone = world.root / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    git(world.root, "clone", "--quiet", str(world.project), "clone")
    shutil.rmtree(world.project)
    clone.rename(world.project)
    shutil.rmtree(world.work, ignore_errors=True)


# --- from the checkout


@pytest.mark.parametrize("where", ["", "../elsewhere", "ABSOLUTE"])
def test_data_in_the_checkouts_cache_is_handed_over_and_stored_in_the_platform(
    where: str, world: World
) -> None:
    if where:
        place = where.replace("ABSOLUTE", str(world.root / "shared-cache"))
        shutil.move(world.project / ".dvc/cache", world.project / place)
        dvc(world.project, "cache", "dir", place)
        saved(world.project)
    world.run()
    assert counted(world) == 5
    assert not list((world.work / "inputs").iterdir())
    # a clone has no cache, and a new workspace none: the platform has it all
    without_cache(world)
    if where == "ABSOLUTE":
        shutil.rmtree(world.root / "shared-cache")
    world.run()
    assert counted(world) == 5


def test_only_what_the_platform_lacks_is_handed_over(world: World) -> None:
    world.run()
    before = world.objects()
    (world.project / "many/3.csv").write_text("3\n")
    dvc(world.project, "add", "many")
    saved(world.project)
    world.run()
    assert counted(world) == 6
    new = {Path(name).parent.name + Path(name).name for name in world.objects() - before}
    result = hashlib.md5(b"6\n").hexdigest()  # noqa: S324 - DVC's own
    (named,) = [name for name in names_of(world) if name.endswith(".dir")]
    assert new == {named, hashlib.md5(b"3\n").hexdigest(), result}  # noqa: S324 - as above


def test_data_of_thousands_of_files_are_handed_over_run_stored_and_saved(world: World) -> None:
    for number in range(2000):
        place = world.project / f"many/{number % 20}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.txt").write_text(f"line {number}\n")
    dvc(world.project, "add", "many")
    (world.project / "dvc.yaml").write_text(
        "stages: {copy: {cmd: cp -r many out && rm out/0.csv, deps: [many], outs: [out]}}\n"
    )
    saved(world.project)
    world.run()
    assert len(world.objects()) >= 2000 + 3 + 2
    assert world.run().startswith("Nothing to do")
    assert len([name for name in world.results() if name.startswith("out/")]) == 2000 + 2


def names_of(world: World) -> set[str]:
    """The md5s that the project's .dvc files name."""
    repository = git(world.project, "rev-parse", "--absolute-git-dir")
    return names_of_data(world.project, {"repository": repository, "id": "HEAD"})


def test_an_object_that_somebody_wrote_to_is_not_taken_for_data(world: World) -> None:
    md5 = hashlib.md5(b"1\n2\n").hexdigest()  # noqa: S324 - as above
    spoilt = cache_of(world.project) / "files/md5" / md5[:2] / md5[2:]
    spoilt.chmod(0o644)
    spoilt.write_text("1\n2\n3\n")
    done = world.call("local", str(world.project))
    assert f"numbers.csv is not to be had: numbers.csv.dvc names md5 {md5}" in done.stderr


def test_data_that_an_older_dvc_added_is_handed_over(world: World) -> None:
    # its hash of a text leaves carriage returns out, and its cache has another layout
    text = b"1\r\n2\r\n"
    md5 = hashlib.md5(b"1\n2\n").hexdigest()  # noqa: S324 - as above
    old = world.project / ".dvc/cache" / md5[:2] / md5[2:]
    shutil.rmtree(world.project / ".dvc/cache/files/md5" / md5[:2])
    old.parent.mkdir()
    old.write_bytes(text)
    spelt = f"outs:\n- md5: {md5}\n  size: {len(text)}\n  path: numbers.csv\n"
    (world.project / "numbers.csv.dvc").write_text(spelt)
    saved(world.project)
    world.run()
    assert (world.work / "project/numbers.csv").read_bytes() == text
    assert (world.remote / md5[:2] / md5[2:]).read_bytes() == text


def test_a_frozen_stages_output_is_data(world: World) -> None:
    dvc(world.project, "repro")
    frozen = PIPELINE.replace("    outs:", "    frozen: true\n    outs:")
    after = (
        "  after:\n    cmd: cp count.txt copy.txt\n    deps: [count.txt]\n    outs: [copy.txt]\n"
    )
    (world.project / "dvc.yaml").write_text(frozen + after)
    saved(world.project)
    said = world.run()
    assert "Running stage 'count'" not in said
    assert int((world.work / "project/copy.txt").read_text()) == 5


# --- from the team's remote


def team_remote(world: World, url: str) -> None:
    """Give the project a default remote of its own, at which its data is."""
    dvc(world.project, "remote", "add", "--default", "team", str(world.root / "team"))
    dvc(world.project, "push")
    dvc(world.project, "remote", "modify", "team", "url", url)
    saved(world.project)
    without_cache(world)


def test_data_that_only_the_teams_remote_has_is_stored_in_the_platform_and_not_there(
    world: World,
) -> None:
    team_remote(world, str(world.root / "team"))
    before = {path for path in (world.root / "team").rglob("*") if path.is_file()}
    world.run()
    assert counted(world) == 5
    assert {path for path in (world.root / "team").rglob("*") if path.is_file()} == before
    shown = subprocess.run(
        [DVC, "remote", "list"],
        cwd=world.work / "project",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    team = ["team", str(world.root / "team"), "(default)"]
    assert shown.split() == [*team, "platform", str(world.remote)]
    shutil.rmtree(world.root / "team")
    without_cache(world)
    world.run()
    assert counted(world) == 5


def test_an_output_of_another_remote_is_stored_in_the_platform_too(world: World) -> None:
    dvc(world.project, "remote", "add", "team", "/nonexistent/team")
    (world.project / "dvc.yaml").write_text(
        PIPELINE.replace("[count.txt]", "[{count.txt: {remote: team}}]")
    )
    saved(world.project)
    world.run()
    assert "5\n" in {path.read_text() for path in world.remote.rglob("*") if path.is_file()}


class Files(SimpleHTTPRequestHandler):
    """Serves the files of a directory, where it has a login to whoever knows it."""

    login = ""

    def send_head(self) -> Any:  # noqa: ANN401 - as its base has it
        """Answer a question, whatever its kind."""
        expected = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        if self.login and self.headers.get("Authorization") != expected:
            self.send_error(401)
            return None
        return super().send_head()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def served(root: Path, login: str = "") -> Iterator[str]:
    """Serve the files of a directory over HTTP."""
    kind = type("Own", (Files,), {"login": login})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_remote_that_asks_for_a_password_gets_that_of_the_projects_dvc_config(
    world: World,
) -> None:
    (world.root / "team").mkdir()
    given = world.root / "dvc_config"
    with served(world.root / "team", "me:secret-word") as url:
        team_remote(world, url)
        done = world.call("local", str(world.project))
        assert f"its remote team ({url})" in done.stderr
        given.write_text("['remote \"team\"']\nauth = basic\nuser = me\npassword = secret-word\n")
        done = world.call("local", str(world.project), RUNNER_SECRETS=str(world.root))
        assert done.returncode == 0, done.stdout + done.stderr
    assert counted(world) == 5
    assert "secret-word" not in done.stdout + done.stderr
    local = world.work / "project/.dvc/config.local"
    assert local.stat().st_mode & 0o077 == 0
    assert "secret-word" not in git(world.work / "project", "log", "-p", "--all")


def test_settings_that_are_none_are_refused_without_what_they_hold(world: World) -> None:
    given = world.root / "dvc_config"
    given.write_text("password = secret-word\n")
    done = world.call("local", str(world.project), RUNNER_SECRETS=str(world.root))
    assert f"{given} is no file of DVC's settings: write it as `dvc config` does." in done.stderr
    assert "secret-word" not in done.stderr


def test_a_remote_of_the_project_that_is_called_like_the_platforms_is_refused(world: World) -> None:
    dvc(world.project, "remote", "add", "platform", "s3://theirs")
    saved(world.project)
    done = world.call("local", str(world.project))
    assert "The project has a DVC remote called platform" in done.stderr
    assert "dvc remote rename platform ours" in done.stderr


# --- imports


def test_an_import_comes_from_its_repository_once_and_then_from_the_platform(world: World) -> None:
    registry = world.root / "registry"
    registry.mkdir()
    git(registry, "init", "--quiet")
    dvc(registry, "init", "--quiet")
    (registry / "table").mkdir()
    (registry / "table/a.csv").write_text("7\n8\n9\n")
    dvc(registry, "add", "table")
    dvc(registry, "remote", "add", "--default", "store", str(world.root / "store"))
    dvc(registry, "push")
    saved(registry)
    git(world.project, "rm", "--quiet", "many.dvc")
    shutil.rmtree(world.project / "many")
    dvc(world.project, "import", registry.as_uri(), "table", "-o", "many")
    saved(world.project)
    without_cache_but_numbers(world)
    world.run()
    assert counted(world) == 5
    for gone in ("registry", "store"):
        shutil.rmtree(world.root / gone)
    assert world.call("prune", "--yes").returncode == 0
    cache = world.work / "project/.dvc/cache"
    assert "7\n8\n9\n" in [path.read_text() for path in cache.rglob("*") if path.is_file()]
    assert len(list(cache.rglob("*.dir"))) == 1
    shutil.rmtree(world.work)
    world.run()
    assert counted(world) == 5


def without_cache_but_numbers(world: World) -> None:
    """Take all but the numbers' object out of the checkout's cache."""
    kept = hashlib.md5(b"1\n2\n").hexdigest()  # noqa: S324 - as above
    for path in cache_of(world.project).rglob("*"):
        if path.is_file() and path.name != kept[2:]:
            path.unlink()


def test_an_import_of_an_address_comes_from_there_and_then_from_the_platform(world: World) -> None:
    (world.root / "web").mkdir()
    (world.root / "web/far.csv").write_text("7\n8\n9\n")
    with served(world.root / "web") as url:
        dvc(world.project, "import-url", f"{url}/far.csv", "far.csv")
        pipeline = PIPELINE.replace("numbers.csv many/*.csv", "far.csv")
        (world.project / "dvc.yaml").write_text(pipeline.replace("numbers.csv, many", "far.csv"))
        git(world.project, "rm", "--quiet", "--force", "numbers.csv.dvc", "many.dvc")
        saved(world.project)
        without_cache(world)
        world.run()
        assert counted(world) == 3
    shutil.rmtree(world.work)
    world.run()
    assert counted(world) == 3


def given(world: World, **secrets: str) -> dict[str, str]:
    """What a runner is told that has these secrets."""
    place = world.root / "secrets"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, text in secrets.items():
        (place / name).write_text(text)
    return {"RUNNER_SECRETS": str(place)}


def test_a_remote_by_ssh_is_reached_with_the_key_that_was_given_on_the_host_that_is_pinned(
    world: World, sshd: SshServer
) -> None:
    team_remote(world, f"ssh://{sshd.user}@127.0.0.1:{sshd.port}{world.root}/team")
    stored = {path.name for path in (world.root / "team").rglob("*") if path.is_file()}
    other = {name: (sshd.place / f"other{name}").read_text() for name in ("", ".pub")}
    scanned = f"[127.0.0.1]:{sshd.port} {sshd.host_key}"
    refused = {
        "set the project's remote_host_key": {"remote_ssh_key": sshd.key},
        "Permission denied": {"remote_ssh_key": other[""], "remote_host_key": scanned},
        "remote_ssh_key is no private key without a passphrase": {
            "remote_ssh_key": "ssh-ed25519 AA"
        },
    }
    for sentence, secrets in refused.items():
        done = world.call("local", str(world.project), **given(world, **secrets))
        assert done.returncode == 1
        assert sentence in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    wrong = given(world, remote_ssh_key=sshd.key, remote_host_key=other[".pub"])
    done = world.call("local", str(world.project), **wrong)
    assert "set the project's remote_host_key" in done.stderr.splitlines()[-1]
    for host_key in (sshd.host_key, scanned):
        without_cache(world)
        shutil.rmtree(world.remote, ignore_errors=True)
        known = given(world, remote_ssh_key=sshd.key.strip(), remote_host_key=host_key)
        done = world.call("local", str(world.project), **known)
        assert done.returncode == 0, done.stdout + done.stderr
        assert counted(world) == 5
    assert stored <= {Path(name).name for name in world.objects()}
    after = {path.name for path in (world.root / "team").rglob("*") if path.is_file()}
    assert after == stored, "nothing is ever written to a team's remote"


# --- one pipeline of a repository

SHARED = PIPELINE.replace("many/*.csv", "../common.csv").replace("many", "../common.csv")


def test_a_pipeline_with_dvc_of_its_own_has_what_lies_beside_it_too(
    tmp_path: Path,
) -> None:
    made = World(tmp_path)
    place = made.project / "churn"
    place.mkdir(parents=True)
    git(made.project, "init", "--quiet")
    dvc(place, "init", "--quiet", "--subdir")
    (place / "numbers.csv").write_text("1\n2\n")
    (place / "dvc.yaml").write_text(SHARED)
    dvc(place, "add", "numbers.csv")
    (made.project / "common.csv").write_text("3\n")
    lost = (place / "numbers.csv.dvc").read_text().replace("numbers", "lost")
    (made.project / "other").mkdir()
    (made.project / "other/lost.csv.dvc").write_text(re.sub(r"md5: .{8}", "md5: 12345678", lost))
    saved(made.project)
    made.run("--pipeline", "churn/dvc.yaml")
    assert (made.work / "project/churn/count.txt").read_text() == "3\n"
    assert made.run("--pipeline", "churn/dvc.yaml").startswith("Nothing to do")
    assert len(made.objects()) == 2
    done = made.call("local", str(made.project))
    assert "lost.csv is not to be had" in done.stderr


def test_of_the_data_in_the_cache_a_pipeline_is_handed_what_it_depends_on(world: World) -> None:
    (world.project / "other").mkdir()
    (world.project / "other/large.csv").write_text("of another one\n" * 1000)
    dvc(world.project, "add", "other/large.csv")
    (world.project / "other/dvc.yaml").write_text(
        "stages: {size: {cmd: wc -c large.csv, deps: [large.csv, ../numbers.csv]}}\n"
    )
    (world.project / "one").mkdir()
    one = SHARED.replace("numbers.csv", "../numbers.csv").replace("common.csv", "many/*.csv")
    (world.project / "one/dvc.yaml").write_text(one.replace(", ../many/*.csv]", ", ../many]"))
    saved(world.project)
    world.run("--pipeline", "one/dvc.yaml")
    assert (world.work / "project/one/count.txt").read_text().strip() == "5"
    large = hashlib.md5((world.project / "other/large.csv").read_bytes()).hexdigest()  # noqa: S324 - DVC's own
    kept = {Path(name).parent.name + Path(name).name for name in world.objects()}
    assert large not in kept
    assert kept >= names_of(world) - {large}
    world.run()
    assert (world.remote / "files/md5" / large[:2] / large[2:]).exists()


# --- nowhere


def test_data_that_is_nowhere_is_named_with_where_it_was_looked_for(world: World) -> None:
    without_cache(world)
    done = world.call("local", str(world.project))
    (directory,) = [name for name in names_of(world) if name.endswith(".dir")]
    said = done.stderr.splitlines()[-1]
    assert "and 1 more of the project's data is not to be had" in said
    assert directory in said or hashlib.md5(b"1\n2\n").hexdigest() in said  # noqa: S324 - as above
    assert str(world.remote) in said
    assert "nor a remote of the project's own, for it has none" in said
    assert json.loads((world.work / "result.json").read_text())["ok"] is False


def test_where_dvc_says_nothing_of_data_that_is_nowhere_it_is_not_quoted(tmp_path: Path) -> None:
    at = settings({"RUNNER_WORKSPACE": str(tmp_path)})
    stage = SimpleNamespace(path=at.project / "far.csv.dvc", is_import=True, deps=["far away"])
    out = SimpleNamespace(fs_path=at.project / "far.csv", stage=stage, hash_info=None)
    assert "DVC says: no such host. Push" in nowhere(at, [out], "no such host.")
    assert "nor far away. Push it" in nowhere(at, [out], "Everything is up to date.")


def test_a_password_in_the_address_of_data_that_is_nowhere_is_written_nowhere(world: World) -> None:
    (world.root / "web").mkdir()
    (world.root / "web/far.csv").write_text("7\n")
    with served(world.root / "web") as url:
        address = f"{url.replace('://', '://me:s3cret@')}/far.csv"
        dvc(world.project, "import-url", address, "far.csv")
        saved(world.project)
        without_cache_but_numbers(world)
        shutil.rmtree(world.project / "many")
        git(world.project, "rm", "--quiet", "--cached", "many.dvc")
        (world.project / "many.dvc").unlink()
        (world.project / "dvc.yaml").write_text("stages: {a: {cmd: 'true', deps: [far.csv]}}\n")
        saved(world.project)
    done = world.call("local", str(world.project))
    assert done.returncode == 1
    assert "://me:***@127.0.0.1" in done.stderr
    written = [world.work / name for name in ("run.log", "failed.json", "result.json")]
    texts = [done.stdout, done.stderr, *(path.read_text() for path in written)]
    assert not [text for text in texts if "s3cret" in text]
