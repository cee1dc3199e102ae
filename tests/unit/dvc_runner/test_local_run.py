"""A pipeline of two stages, run by the runner, from the first run to one that is killed.

No server, no Docker and no machine learning: what is tested is the runner.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from .conftest import DVC, World, git, state_of

pytestmark = pytest.mark.processes

DVC_YAML = """\
stages:
  double:
    cmd: sh double.sh
    deps: [double.sh, numbers.txt]
    params: [factor]
    outs: [out/doubled.txt]
  total:
    cmd: sh total.sh
    deps: [total.sh, out/doubled.txt]
    params: [offset]
    metrics:
      - metrics.json: {cache: false}
"""
DOUBLE = r"""echo "doubling for $PIPELINE_GIT_COMMIT $PIPELINE_GIT_DIRTY"
factor=$(sed -n 's/^factor: \([0-9]*\).*/\1/p' params.yaml)
mkdir -p out
while read -r number; do echo $((number * factor)); done < numbers.txt > out/doubled.txt
"""
TOTAL = r"""echo "adding up"
if [ -n "$HOLD" ]; then touch "$HOLD"; sleep 60; fi
offset=$(sed -n 's/^offset: \([0-9]*\).*/\1/p' params.yaml)
total=$offset
while read -r number; do total=$((total + number)); done < out/doubled.txt
[ "$total" -lt 1000 ] || { echo "total $total is too large" >&2; exit 3; }
printf '{"total": %d}\n' "$total" > metrics.json
"""


@pytest.fixture(scope="module")
def after_first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The world after one run, and what that run said."""
    world = World(tmp_path_factory.mktemp("world"))
    world.project.mkdir()
    files = {"dvc.yaml": DVC_YAML, "double.sh": DOUBLE, "total.sh": TOTAL}
    files |= {"params.yaml": "factor: 2  # of each number\noffset: 0\n", "numbers.txt": "1\n2\n3\n"}
    for name, content in files.items():
        (world.project / name).write_text(content)
    git(world.project, "init", "--quiet")
    git(world.project, "add", "--all")
    git(world.project, "commit", "--quiet", "-m", "the project")
    return world.root, world.run()


@pytest.fixture
def world(after_first_run: tuple[Path, str], tmp_path: Path) -> World:
    """A copy of the world after its first run."""
    root = tmp_path / "world"
    shutil.copytree(after_first_run[0], root, symlinks=True)
    return World(root)


def test_the_first_run_makes_every_output_and_pushes_what_the_cache_keeps(
    after_first_run: tuple[Path, str],
) -> None:
    root, said = after_first_run
    world = World(root)
    assert world.total() == 12
    assert "adding up" in said
    doubled = (world.work / "project/out/doubled.txt").read_bytes()
    assert doubled in {content for _, content in state_of(world.remote).values()}
    assert len(world.objects()) == 1


def test_stages_are_told_the_projects_commit(after_first_run: tuple[Path, str]) -> None:
    root, said = after_first_run
    head = git(World(root).project, "rev-parse", "HEAD")
    assert f"doubling for {head} false" in said


def test_a_run_leaves_the_project_as_it_was(after_first_run: tuple[Path, str]) -> None:
    project = World(after_first_run[0]).project
    assert git(project, "status", "--porcelain", "--ignored") == ""


def test_a_run_ends_as_a_commit_on_top_of_the_snapshot(world: World) -> None:
    place = world.work / "project"
    state = json.loads((world.work / "state.json").read_text())
    assert git(place, "log", "-1", "--format=%P", "runs") == state["snapshot"]
    assert "dvc.lock" in git(place, "show", "--name-only", "--format=", "runs").splitlines()
    assert git(place, "status", "--porcelain") == ""
    assert state["metrics"] == {"metrics.json": {"total": 12}}


def test_a_second_run_has_nothing_to_do(world: World) -> None:
    before = state_of(world.work / "project/out")
    assert world.run().startswith("Nothing to do")
    assert state_of(world.work / "project/out") == before


def test_a_changed_parameter_runs_the_stages_that_use_it_and_no_others(world: World) -> None:
    said = world.run("--param", "params.yaml:offset=5")
    assert world.total() == 17
    assert "doubling" not in said
    assert "factor: 2  # of each number" in (world.work / "project/params.yaml").read_text()
    assert "offset: 0" in (world.project / "params.yaml").read_text()
    assert world.run("--param", "params.yaml:offset=5").startswith("Nothing to do")
    world.run()
    assert world.total() == 12


def test_changed_code_runs_again(world: World) -> None:
    (world.project / "numbers.txt").write_text("10\n")
    said = world.run()
    assert "doubling for" in said
    assert "true" in said
    assert world.total() == 20


def test_a_misspelt_parameter_is_refused_and_the_next_run_is_well(world: World) -> None:
    done = world.call("local", str(world.project), "--param", "params.yaml:ofset=5")
    assert done.returncode == 1
    assert "params.yaml has no 'ofset' there (it has factor, offset)" in done.stderr
    world.run()
    assert world.total() == 12


def test_data_is_read_by_the_parameters_that_the_project_names_for_it(
    world: World, tmp_path: Path
) -> None:
    fed(world)
    *words, sha256 = given(tmp_path / "mine", "4\n")
    done = world.call("local", str(world.project), *words)
    assert done.returncode == 1
    assert "needs the project's parameter for sha256" in done.stderr
    world.run(*words, sha256)
    written = (world.work / "project/params.yaml").read_text()
    digest = hashlib.sha256(b"4\n").hexdigest()
    assert f"source: ../inputs/{digest[:16]}/mine.txt" in written
    assert f"sha256: '{digest}'" in written
    assert world.total() == 8


def test_a_stage_that_the_project_dropped_leaves_the_lock_with_its_outputs(world: World) -> None:
    lone = DVC_YAML[: DVC_YAML.index("  total:")]
    (world.project / "dvc.yaml").write_text(lone)
    world.run()
    project = world.work / "project"
    assert "total" not in (project / "dvc.lock").read_text()
    assert not (project / "metrics.json").exists()
    assert (project / "out/doubled.txt").read_text() == "2\n4\n6\n"


def test_a_failing_stage_stops_the_run_with_its_own_words_and_keeps_what_was_finished(
    world: World,
) -> None:
    done = world.call("local", str(world.project), "--param", "params.yaml:factor=1000")
    assert done.returncode == 1
    assert "total 6000 is too large" in done.stdout
    assert "The pipeline stopped (dvc repro ended with code" in done.stderr
    assert "): " in done.stderr
    assert "total 6000 is too large" in done.stderr
    result = json.loads((world.work / "result.json").read_text())
    assert result["ok"] is False
    assert "total 6000 is too large" in result["tail"]
    done = world.call("local", str(world.project), "--param", "params.yaml:factor=1000")
    assert "doubling" not in done.stdout
    assert "total 6000 is too large" in done.stdout
    world.run("--param", "params.yaml:factor=3")
    assert world.total() == 18


def test_every_stage_runs_when_that_is_asked_for_after_a_run_that_failed(world: World) -> None:
    shutil.rmtree(world.work)
    world.call("local", str(world.project), "--param", "params.yaml:factor=1000")
    for name, force in (("a1", False), ("b2", True)):
        world.ask(name, params={"params.yaml:factor": 1000}, force=force)
        assert world.call("run", name).returncode == 1
        assert "total 6000 is too large" in world.result(name)["tail"]
        assert ("doubling for" in world.said(name)) is force


def test_a_run_that_takes_too_long_is_stopped_and_what_was_finished_is_kept(world: World) -> None:
    world.ask("a1", params={"params.yaml:factor": 5}, timeout=12)
    done = world.call("run", "a1", HOLD=str(world.root / "reached"))
    assert done.returncode == 1
    said = world.result("a1")["error"]
    assert said.startswith("The run took longer than dvc_runner_timeout, 12 seconds")
    assert "The last good run stays in force" in said
    assert world.total() == 12
    world.ask("b2", params={"params.yaml:factor": 5}, timeout=120)
    assert world.call("run", "b2").returncode == 0
    assert "doubling for" not in world.said("b2")
    assert world.total() == 30


def test_a_request_waits_for_another_one_and_is_then_run_itself(world: World) -> None:
    reached = world.root / "reached"
    world.ask("a1", params={"params.yaml:offset": 5})
    first = subprocess.Popen(
        world.command("run", "a1"),
        env=world.environment(HOLD=str(reached)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(reached.exists)
    for name in ("b2", "c3"):
        world.ask(name, params={"params.yaml:offset": 7})
    others = [
        subprocess.Popen(
            world.command("run", name), env=world.environment(), stdout=subprocess.DEVNULL
        )
        for name in ("b2", "c3")
    ]
    until(lambda: "Waiting for the run that began at" in world.said("b2"))
    told = json.loads(world.call("progress", "b2", "0").stdout)
    assert (told["running"], told["result"]) == (True, None)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert [other.wait() for other in others] == [0, 0]
    assert not (world.work / "requests/a1/result.json").exists()
    second, third = world.result("b2"), world.result("c3")
    assert (second["changed"], third["changed"]) == (True, False)
    assert second["params"] == third["params"] == {"params.yaml:offset": 7}
    assert world.total() == 19
    assert "Running stage" not in world.said("c3")


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that comes within a minute."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lock_that_another_dvc_wrote_does_not_take_over_the_account_of_the_last_run(
    world: World,
) -> None:
    told = 'mkdir -p logs; printf \'{"run_id": "%d"}\' $$ > logs/last_run.json\n'
    (world.project / "total.sh").write_text(told + TOTAL)
    (world.project / ".gitignore").write_text("logs/\n")
    place, account = world.work / "project", world.work / "project/logs/last_run.json"
    world.run()
    world.run("--param", "params.yaml:offset=5")
    last = account.read_text()
    # by hand: the run cache brings the first lock back, and the account stays that of the second
    params = place / "params.yaml"
    params.write_text(params.read_text().replace("offset: 5", "offset: 0"))
    subprocess.run([DVC, "repro", "--quiet"], cwd=place, check=True)
    assert (world.total(), account.read_text()) == (12, last)
    said = world.run()
    assert "both are put back" in said
    assert "adding up" in said
    assert world.total() == 12
    assert account.read_text() != last


def fed(world: World) -> None:
    """Make the project read its numbers where a parameter says."""
    project = world.project
    (project / "dvc.yaml").write_text(
        DVC_YAML.replace("double.sh, numbers.txt", "double.sh").replace(
            "[factor]", "[factor, source]"
        )
    )
    source = "source=$(sed -n 's/^source: //p' params.yaml)\n"
    (project / "double.sh").write_text(source + DOUBLE.replace("< numbers.txt", '< "$source"'))
    (project / "params.yaml").write_text("factor: 2\noffset: 0\nsource: numbers.txt\nsha256: ''\n")


def given(place: Path, content: str) -> tuple[str, ...]:
    """Data for that project, always under the same name."""
    place.mkdir()
    (place / "mine.txt").write_text(content)
    keys = (f"--data-param={key}=params.yaml:{key}" for key in ("source", "sha256"))
    return ("--data", str(place / "mine.txt"), *keys)


def test_refused_data_leave_the_last_good_run_in_force_and_say_the_way_on(
    world: World, tmp_path: Path
) -> None:
    fed(world)
    good, bad = given(tmp_path / "good", "4\n"), given(tmp_path / "bad", "5000\n")
    world.run(*good)
    place = world.work / "project"
    before = {name: (place / name).read_bytes() for name in ("dvc.lock", "out/doubled.txt")}
    for again in (False, True):  # what was finished is not done again
        done = world.call("local", str(world.project), *bad)
        assert done.returncode == 1
        assert ("doubling for" in done.stdout) is not again
        assert "The last good run stays in force: data mine.txt" in done.stderr
        assert "`make up` without DATA goes on" in done.stderr
    assert {name: (place / name).read_bytes() for name in before} == before
    assert git(place, "status", "--porcelain") == ""
    assert (world.total(), (place / "out/doubled.txt").read_text()) == (8, "8\n")
    assert [path.read_text() for path in (world.work / "inputs").glob("*/*")] == ["4\n"]
    assert world.run().startswith("Nothing to do")
    world.run("--param", "params.yaml:offset=1")
    assert world.total() == 9


@pytest.mark.parametrize(
    ("takes", "given", "advised"),
    [
        (True, {"params": {"params.yaml:factor": 1000}}, True),
        (True, {"set": ["factor=1000"]}, False),
        (True, {"set": ["factr=1"]}, False),
        (False, {"params": {"params.yaml:factor": 1000}}, False),
    ],
    ids=["a stage", "its parameters", "a parameter that is not there", "a project without data"],
)
def test_advice_about_data_is_for_what_they_can_mend(
    world: World, takes: bool, given: dict[str, object], advised: bool
) -> None:
    if takes:
        fed(world)
        world.run()
    names = {key: f"params.yaml:{key}" for key in ("source", "sha256")}
    world.ask("a1", data_params=names, **given)
    assert world.call("run", "a1").returncode == 1
    said = world.result("a1")["error"]
    assert "The last good run stays in force" in said
    assert ("DATA" in said) is advised
    assert ("data the project's own" in said) is advised


@pytest.mark.parametrize("lacking", ["the parameter", "the file"])
def test_a_project_that_takes_no_data_says_so(world: World, tmp_path: Path, lacking: str) -> None:
    if lacking == "the file":
        (world.project / "dvc.yaml").write_text("stages: {one: {cmd: echo 1 > o, outs: [o]}}\n")
        (world.project / "params.yaml").unlink()
    done = world.call("local", str(world.project), *given(tmp_path / "mine", "4\n"))
    assert done.returncode == 1
    assert "takes no DATA, for it has not the parameter params.yaml:s" in done.stderr
    assert "data_params" in done.stderr
    assert "dvc_runner_data_params names" not in done.stderr
    assert "If the data are at fault" not in done.stderr


def test_where_no_run_was_good_a_refusal_says_that_nothing_is_in_force(
    world: World, tmp_path: Path
) -> None:
    fed(world)
    shutil.rmtree(world.work)
    done = world.call("local", str(world.project), *given(tmp_path / "bad", "5000\n"))
    assert done.returncode == 1
    assert "no data, model or metrics are in force" in done.stderr
    world.run()
    assert world.total() == 12


def test_outputs_that_git_has_are_refused_with_the_way_out(world: World) -> None:
    (world.project / "out").mkdir()
    (world.project / "out/doubled.txt").write_text("2\n")
    (world.project / "params.yaml").write_text("factor: 3\noffset: 0\n")
    git(world.project, "add", "--force", "out/doubled.txt")
    done = world.call("local", str(world.project))
    assert done.returncode == 1
    assert "`git rm -r --cached out/doubled.txt` in the project" in done.stderr
    assert "/doubled.txt in out/.gitignore" in done.stderr
    git(world.project, "rm", "-r", "--cached", "--quiet", "out/doubled.txt")
    (world.project / "out/.gitignore").write_text("/doubled.txt\n")
    world.run()
    assert world.total() == 18


@contextmanager
def unwritable(remote: Path) -> Iterator[None]:
    """Have every push to the remote fail."""
    aside = remote.with_name("aside")
    if remote.exists():
        remote.rename(aside)
    remote.write_text("a file where a directory is wanted")
    yield
    remote.unlink()
    if aside.exists():
        aside.rename(remote)


def test_after_a_failed_push_a_refusal_leaves_the_last_good_run_in_force(
    world: World, tmp_path: Path
) -> None:
    fed(world)
    good, unpushed, bad = (
        given(tmp_path / name, f"{number}\n")
        for name, number in (("good", 4), ("unpushed", 5), ("bad", 5000))
    )
    world.run(*good)
    before = json.loads((world.work / "state.json").read_text())
    with unwritable(world.remote):
        done = world.call("local", str(world.project), *unpushed)
        assert "failed three times: dvc push ended with code" in done.stderr
    done = world.call("local", str(world.project), *bad)
    assert "The last good run stays in force: data mine.txt" in done.stderr
    assert json.loads((world.work / "state.json").read_text()) == before
    assert [path.read_text() for path in (world.work / "inputs").glob("*/*")] == ["4\n"]
    assert world.run().startswith("Nothing to do")
    assert world.total() == 8


def test_data_whose_push_failed_are_pushed_by_the_next_run(world: World, tmp_path: Path) -> None:
    fed(world)
    with unwritable(world.remote):
        world.call("local", str(world.project), *given(tmp_path / "mine", "5\n"))
    assert "doubling" not in world.run()
    assert world.total() == 10
    assert "good" not in json.loads((world.work / "state.json").read_text())


def test_where_the_first_push_failed_a_refusal_leaves_no_data_in_force(
    world: World, tmp_path: Path
) -> None:
    fed(world)
    shutil.rmtree(world.work)
    with unwritable(world.remote):
        world.call("local", str(world.project), *given(tmp_path / "unpushed", "5\n"))
    done = world.call("local", str(world.project), *given(tmp_path / "bad", "5000\n"))
    assert "no data, model or metrics are in force" in done.stderr
    world.run()
    assert world.total() == 12


def test_a_state_of_an_earlier_release_that_names_refused_data_is_mended(
    world: World, tmp_path: Path
) -> None:
    fed(world)
    good, bad = given(tmp_path / "good", "4\n"), given(tmp_path / "bad", "5000\n")
    world.run(*good)
    path = world.work / "state.json"
    before = json.loads(path.read_text())
    world.call("local", str(world.project), *bad, "--param", "params.yaml:offset=1")
    refused = json.loads((world.work / "unfinished.json").read_text())
    of_refused = {key: refused[key] for key in ("data", "params", "snapshot")}
    path.write_text(json.dumps({**before, **of_refused, "done": False}))
    (world.work / "unfinished.json").unlink()
    done = world.call("local", str(world.project))
    assert "The last good run stays in force: data mine.txt" in done.stderr
    mended = json.loads(path.read_text())
    assert mended["params"].pop("params.yaml:offset") == 0
    assert mended == before
    world.run()
    assert world.total() == 8


def test_a_first_run_of_an_earlier_release_that_was_refused_is_forgotten(
    world: World, tmp_path: Path
) -> None:
    fed(world)
    shutil.rmtree(world.work)
    world.call("local", str(world.project), *given(tmp_path / "bad", "5000\n"))
    refused = json.loads((world.work / "unfinished.json").read_text())
    state = {key: refused[key] for key in ("data", "params", "snapshot")}
    (world.work / "state.json").write_text(json.dumps({**state, "done": False}))
    (world.work / "unfinished.json").unlink()
    assert world.call("local", str(world.project)).returncode == 1
    world.run()
    assert world.total() == 12


def test_a_run_that_the_tracking_server_lost_is_made_again_from_the_first_stage(
    world: World,
) -> None:
    told = 'mkdir -p logs; printf \'{"run_id": "%d"}\' $$ > logs/last_run.json\n'
    (world.project / "total.sh").write_text(told + TOTAL)
    (world.project / ".gitignore").write_text("logs/\n")
    world.run()
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = b"HTTP/1.0 404 Not Found\r\n\r\n"
        Thread(target=say, args=(server, answer), daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = world.call("local", str(world.project), MLFLOW_TRACKING_URI=address)
    assert "doubling" in done.stdout
    assert done.returncode == 0


def say(server: socket.socket, answer: bytes) -> None:
    """Answer two calls: whether a run is needed is asked by `check` and by the run itself."""
    for _ in range(2):
        with server.accept()[0] as caller:
            caller.recv(1 << 16)
            caller.sendall(answer)


def test_an_output_that_the_remote_lost_is_pushed_again_without_running_a_stage(
    world: World,
) -> None:
    (lost,) = world.objects()
    (world.remote / lost).unlink()
    said = world.run()
    assert "doubling" not in said
    assert "adding up" not in said
    assert world.objects() == {lost}
    assert world.run().startswith("Nothing to do")


def test_an_output_that_the_workspace_lost_comes_back_without_running_a_stage(
    world: World,
) -> None:
    (world.work / "project/out/doubled.txt").unlink()
    said = world.run()
    assert "doubling" not in said
    assert (world.work / "project/out/doubled.txt").read_text() == "2\n4\n6\n"


def test_a_remote_that_can_not_be_written_ends_with_its_name_and_keeps_the_outputs(
    world: World,
) -> None:
    shutil.rmtree(world.remote)
    world.remote.write_text("a file where a directory is wanted")
    done = world.call("local", str(world.project), "--param", "params.yaml:factor=3")
    assert done.returncode == 1
    assert f"The push to {world.remote} failed three times: dvc push ended with" in done.stderr
    world.remote.unlink()
    said = world.run("--param", "params.yaml:factor=3")
    assert "doubling" not in said
    assert len(world.objects()) == 1


def test_the_results_are_the_lock_and_every_output_as_the_lock_has_them(world: World) -> None:
    found = world.results()
    assert {"dvc.lock", "metrics.json", "out/doubled.txt"} <= found.keys()
    for name, row in found.items():
        content = (world.work / "project" / name).read_bytes()
        assert Path(row["at"]).read_bytes() == content
        md5 = hashlib.md5(content).hexdigest()  # noqa: S324 - DVC's own
        assert (row["size"], row["md5"]) == (len(content), md5)


def test_without_a_run_there_is_nothing_to_save(tmp_path: Path) -> None:
    done = World(tmp_path).call("results")
    assert done.returncode == 1
    assert "There is no run to save yet" in done.stderr


@pytest.mark.parametrize("whole", [True, False], ids=["with its children", "alone"])
def test_a_run_that_is_killed_in_the_middle_does_not_hinder_the_next(
    whole: bool, world: World
) -> None:
    reached = world.root / "reached"
    killed = subprocess.Popen(
        world.command("local", str(world.project), "--param", "params.yaml:factor=5"),
        env=world.environment(HOLD=str(reached)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not reached.exists():
        assert killed.poll() is None, "the run ended before its second stage"
        time.sleep(0.02)
    if whole:
        os.killpg(killed.pid, signal.SIGKILL)
    else:
        killed.kill()
    killed.wait()
    if not whole:
        # its DVC still works in the workspace: nobody else may
        done = world.call("local", str(world.project), "--param", "params.yaml:factor=5")
        assert done.returncode == 1
        assert f"A run is under way in {world.work}: wait for it." in done.stderr
        os.killpg(killed.pid, signal.SIGKILL)
    said = world.run("--param", "params.yaml:factor=5")
    assert "doubling" not in said
    assert world.total() == 30
    assert world.run("--param", "params.yaml:factor=5").startswith("Nothing to do")
