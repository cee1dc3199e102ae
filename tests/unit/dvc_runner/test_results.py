"""What of a run's results gets into a user's checkout, and what that takes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from tests.unit.conftest import load

from dvc_runner.results import read

from .conftest import World, committed_to, git, new_world, repository, state_of

results: Any = load("dvc_runner/action_plugins/dvc_results.py")
MB = 1 << 20


class Host:
    """A host with a runner that has the files of a directory."""

    def __init__(self, checkout: Path, made: Path) -> None:
        self.checkout, self.made = checkout, made
        self.reads: list[int] = []
        self.most = 0
        """Bytes in the checkout's directory for what is under way, at most."""
        self.before_read: Callable[[], object] = lambda: None
        self.spoil: dict[str, str] = {}
        self.cached: list[str] = []
        self.params: dict[str, object] = {}

    def described(self) -> dict[str, dict[str, Any]]:
        files = [path for path in sorted(self.made.rglob("*")) if path.is_file()]
        return {
            str(path.relative_to(self.made)): {
                "size": path.stat().st_size,
                "md5": hashlib.md5(path.read_bytes()).hexdigest(),  # noqa: S324 - DVC's own
                "at": str(path),
            }
            for path in files
        }

    def on_host(self, command: str, in_data: bytes = b"\n") -> dict[str, Any]:
        words = shlex.split(command)
        if words[-1] == "results":
            said = {"files": self.described(), "cached": self.cached, "params": self.params}
            return {"rc": 0, "stdout": json.dumps(said), "stderr": ""}
        assert words[-3:-1] == ["read", ">"]
        self.before_read()
        pieces = json.loads(in_data)["pieces"]
        with Path(words[-1]).open("wb") as output:
            read(pieces, output)
        self.reads.append(Path(words[-1]).stat().st_size)
        aside = (self.checkout / results.ASIDE).iterdir()
        self.most = max(self.most, sum(path.stat().st_size for path in aside))
        return {"rc": 0, "stdout": "", "stderr": ""}

    def save(self, check: bool = False, **given: object) -> dict[str, Any]:
        """Save into the checkout."""
        it: Any = object.__new__(results.ActionModule)
        project = {"name": "one", "source": str(self.checkout), "container": "lab-one", **given}
        it._task = SimpleNamespace(args={"projects": [project]}, check_mode=check)
        it._connection = SimpleNamespace(transport="local", become=None)
        it._on_host = self.on_host
        found: dict[str, Any] = it.run()
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A checkout, and a run of it that made some megabytes."""
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(results, "PIECE", MB)
    checkout = repository(tmp_path / "checkout", params__yaml="lr: 1\n")
    made = tmp_path / "made"
    (made / "data").mkdir(parents=True)
    (made / "data/large.bin").write_bytes(os.urandom(5 * MB + 7))
    for number in range(5):
        (made / f"data/{number}.bin").write_bytes(os.urandom(300_000))
    (made / "data/empty").touch()
    (made / "dvc.lock").write_text("schema: '2.0'\n")
    return Host(checkout, made)


def came(host: Host) -> bool:
    """Tell whether the checkout has all that the run made."""
    names = host.described()
    return all(
        (host.checkout / name).read_bytes() == (host.made / name).read_bytes() for name in names
    )


def test_results_come_in_pieces_and_there_is_one_copy_of_each(host: Host) -> None:
    total = sum(row["size"] for row in host.described().values())
    assert len(host.save()["written"]["one"]) == 8
    assert came(host)
    assert sum(host.reads) == total
    assert max(host.reads) == MB
    assert host.most <= total + MB + 100
    assert not (host.checkout / results.ASIDE).exists()
    assert host.save()["changed"] is False


def test_what_the_checkout_has_with_the_same_md5_does_not_travel(host: Host) -> None:
    host.save()
    host.reads.clear()
    kept = (host.checkout / "data/large.bin").stat().st_ino
    (host.checkout / "data/1.bin").write_bytes(os.urandom(300_000))
    (host.checkout / "data/2.bin").write_text("of another size")
    assert host.save()["written"]["one"] == ["data/1.bin", "data/2.bin"]
    assert host.reads == [600_000]
    assert (host.checkout / "data/large.bin").stat().st_ino == kept
    assert came(host)


def test_a_check_writes_nothing_and_asks_for_no_bytes(host: Host) -> None:
    before = state_of(host.checkout)
    assert host.save(check=True)["changed"] is True
    assert (state_of(host.checkout), host.reads) == (before, [])


def test_a_save_that_is_killed_leaves_the_checkout_as_it_was_and_the_next_cleans_up(
    host: Host,
) -> None:
    before = state_of(host.checkout)

    def kill() -> None:
        if len(host.reads) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    host.before_read = kill
    child = os.fork()
    if not child:
        host.save()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = [path for path in state_of(host.checkout) if path not in before]
    assert left
    assert all(path.startswith(f"{results.ASIDE}/") for path in left)
    assert {
        path: value for path, value in state_of(host.checkout).items() if path in before
    } == before
    assert git(host.checkout, "status", "--porcelain") == ""
    host.before_read = lambda: None
    host.save()
    assert came(host)
    assert not (host.checkout / results.ASIDE).exists()


def test_leftovers_go_where_nothing_is_to_be_saved_too(host: Host) -> None:
    host.save()
    (host.checkout / results.ASIDE).mkdir()
    (host.checkout / results.ASIDE / "3").write_text("of a save that was killed")
    assert host.save()["changed"] is False
    assert not (host.checkout / results.ASIDE).exists()


def test_another_save_that_is_under_way_is_left_alone(host: Host) -> None:
    aside = host.checkout / results.ASIDE
    aside.mkdir()
    (aside / "0").write_text("half")
    with (aside / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AnsibleActionFail, match="under way: wait for its end"):
            host.save()
    assert (aside / "0").read_text() == "half"


def test_results_that_change_on_the_way_are_refused_and_change_nothing(host: Host) -> None:
    before = state_of(host.checkout)
    host.before_read = lambda: (host.made / "data/4.bin").write_bytes(bytes(300_000))
    with pytest.raises(AnsibleActionFail, match=r"data/4\.bin: The results were changed while"):
        host.save()
    assert state_of(host.checkout) == before


def test_without_room_for_them_nothing_is_begun(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(host.checkout)
    monkeypatch.setattr(results.shutil, "disk_usage", lambda _: SimpleNamespace(free=6 * MB))
    with pytest.raises(AnsibleActionFail, match=r"needs 8 MB at .* has 6 MB free"):
        host.save()
    assert (state_of(host.checkout), host.reads) == (before, [])


def test_git_ignores_what_dvc_keeps_and_nothing_else(host: Host) -> None:
    (host.made / "m[1].txt").write_text("a model")
    (host.made / "metrics.json").write_text("{}")
    host.cached = ["data", "m[1].txt", "never/made.txt"]
    assert host.save(check=True)["written"]["one"][0] == ".gitignore"
    assert not (host.checkout / ".gitignore").exists()
    host.save()
    assert (host.checkout / ".gitignore").read_text() == "/data\n/m\\[1\\].txt\n"
    left = git(host.checkout, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert left == ["?? .gitignore", "?? dvc.lock", "?? metrics.json"]
    assert host.save()["changed"] is False


def test_a_rule_comes_beside_its_output_and_leaves_those_that_are_there(host: Host) -> None:
    (host.checkout / ".gitignore").write_text("*.bin")
    (host.checkout / "data").mkdir()
    host.cached = ["data/empty", "data/0.bin"]
    host.save()
    assert (host.checkout / ".gitignore").read_text() == "*.bin"
    assert (host.checkout / "data/.gitignore").read_text() == "/empty\n"
    (host.checkout / "data/.gitignore").write_text("# mine")
    assert host.save()["written"]["one"] == ["data/.gitignore"]
    assert (host.checkout / "data/.gitignore").read_text() == "# mine\n/empty\n"


def test_what_git_has_by_mistake_is_ignored_too_so_that_one_command_is_the_way_out(
    host: Host,
) -> None:
    host.save()
    git(host.checkout, "add", "--all")
    git(host.checkout, "commit", "--quiet", "-m", "with outputs")
    host.cached = ["data"]
    assert host.save()["written"]["one"] == [".gitignore"]
    git(host.checkout, "rm", "-r", "--quiet", "--cached", "data")
    assert git(host.checkout, "status", "--porcelain", "--", "data").startswith("D ")
    assert "?? data" not in git(host.checkout, "status", "--porcelain")


@pytest.mark.parametrize("whole", ["no repository", "ignored by its repository"])
def test_where_git_does_not_judge_a_project_its_own_gitignore_does(host: Host, whole: str) -> None:
    outer = repository(host.checkout.parent / "outer", __gitignore="project/\n")
    host.checkout = outer / "project"
    host.checkout.mkdir()
    if whole == "no repository":
        shutil.rmtree(outer / ".git")
    host.cached = ["data"]
    host.save()
    assert (host.checkout / ".gitignore").read_text() == "/data\n"
    assert host.save()["changed"] is False


def test_parameters_that_the_checkout_has_not_are_warned_of_and_the_rest_is_saved(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(results.Display, "warning", lambda _, text: said.append(text))
    (host.checkout / "params.yaml").write_text("lr: 1\nsmall: 1e-3\ndeep: {a: x}\n")
    (host.checkout / "more.json").write_text('{"c": [1, 2]}')
    (host.checkout / "some.toml").write_text("d = 2.5\n")
    fits = {"params.yaml:lr": 1, "params.yaml:small": 0.001, "some.toml:d": 2.5}
    host.params = {**fits, "params.yaml:deep.a": "x", "more.json:c": [1, 2], "p.py:x": 3}
    host.save(check=True)
    assert said == []
    host.params = {**fits, "params.yaml:deep.a": "y", "more.json:c": [3], "params.yaml:new": 0}
    host.params["params.yaml:source"] = "https://me:TOPSECRET@host/x.csv"
    host.save()
    assert len(said) == 1
    assert "one: what is saved is of a run that had deep.a=y (here x), " in said[0]
    assert "more.json:c=[3] (here [1, 2]), new=0 (not here), " in said[0]
    assert "TOPSECRET" not in said[0]
    assert came(host)
    assert (host.checkout / "more.json").read_text() == '{"c": [1, 2]}'
    assert host.save()["changed"] is False


@pytest.mark.parametrize("name", ["../up", "data/../../up", "/tmp/absolute", ".git/hooks/post"])  # noqa: S108 - never written
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    row = {"size": 1, "md5": "x", "at": "x"}
    with pytest.raises(AnsibleActionFail, match="outside of a project"):
        results.differing({name: row}, tmp_path)


def test_a_runner_of_an_earlier_release_is_told_of_in_a_sentence(host: Host) -> None:
    said = "dvc_runner: error: argument command: invalid choice: 'results' (choose from 'idle')"
    host.on_host = lambda *_: {"rc": 2, "stdout": "", "stderr": said}  # type: ignore[method-assign]
    with pytest.raises(AnsibleActionFail, match=r"^lab-one is of an earlier release .*make up"):
        host.save()


@pytest.mark.processes
def test_a_run_is_saved_from_its_runner_as_it_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(results, "PIECE", MB)
    world = new_world(tmp_path)
    lines = (
        "mkdir -p out logs",
        "head -c 3000000 /dev/urandom >out/large",
        "echo 1 >out/small",
        "echo 1 >logs/a",
        "ln -s /etc/passwd logs/link",
        "echo 2 >kept.json",
    )
    metrics = "metrics: [{kept.json: {cache: false}}]"
    stage = f"{{cmd: '{'; '.join(lines)}', outs: [out], {metrics}}}"
    committed_to(world, dvc__yaml=f"stages: {{make: {stage}}}\n")
    world.run()
    host = Host(world.project, world.work / "project")

    def real(command: str, in_data: bytes = b"\n") -> dict[str, Any]:
        here = shlex.join(world.command())
        command = re.sub(r"^docker exec (-i )?lab-one dvc_runner", lambda _: here, command)
        done = subprocess.run(
            ["sh", "-c", command],
            input=in_data,
            env=world.environment(),
            capture_output=True,
            check=False,
        )
        said = {"stdout": done.stdout.decode(), "stderr": done.stderr.decode()}
        return {"rc": done.returncode, **said}

    monkeypatch.setattr(host, "on_host", real)
    written = host.save()["written"]["one"]
    assert (world.project / ".gitignore").read_text() == "/out\n"
    written.remove(".gitignore")
    assert {"dvc.lock", "kept.json", "out/large", "out/small", "logs/a"} <= {*written}
    assert "logs/link" not in written
    for name in written:
        assert (world.project / name).read_bytes() == (world.work / "project" / name).read_bytes()
    assert host.save()["changed"] is False
    assert not World(tmp_path).call("results").stderr
    # what was saved is committed as a whole, and stages run again
    committed_to(world, dvc__yaml=f"stages: {{make: {stage.replace('echo 2', 'echo 3')}}}\n")
    world.run()
    assert host.save()["changed"] is True
    assert (world.project / "kept.json").read_text() == "3\n"
