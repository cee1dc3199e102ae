"""Several projects on one platform, each with a runner of its own, beside the one that is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from tests.infra.conftest import BIN, ROOT, Stack
from tests.infra.faults_support import (
    Gate,
    begun,
    commit_all,
    docker,
    gate,
    gateway,
    git,
    wait_for,
)
from tests.unit.sshd import SSHD, ssh_server

from platform_verify import report

SECRET = "a-key-that-nobody-reads-42"  # noqa: S105 - of a stage of this test
UNJUDGED = ("--skip-tags", "verify")


def small(at: Path, command: str) -> dict[str, Any]:
    """Write a project of one stage that makes one file; returns its entry."""
    at.mkdir()
    at.parent.chmod(0o755)
    stage = {"cmd": command, "outs": ["made.txt"], "params": ["n"]}
    (at / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    (at / "params.yaml").write_text("n: 1\n")
    commit_all(at)
    return {"source": str(at), "memory": "512m"}


def entries() -> dict[str, Any]:
    """What the inventory that is shipped has."""
    path = ROOT / "inventory/local/group_vars/all/dvc_runner.yml"
    found: dict[str, Any] = yaml.safe_load(path.read_text())["dvc_runner_projects"]
    here = json.dumps(found).replace("{{ ansible_config_file | dirname }}", str(ROOT))
    return dict(json.loads(here))


def made(platform: Stack, project: str, name: str = "made.txt") -> str:
    """What a project's stage made."""
    runner = platform.container(f"dvc-runner-{project}")
    return docker("exec", runner, "cat", f"/workspace/project/{name}")


@pytest.fixture
def beside(test_platform: Stack) -> Iterator[Stack]:
    """The platform, which afterwards has its own project alone."""
    yield test_platform
    test_platform.play("site.yml", "--skip-tags", "pipeline,verify")
    ours = f"label=mlops.platform={test_platform.name}"
    for name in docker("volume", "ls", "--filter", ours, "--format", "{{.Name}}").split():
        if "dvc-runner-" in name and not name.endswith(("-wine", "_tmp", "_queue")):
            docker("volume", "rm", name)


def test_each_project_is_run_judged_and_kept_apart_from_the_others(
    beside: Stack, tmp_path: Path
) -> None:
    one = small(
        tmp_path / "one", 'printf %s "$KEY" | wc -c > made.txt; ls /run/secrets >> made.txt'
    )
    two = small(tmp_path / "two", "cat params.yaml > made.txt")
    projects = {
        **entries(),
        "one": {**one, "secrets": {"KEY": SECRET}},
        "two": {**two, "params": {"params.yaml:n": 2}},
    }
    # by a file: a verdict finds what stands on a command line
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"dvc_runner_projects": projects, "dvc_runner_data": ""}))
    said = beside.play("site.yml", "-e", f"@{given}")
    assert "one | Running stage 'make'" in said
    assert "The pipeline has run to its end (two)" in " ".join(said.split())
    assert made(beside, "one").splitlines()[0] == str(len(SECRET))
    assert "env_KEY" in made(beside, "one")
    assert made(beside, "two") == "n: 2"
    runner = beside.container("dvc-runner-one")
    assert SECRET not in docker("inspect", runner)
    assert "env_KEY" not in docker("exec", beside.container("dvc-runner-two"), "ls", "/run/secrets")
    assert SECRET not in docker("exec", beside.container("dvc-runner-two"), "env")
    assert docker("inspect", "--format", "{{.HostConfig.Memory}}", runner) == str(512 * 2**20)

    again = beside.play("site.yml", "-e", f"@{given}")
    assert "changed=0" in again

    left = beside.play("site.yml", "--skip-tags", "pipeline,verify")
    assert f"{beside.name}_dvc-runner-one" in left
    assert "no service is declared that has them" in " ".join(left.split())
    names = docker("ps", "--all", "--format", "{{.Names}}").split()
    assert runner not in names
    assert beside.container("dvc-runner-wine") in names

    back = beside.play("site.yml", *UNJUDGED, "-e", f"@{given}")
    assert "Running stage" not in back, "what an entry left was not taken up again"


def test_a_project_that_fails_is_named_and_the_others_run(beside: Stack, tmp_path: Path) -> None:
    projects = {
        "bad": small(tmp_path / "bad", "echo the flux is not compensated; exit 3"),
        "good": small(tmp_path / "good", "echo 1 > made.txt"),
    }
    said = beside.attempt(
        "site.yml",
        *UNJUDGED,
        dvc_runner_projects={**entries(), **projects},
        dvc_runner_data="",
    )
    assert "failed=1" in said
    assert "the flux is not compensated" in " ".join(said.partition("PLAY RECAP")[2].split())
    assert made(beside, "good") == "1"


def waiting(door: Gate) -> str:
    """Say in a stage that it is there, and wait until it may go on."""
    ask = f"import urllib.request as web; web.urlopen('http://{door.address}')"
    return (
        f'for _ in $(seq 900); do python3 -c "{ask}" 2>/dev/null && break; sleep 0.2; done; '
        "echo 1 > made.txt"
    )


def test_projects_beyond_those_that_may_run_at_once_wait_and_say_their_place(
    beside: Stack, tmp_path: Path
) -> None:
    with gate() as door:
        projects = {
            name: small(tmp_path / name, waiting(door)) for name in ("first", "second", "third")
        }
        given = {"dvc_runner_projects": projects, "dvc_runner_at_once": 2, "dvc_runner_data": ""}
        words = ["-i", beside.inventory, "-e", json.dumps(given)]
        beside.play("site.yml", "--skip-tags", "pipeline,verify", **given)
        log = tmp_path / "run.log"
        with log.open("w") as output:
            running = subprocess.Popen(
                ["ansible-playbook", "playbooks/pipeline.yml", *words],
                cwd=ROOT,
                env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(
                lambda: "third | Waiting for a place: 2 at once" in log.read_text(),
                "the third to wait",
            )
            assert door.asked.is_set()
            door.opened.set()
            assert running.wait(300) == 0, log.read_text()
        finally:
            running.kill()
            running.wait()
    assert {made(beside, name) for name in projects} == {"1"}


def ask_by_api(platform: Stack, project: str, *parameters: str) -> str:
    """Ask for a run as another program does; returns the request's name."""
    token = (
        Path(platform.inventory) / ".secrets" / platform.name / "dvc_runner_api_token"
    ).read_text()
    said = docker(
        *("exec", "-i", platform.container(f"dvc-runner-{project}"), "python3", "-c", ASK, project),
        text=json.dumps({"token": token.strip(), "asked": {"set": [*parameters]}}),
    )
    return str(json.loads(said)["id"])


ASK = """
import json, sys
from urllib.request import Request, urlopen
given = json.load(sys.stdin)
headers = {"Authorization": "Bearer " + given["token"], "Content-Type": "application/json"}
url = "http://dvc-runner-api:8000/projects/" + sys.argv[1] + "/runs"
print(urlopen(Request(url, json.dumps(given["asked"]).encode(), headers)).read().decode())
"""


def history(platform: Stack, project: str) -> list[dict[str, Any]]:
    """The runs of a project that ended well."""
    runner = platform.container(f"dvc-runner-{project}")
    return list(json.loads(docker("exec", runner, "dvc_runner", "history")))


def test_a_rotation_waits_for_the_run_in_work_and_what_waits_goes_on_after_it_with_its_set(
    beside: Stack, tmp_path: Path
) -> None:
    secrets = Path(beside.inventory) / ".secrets" / beside.name
    with gate() as door, ExitStack() as stack:
        command = f"{waiting(door)}; cat params.yaml > made.txt"
        projects = {name: small(tmp_path / name, command) for name in ("long", "other")}
        given = {"dvc_runner_projects": projects, "dvc_runner_data": "", "dvc_runner_api": True}
        beside.play("site.yml", "--skip-tags", "pipeline,verify", **given)
        before = {path.name: path.read_text() for path in secrets.iterdir()}
        only = {**given, "dvc_runner_project": "long"}

        def begin(log: str, playbook: str, variables: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a process
            path = tmp_path / log
            return stack.enter_context(begun(beside, path, f"playbooks/{playbook}.yml", variables))

        def said(log: str, words: str) -> None:
            wait_for(lambda: words in (tmp_path / log).read_text(), f"{log} to say {words!r}")

        first = begin("first", "pipeline", only)
        said("first", "Running stage 'make'")
        refused = beside.attempt("playbooks/rotate.yml", **given, dvc_runner_hold_timeout=0)
        assert "Nothing was changed: in work is long since" in " ".join(refused.split())
        killed = begin("killed", "rotate", given)
        said("killed", "the queue is held; in work is long since")
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        rotation = begin("rotation", "rotate", given)
        said("rotation", "the queue is held; in work is long since")
        refused = beside.attempt("playbooks/rotate.yml", **given)
        assert "Nothing was changed: another rotation (" in " ".join(refused.split())
        second = begin("second", "pipeline", {**only, "dvc_runner_set": ["n=2"]})
        said("second", "a run is under way: this one waits")
        wait_for(lambda: asked_of(beside, "long"), "the second to be asked for")
        ask_by_api(beside, "long", "n=3")
        assert before == {path.name: path.read_text() for path in secrets.iterdir()}
        door.opened.set()
        assert first.wait(300) == 0, (tmp_path / "first").read_text()
        assert rotation.wait(600) == 0, (tmp_path / "rotation").read_text()
        assert second.wait(300) == 0, (tmp_path / "second").read_text()
        wait_for(lambda: len(history(beside, "long")) == 3, "the run of the API")
    after = {path.name: path.read_text() for path in secrets.iterdir()}
    assert not set(before.items()) & set(after.items())
    runs = history(beside, "long")
    assert [run["set"] for run in runs] == [[], ["n=2"], ["n=3"]]
    assert made(beside, "long") == "n: 3"
    port = beside.variables["mlflow_port"]
    for run in runs:
        (known,) = run["mlflow_runs"]
        found = requests.get(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={known}", timeout=60
        )
        assert found.json()["run"]["info"]["status"] == "FINISHED"


def test_a_queue_that_a_killed_rotation_left_held_goes_on_with_make_up(beside: Stack) -> None:
    runner = ("exec", beside.container("dvc-runner-wine"), "dvc_runner")
    with subprocess.Popen(["true"]) as process:
        process.wait()
    alive, dead = (f"{socket.gethostname()}:{pid}" for pid in (os.getpid(), process.pid))

    def is_held() -> bool:
        return "queue held" in docker(*runner, "status")

    try:
        docker(*runner, "hold", "1800", alive)
        beside.play("site.yml", *UNJUDGED)
        assert is_held(), "make up let runs begin in the middle of a rotation"
        docker(*runner, "release", alive)
        docker(*runner, "hold", "1800", dead)
        beside.play("site.yml", "--check")
        assert is_held()
        beside.play("site.yml", *UNJUDGED)
        assert not is_held()
    finally:
        for by in (alive, dead):
            docker(*runner, "release", by)


def test_a_port_that_is_taken_is_told_before_a_secret_is_forgotten_or_the_queue_held(
    beside: Stack,
) -> None:
    secrets = Path(beside.inventory) / ".secrets" / beside.name
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = beside.attempt("playbooks/rotate.yml", mlflow_port=port)
    _, _, said = " ".join(failed.split()).partition("Failed on ")
    assert port in said
    assert "No run begins" not in said
    assert before == {path.name: path.read_text() for path in secrets.iterdir()}
    status = ("exec", beside.container("dvc-runner-wine"), "dvc_runner", "status")
    assert "queue held" not in docker(*status)


def test_a_rotation_that_fails_says_until_when_the_queue_is_held_and_what_frees_it(
    beside: Stack,
) -> None:
    runner = ("exec", beside.container("dvc-runner-wine"), "dvc_runner")
    failed = beside.attempt("playbooks/rotate.yml", mlflow_image="127.0.0.1:9/nowhere:1")
    _, _, said = " ".join(failed.split()).partition("Failed on ")
    assert "127.0.0.1:9" in said
    assert re.search(
        r"No run begins until \d\d:\d\d:\d\d UTC: the rotation has the queue held", said
    )
    assert "`make up` has what waits begin" in said
    assert "queue held" in docker(*runner, "status")
    beside.play("site.yml", *UNJUDGED)
    assert "queue held" not in docker(*runner, "status")


def asked_of(platform: Stack, project: str) -> list[str]:
    """The requests that wait for their turn."""
    runner = platform.container(f"dvc-runner-{project}")
    return list(json.loads(docker("exec", runner, "dvc_runner", "status"))["waiting"])


PROJECT = """
[project]
name = "{name}"
version = "0.1"
requires-python = ">=3.11"
dependencies = ["{package}"]
"""
PACKAGE = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project.scripts]
train-it = "own:train"
[tool.hatch.build.targets.wheel]
packages = ["src/own"]
"""
# what a data loader, a compiler's cache and a person's own program do in a stage
LIMITS = (
    "head -c 100M /dev/zero > /dev/shm/batch && cp /bin/true $TMPDIR/compiled && $TMPDIR/compiled"
    " && touch $HOME/.cache-of-mine && echo fine > made.txt"
)


def test_each_project_finds_the_packages_that_its_own_files_ask_for(
    beside: Stack, tmp_path: Path
) -> None:
    said = "import six; open('made.txt', 'w').write(six.__version__)"
    projects = {
        "uv": small(tmp_path / "uv", f'uv run python -c "{said}"'),
        "plain": small(tmp_path / "plain", f'python -c "{said}" && {LIMITS}'),
        "layout": small(tmp_path / "layout", "train-it"),
    }
    (tmp_path / "uv/pyproject.toml").write_text(
        PROJECT.format(name="locked", package="six==1.16.0")
    )
    subprocess.run([BIN / "uv", "lock", "--quiet"], cwd=tmp_path / "uv", check=True)
    (tmp_path / "plain/requirements.txt").write_text("six\n")
    own = tmp_path / "layout/src/own/__init__.py"
    own.parent.mkdir(parents=True)
    own.write_text("def train():\n    import six\n    open('made.txt', 'w').write('own')\n")
    (tmp_path / "layout/pyproject.toml").write_text(
        PROJECT.format(name="own", package="six") + PACKAGE
    )
    for name in projects:
        commit_all(tmp_path / name)
    given = {"dvc_runner_projects": {**entries(), **projects}, "dvc_runner_data": ""}
    beside.play("site.yml", *UNJUDGED, **given)
    assert {name: made(beside, name) for name in projects} == {
        "uv": "1.16.0",
        "plain": "fine",
        "layout": "own",
    }
    (tmp_path / "plain/requirements.txt").write_text("six==1.16.0\n")
    refused = beside.attempt("playbooks/pipeline.yml", **given)
    assert "that plain asks for are not those of its image" in " ".join(refused.split())
    assert "plain | Running stage 'make'" in beside.play("site.yml", *UNJUDGED, **given)


@pytest.mark.skipif(not SSHD, reason="there is no sshd on this machine")
def test_data_that_only_a_teams_ssh_server_has_reach_a_run_in_its_container(
    beside: Stack, tmp_path: Path
) -> None:
    project = tmp_path / "team"
    entry = small(project, "wc -l <numbers.csv >made.txt")
    (project / "numbers.csv").write_text("1\n2\n3\n")
    with ssh_server(tmp_path / "ssh", gateway()) as server:
        store = tmp_path / "store"
        url = f"ssh://{server.user}@{server.address}:{server.port}{store}"
        for words in (
            ("init", "--quiet"),
            ("add", "--quiet", "numbers.csv"),
            ("remote", "add", "--quiet", "--default", "team", str(store)),
            ("push", "--quiet"),
            ("remote", "modify", "team", "url", url),
        ):
            subprocess.run([BIN / "dvc", *words], cwd=project, check=True)
        shutil.rmtree(project / ".dvc/cache")
        (project / "numbers.csv").unlink()
        commit_all(project)
        keys = {"remote_ssh_key": server.key, "remote_host_key": server.host_key}
        # by a file: keys belong on no command line
        given = tmp_path / "given.json"
        projects = {"team": {**entry, **keys}}
        given.write_text(json.dumps({"dvc_runner_projects": projects, "dvc_runner_data": ""}))
        beside.play("site.yml", *UNJUDGED, "-e", f"@{given}")
    assert made(beside, "team") == "3"


def test_another_container_asks_for_a_run_follows_it_and_reads_its_result(beside: Stack) -> None:
    beside.play("site.yml", "--skip-tags", "pipeline,verify", dvc_runner_api="yes")
    # a run empties that container's /tmp, where the client would keep its token
    elsewhere = ("--env", "TMPDIR=/dev/shm")
    inside = ["exec", "-i", *elsewhere, beside.container("dvc-runner-wine"), "bash", "-euc"]
    example = (ROOT / "docs/pipelines.md").read_text().partition("## From other programs\n")[2]
    commands = example.split("```\n")[1].replace("projects/churn", "projects/wine")
    commands = commands.replace('{"set": ["train.lr=0.1"]}', "{}")
    secrets = Path(beside.inventory) / ".secrets" / beside.name
    token = (secrets / "dvc_runner_api_token").read_text().strip()
    said = docker(*inside, f"read -r token\n{commands}", text=f"{token}\n")
    found = json.loads(said.splitlines()[-1])
    assert found["state"] == "done", said
    assert found["result"]["outputs"]
    door = beside.container("dvc-runner-api")
    keys = "/projects/wine/workspace/project/.dvc/config.local"
    assert "denied" in docker("exec", door, "sh", "-c", f"cat {keys} 2>&1 || true")
    assert docker("exec", door, "sh", "-c", "touch /projects/wine/workspace/x 2>&1 || true")
    code, judged, text = beside.verify("-e", "dvc_runner_api=yes")
    assert code == 0, text
    assert "The runners' API is for who has its token" in {check.name for check in judged.checks}


# what is to be told of each project of tests/projects
TOLD: dict[str, dict[str, Any]] = {
    "stages": {},
    "layout": {"environment": {"PYTHONPATH": ".", "WHO": "me"}},
    "monorepo": {"pipeline": "churn/dvc.yaml"},
}


def own_projects(at: Path) -> dict[str, Any]:
    """Copy tests/projects, each a repository of its own; returns their entries."""
    shutil.copytree(ROOT / "tests/projects", at)
    at.parent.chmod(0o755)
    git("init", "--quiet", at=at / "layout")
    (at / "layout/data").mkdir()
    (at / "layout/data/in.csv").write_text("a,b\n1,2\n")
    subprocess.run([BIN / "dvc", "add", "--quiet", "data/in.csv"], cwd=at / "layout", check=True)
    for name in TOLD:
        commit_all(at / name)
    return {name: {"source": str(at / name), "memory": "512m", **TOLD[name]} for name in TOLD}


def test_what_a_project_may_be_runs_as_it_is_and_the_verdict_holds_for_each(
    beside: Stack, tmp_path: Path
) -> None:
    at = tmp_path / "projects"
    given = {"dvc_runner_projects": own_projects(at), "dvc_runner_data": ""}
    beside.play("site.yml", **given)
    judged = report.read(beside.verdict_path)
    assert judged is not None
    held = {check.name for check in judged.checks if check.ok}
    for name in TOLD:
        assert f"A fresh clone can pull everything ({name})" in held
        assert f"MLflow has the run, with its lineage ({name})" in held
    assert made(beside, "stages", "cross/2-b.txt") == "b"
    assert made(beside, "stages", "still.txt") == "kept"
    assert made(beside, "layout", "out/model.txt") == "0.5 3 2"
    assert made(beside, "layout", "reports/count.txt") == "3 me"
    assert made(beside, "monorepo", "churn/made.txt") == "own 1.17.0\ncommon"
