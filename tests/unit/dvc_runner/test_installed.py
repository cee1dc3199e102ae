"""The environment that stages find: the project's own packages in it, and what it does to runs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES

from dvc_runner import limits
from dvc_runner.limits import limit_met, memory_kills
from dvc_runner.run import why_stopped
from dvc_runner.settings import settings

from .conftest import World, git
from .wheels import own_package

IMAGE = ROLES / "dvc_runner/files/image"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose container has an image with an environment, made as the image's is."""
    made = World(tmp_path)
    made.project.mkdir()
    git(made.project, "init", "--quiet")
    image = tmp_path / "opt"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", image / "pipeline"], check=True)
    for place in image.glob("pipeline/lib/python3*/site-packages"):
        (place / "local.pth").write_text((IMAGE / "local.pth").read_text())
    monkeypatch.setenv("RUNNER_IMAGE", str(image))
    first = [made.work / "local/bin", image / "pipeline/bin"]
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, first), os.environ["PATH"]]))
    monkeypatch.setenv("RUNNER_WORKSPACE", str(made.work))
    told(made, "1")
    return made


def told(world: World, digest: str, *local: str) -> None:
    """Have the image say what its environment is."""
    said = {"digest": digest, "local": local, "python": "3.13", "source": "uv.lock"}
    (world.root / "opt/environment.json").write_text(json.dumps(said))


def written(world: World, **files: str) -> None:
    for name, content in files.items():
        (world.project / name.replace("__", ".")).write_text(content)
    git(world.project, "add", "--all")
    git(world.project, "commit", "--quiet", "-m", "the project")


TWO = """\
stages:
  first:
    cmd: cat one.txt > first.txt
    deps: [one.txt]
    outs: [first.txt]
  second:
    cmd: {second}
    deps: [first.txt]
    outs: [second.txt]
"""


# --- packages of the project


@pytest.mark.processes
def test_a_stage_imports_the_projects_own_package_and_finds_its_commands(world: World) -> None:
    own_package(world.project)
    command = "own-command > said.txt && python -c 'import own; print(own.__file__)' > where.txt"
    command += " && python -c 'from importlib.metadata import version; print(version(\"own\"))'"
    pipeline = f"stages:\n  only:\n    cmd: {json.dumps(command)}\n    deps: [src]\n"
    written(world, dvc__yaml=f"{pipeline}    outs: [said.txt, where.txt]\n")
    told(world, "1", ".")
    said = world.run()
    assert "Installing the project in the environment." in said
    place = world.work / "project"
    assert (place / "said.txt").read_text() == "own command ran\n"
    assert (place / "where.txt").read_text() == f"{place}/src/own.py\n"
    # what a build leaves beside the code is no part of the code
    assert not (place / "src/own.egg-info").exists()


@pytest.mark.processes
def test_a_package_is_installed_anew_only_where_that_changes_it(world: World) -> None:
    own_package(world.project)
    pipeline = "stages:\n  only:\n    cmd: own-command > said.txt\n    deps: [src/own.py]\n"
    written(world, dvc__yaml=f"{pipeline}    outs: [said.txt]\n")
    told(world, "1", ".")
    assert "Installing" in world.run()
    (world.project / "src/own.py").write_text("def main():\n    print('changed')\n")
    written(world)
    assert "Installing" not in world.run()
    assert (world.work / "project/said.txt").read_text() == "changed\n"
    with (world.project / "pyproject.toml").open("a") as file:
        file.write("[tool.own]\n")
    written(world)
    assert "Installing" in world.run()
    told(world, "1")
    (world.project / "src/own.py").write_text("def main():\n    print('again')\n")
    written(world, dvc__yaml="stages: {}\n")
    world.run()
    assert not (world.work / "local").exists()


@pytest.mark.processes
def test_a_package_that_does_not_build_is_said_with_the_builders_words(world: World) -> None:
    own_package(world.project)
    written(world, dvc__yaml=TWO.format(second="touch second.txt"), one__txt="1\n")
    (world.project / "tools/backend.py").write_text("raise RuntimeError('no compiler here')\n")
    written(world)
    told(world, "1", ".")
    done = world.call("local", str(world.project))
    assert done.returncode == 1
    assert "the project can not be installed: " in done.stderr
    assert "no compiler here" in done.stderr


@pytest.mark.processes
def test_a_lock_that_was_made_here_is_saved_with_the_results(world: World) -> None:
    written(world, dvc__yaml=TWO.format(second="cp first.txt second.txt"), one__txt="1\n")
    world.run()
    lock = world.root / "opt/requirements-lock.txt"
    for content, saved in (("", False), ("six==1.17.0\n", True)):
        lock.write_text(content)
        assert (lock.name in world.results()) is saved


# --- another environment


@pytest.mark.processes
def test_another_environment_runs_every_stage_again_and_says_so(world: World) -> None:
    written(world, dvc__yaml=TWO.format(second="cp first.txt second.txt"), one__txt="1\n")
    world.run()
    assert "Nothing to do" in world.run()
    told(world, "2")
    snapshot = git(world.work / "project", "log", "-1", "--format=%H", "HEAD~1")
    asked = subprocess.run(
        world.command("check"),
        env=world.environment(),
        input=json.dumps({"snapshot": snapshot, "params": {}}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(asked.stdout)["reason"] == "the environment changed (uv.lock)"
    said = world.run()
    assert "Running stage 'first'" in said
    assert "Running stage 'second'" in said
    assert json.loads((world.work / "state.json").read_text())["environment"] == "2"
    assert "Nothing to do" in world.run()


@pytest.mark.processes
def test_a_stage_that_ran_in_the_new_environment_is_kept_where_the_next_one_fails(
    world: World,
) -> None:
    second = f"test ! -e {world.root}/broken && cp first.txt second.txt"
    written(world, dvc__yaml=TWO.format(second=second), one__txt="1\n")
    world.run()
    told(world, "2")
    (world.root / "broken").touch()
    assert world.call("local", str(world.project)).returncode == 1
    (world.root / "broken").unlink()
    said = world.run()
    assert "Stage 'first' didn't change" in said
    assert "Running stage 'second'" in said


@pytest.mark.processes
def test_a_frozen_stage_stays_what_it_was_in_another_environment(world: World) -> None:
    pipeline = TWO.format(second="cp first.txt second.txt")
    written(world, dvc__yaml=pipeline, one__txt="1\n")
    world.run()
    told(world, "2")
    written(world, dvc__yaml=pipeline.replace("  first:\n", "  first:\n    frozen: true\n"))
    said = world.run()
    assert "Running stage 'first'" not in said
    assert "Running stage 'second'" in said


# --- the DVC that is called


def test_the_runner_calls_the_dvc_that_it_came_with_whatever_is_first_in_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "dvc"
    other.write_text("#!/bin/sh\nexit 9\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert settings({}).dvc == str(Path(sys.executable).parent / "dvc")


@pytest.mark.processes
def test_a_stages_dvc_is_the_runners_whatever_the_project_has_of_that_name(tmp_path: Path) -> None:
    shim = tmp_path / "shim"
    text = (IMAGE / "bin/dvc").read_text()
    shim.write_text(text.replace("/opt/dvc/bin/python", sys.executable))
    shim.chmod(0o755)
    for name in ("dvc.py", "yaml.py", "git.py"):
        (tmp_path / name).write_text("raise SystemExit('the project was imported')\n")
    done = subprocess.run(
        [shim, "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- uv in a stage


def variables(world: World) -> dict[str, str]:
    """The variables that the image has, for a container that lies in a world's directory."""
    text = (IMAGE / "Dockerfile").read_text().replace("\\\n", " ")
    line = next(line for line in text.splitlines() if line.startswith("ENV "))
    said = line.replace("/opt", str(world.root / "opt")).replace("/workspace", str(world.work))
    return dict(word.partition("=")[::2] for word in shlex.split(said)[1:])


@pytest.mark.parametrize("files", [{}, {"pyproject.toml": "[project]\nname='p'\nversion='1'\n"}])
def test_uv_run_takes_the_environment_of_the_image_and_makes_none(
    world: World, files: dict[str, str]
) -> None:
    files = {**files, ".python-version": "3.8.1\n"}
    if "pyproject.toml" in files:
        files["pyproject.toml"] += "requires-python = '>=3.9'\ndependencies = ['nowhere']\n"
    for name, content in files.items():
        (world.project / name).write_text(content)
    done = subprocess.run(
        [
            Path(sys.executable).parent / "uv",
            "run",
            "python",
            "-c",
            "import sys; print(sys.prefix)",
        ],
        cwd=world.project,
        env=variables(world),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{world.root}/opt/pipeline\n", done.stderr
    left = {path.name for path in world.project.iterdir()} - {".git"}
    assert left == set(files)


# --- what stands in for poetry


def poetry(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [IMAGE / "bin/poetry", *words], capture_output=True, text=True, check=False
    )


def test_poetry_run_runs_a_command_in_the_environment_that_is_there(tmp_path: Path) -> None:
    assert poetry("run", "echo", "a b").stdout == "a b\n"
    assert poetry("--quiet", "-C", str(tmp_path), "run", "pwd").stdout == f"{tmp_path}\n"
    assert poetry("run", "sh", "-c", "exit 3").returncode == 3


def test_another_command_of_poetrys_is_refused_in_one_sentence() -> None:
    done = poetry("install", "--no-root")
    assert done.returncode == 1
    assert done.stderr.startswith("poetry install is not to be had in a stage: ")
    assert done.stderr.count("\n") == 1


# --- where stages put things


@pytest.mark.processes
def test_what_stages_leave_in_the_temporary_directory_is_gone_at_the_next_run(
    world: World,
) -> None:
    command = "test ! -e $TMPDIR/left && mkdir $TMPDIR/left && cp one.txt o.txt"
    pipeline = f"stages:\n  s:\n    cmd: {command}\n    deps: [one.txt]\n    outs: [o.txt]\n"
    written(world, dvc__yaml=pipeline, one__txt="1\n")
    for content in ("1\n", "2\n"):
        written(world, one__txt=content, note__txt=content)
        done = world.call("local", str(world.project), TMPDIR=str(world.work / "tmp"))
        assert done.returncode == 0, done.stdout + done.stderr
    assert (world.work / "home").is_dir()


# --- limits


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel says of a container's memory."""
    monkeypatch.setattr(limits, "CGROUP", tmp_path)
    (tmp_path / "memory").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("events", "most"),
    [
        ("memory.events", "memory.max"),
        ("memory/memory.oom_control", "memory/memory.limit_in_bytes"),
    ],
)
def test_a_stage_that_is_killed_for_memory_is_said_with_the_limit(
    kernel: Path, events: str, most: str
) -> None:
    log = kernel / "log"
    log.write_text("Killed\nERROR: failed to reproduce 's': failed to run: x, exited with 137\n")
    (kernel / events).write_text("low 0\noom_kill_disable 0\noom 3\noom_kill 2\n")
    (kernel / most).write_text("2147483648\n")
    assert memory_kills() == 2
    assert limit_met(2, log) == ""
    (kernel / events).write_text("low 0\noom 4\noom_kill 3\n")
    assert limit_met(2, log).startswith(
        "a process was killed at the memory limit of the container, 2.0 GiB: give it more "
        "(dvc_runner_memory)"
    )


@pytest.mark.parametrize(
    "said",
    [
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible",
        "ERROR: failed to reproduce 's': failed to run: python x.py, exited with 135",
        "OSError: [Errno 28] No space left on device: '/dev/shm/x'",
    ],
)
@pytest.mark.usefixtures("kernel")
def test_a_stage_that_has_too_little_shared_memory_is_told_how_much_there_is(
    tmp_path: Path, said: str
) -> None:
    log = tmp_path / "log"
    log.write_text(f"{said}\n")
    assert limit_met(0, log).startswith("shared memory ran out, /dev/shm has ")
    assert "(dvc_runner_memory)" in limit_met(0, log)
    # of an earlier run that is told in the same log
    assert limit_met(0, log, log.stat().st_size) == ""


@pytest.mark.usefixtures("kernel")
def test_a_stage_that_fails_by_itself_is_no_matter_of_limits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("ValueError: no\nERROR: failed to run: x, exited with 1\n")
    assert limit_met(0, log) == ""


@pytest.mark.parametrize(
    ("source", "module", "said"),
    [
        ("", "sklearn", "No file that is read here says what the project needs: add a requirem"),
        ("uv.lock", "sklearn", "uv.lock, which says what is installed, has no package with it"),
        ("uv.lock", "own", "It is the project's own: set PYTHONPATH in the project's environment."),
        ("uv.lock", "in_src.part", "It is the project's own: set PYTHONPATH"),
    ],
)
def test_a_stage_that_lacks_a_module_is_told_where_to_ask_for_it(
    source: str, module: str, said: str, tmp_path: Path
) -> None:
    at = settings({"RUNNER_WORKSPACE": str(tmp_path), "RUNNER_IMAGE": str(tmp_path)})
    (at.project / "src/in_src").mkdir(parents=True)
    (at.project / "own.py").touch()
    (tmp_path / "environment.json").write_text(json.dumps({"digest": "1", "source": source}))
    words = f"> python x.py\nModuleNotFoundError: No module named '{module}'\n"
    at.log.write_text(f"{words}ERROR: failed to reproduce 's': failed to run: python x.py\n")
    assert why_stopped(at).startswith(f"ModuleNotFoundError: No module named '{module}'. {said}")


@pytest.mark.processes
def test_a_stage_that_ends_by_a_bus_error_says_so_in_the_runs_end(world: World) -> None:
    command = 'python -c "import os; os.kill(os.getpid(), 7)"'
    written(world, dvc__yaml=f"stages:\n  s:\n    cmd: {json.dumps(command)}\n")
    done = world.call("local", str(world.project))
    assert done.returncode == 1
    assert "The pipeline stopped (dvc repro ended with code 255): shared memory ran out" in (
        done.stderr
    )
