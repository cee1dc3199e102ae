"""What a tracking server knows of a pipeline run whose project has no line of code for it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.unit.conftest import load

from .conftest import World, committed_to, git, new_world

pytestmark = pytest.mark.processes

PLUG_IN = "dvc_runner/files/image/dvc_runner/mlflow_context/dvc_runner_context.py"
YAML = """\
stages:
  prepare:
    cmd: mkdir -p parts; cp raw.csv parts/a; echo b > parts/b
    deps: [raw.csv]
    outs: [parts]
  train:
    cmd: COMMAND
    deps: [train.py, parts]
    params: [lr, {other.json: [deep]}]
    outs: [model.txt]
    metrics: [{m.json: {cache: false}}]
    plots: [loss.csv]
"""
TRAIN = """\
import json
json.dump({"deep": {"acc": 0.5}, "lost": float("nan"), "name": "x"}, open("m.json", "w"))
open("loss.csv", "w").write("step,loss\\n1,2\\n")
open("model.txt", "w").write(open("parts/a").read())
"""
LOGS = f"""\
import mlflow
with mlflow.start_run(tags={{"platform": "their own"}}):
    mlflow.log_metric("x", 1)
{TRAIN}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server that hands artifacts on, as the platform's does."""
    place = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{place}/x.db", "--artifacts-destination"]
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "mlflow"), *words, *stores, f"{place}/artifacts"],
        cwd=place,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=1).close()  # noqa: S310 - our own
                    break
                except OSError:
                    time.sleep(0.5)
            yield address
        finally:
            os.killpg(process.pid, 15)


def project(world: World, train: str = TRAIN, command: str = "python train.py") -> None:
    """Write a project that trains something."""
    committed_to(
        world,
        dvc__yaml=YAML.replace("COMMAND", command),
        train__py=train,
        raw__csv="1\n",
        params__yaml="lr: 0.1\n" + "".join(f"more{n}: {n}\n" for n in range(120)),
        other__json=json.dumps({"deep": {"text": "x" * 700}}),
    )


def ran(world: World, name: str, address: str) -> str:
    """Run the project under a name; returns what was said."""
    done = world.call(
        "local",
        str(world.project),
        RUNNER_PROJECT=name,
        MLFLOW_TRACKING_URI=address,
        PLATFORM_NAME="testing",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(address: str, name: str) -> list[Any]:
    """The runs of the experiment that is called like the project."""
    client = MlflowClient(address)
    found = client.get_experiment_by_name(name)
    return list(client.search_runs([found.experiment_id])) if found else []


def state(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((world.work / "state.json").read_text())
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def test_a_project_that_logs_nothing_has_one_run_of_what_dvc_knows(
    world: World, server: str, tmp_path: Path
) -> None:
    project(world)
    ran(world, "silent", server)
    (run,) = tracked(server, "silent")
    assert run.info.status == "FINISHED"
    assert state(world)["mlflow_runs"] == [run.info.run_id]
    # more parameters than one request takes, and a value longer than servers take
    assert (run.data.params["lr"], run.data.params["more119"]) == ("0.1", "119")
    assert run.data.params["deep.text"] == "x" * 500
    assert run.data.metrics["deep.acc"] == 0.5
    assert run.data.metrics["lost"] != run.data.metrics["lost"]  # NaN
    lock = (world.work / "project/dvc.lock").read_text()
    assert f"md5: {run.data.tags['out_md5/parts']}" in lock
    assert f"md5: {run.data.tags['dep_md5/raw.csv']}" in lock
    assert "dep_md5/parts" not in run.data.tags  # a stage made it
    head = git(world.project, "rev-parse", "HEAD")
    wanted = {"project": "silent", "platform": "testing", "git_commit": head, "git_dirty": "false"}
    assert wanted.items() <= run.data.tags.items()
    client = MlflowClient(server)
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert names == {"dvc.lock", "m.json", "loss.csv"}
    came = client.download_artifacts(run.info.run_id, "loss.csv", str(tmp_path))
    assert Path(came).read_text() == "step,loss\n1,2\n"

    assert ran(world, "silent", server).startswith("Nothing to do")
    committed_to(world, readme__md="a file that no stage reads\n")
    ran(world, "silent", server)
    assert len(tracked(server, "silent")) == 1
    committed_to(world, params__yaml="lr: 0.2\n")
    ran(world, "silent", server)
    assert len(tracked(server, "silent")) == 2


def test_a_run_that_a_stage_logs_is_told_its_lineage_and_no_second_is_made(
    world: World, server: str
) -> None:
    project(world, LOGS)
    ran(world, "logs", server)
    (run,) = tracked(server, "logs")
    assert state(world)["mlflow_runs"] == [run.info.run_id]
    tags = run.data.tags
    head = git(world.project, "rev-parse", "HEAD")
    assert tags["git_commit"] == tags["mlflow.source.git.commit"] == head
    wanted = {"project": "logs", "dvc_stage": "train", "git_dirty": "false"}
    assert wanted.items() <= tags.items()
    assert tags["platform"] == "their own"
    lock = (world.work / "project/dvc.lock").read_text()
    for name in ("train.py", "parts"):
        assert f"md5: {tags[f'dep_md5/{name}']}" in lock
    assert len(tags["environment"]) == 64


def test_a_stage_that_hides_the_plug_in_is_known_by_the_commit_it_ran_at(
    world: World, server: str
) -> None:
    project(world, LOGS, "PYTHONPATH=src python train.py")
    ran(world, "hides", server)
    (run,) = tracked(server, "hides")
    head = git(world.project, "rev-parse", "HEAD")
    assert run.data.tags["git_commit"] == run.data.tags["mlflow.source.git.commit"] == head
    assert (run.data.tags["platform"], run.data.tags["mlflow.source.name"]) == (
        "their own",
        "train.py",
    )


def test_where_the_server_is_down_the_outputs_are_kept_and_the_next_run_records_it(
    world: World, server: str
) -> None:
    project(world)
    said = ran(world, "down", f"http://user:secret@127.0.0.1:{free_port()}")
    assert said.count("did not take this run") == 1
    assert "secret" not in said
    assert world.objects()
    assert state(world)["done"]
    said = ran(world, "down", server)
    assert "Running stage" not in said
    (run,) = tracked(server, "down")
    assert run.data.metrics["deep.acc"] == 0.5
    assert ran(world, "down", server).startswith("Nothing to do")


def test_a_run_keeps_its_own_id_where_the_server_hears_late_of_an_earlier_one(
    world: World, server: str
) -> None:
    project(world)
    ran(world, "late", f"http://127.0.0.1:{free_port()}")
    keeps = "import json, os\nos.makedirs('logs', exist_ok=True)\n"
    keeps += "json.dump({'run_id': run.info.run_id}, open('logs/last_run.json', 'w'))\n"
    logs = LOGS.replace('own"}):', 'own"}) as run:')
    committed_to(world, train__py=f"{logs}{keeps}")
    ran(world, "late", server)
    (own,) = [run for run in tracked(server, "late") if run.data.metrics.get("x")]
    assert len(tracked(server, "late")) == 2
    assert state(world)["mlflow_runs"] == [own.info.run_id]


def test_a_run_that_was_broken_off_while_it_was_recorded_is_gone_on_with(
    world: World, server: str
) -> None:
    project(world)
    ran(world, "half", f"http://127.0.0.1:{free_port()}")
    (place,) = (world.work / "untracked").iterdir()
    client = MlflowClient(server)
    tags = {"dvc_run": place.name, "mlflow.source.name": "dvc_runner"}
    half = client.create_run(client.create_experiment("half"), tags=tags)
    (world.work / "untracked/killed-while-it-was-noted/artifacts").mkdir(parents=True)
    ran(world, "half", server)
    (run,) = tracked(server, "half")
    assert (run.info.run_id, run.info.status) == (half.info.run_id, "FINISHED")
    assert not list((world.work / "untracked").iterdir())


# --- the plug-in


def test_outside_of_a_stage_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in = load(PLUG_IN)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setenv("DVC_RUNNER_TAGS", "{}")
    assert not plug_in.StageContext().in_context()
    monkeypatch.setenv("DVC_STAGE", "train")
    assert plug_in.StageContext().in_context()


def test_a_run_goes_on_where_its_inputs_can_not_be_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plug_in = load(PLUG_IN)
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("DVC_RUNNER_TAGS", '{"project": "p"}')
    monkeypatch.setenv("DVC_RUNNER_COMMAND", json.dumps([shutil.which("false")]))
    tags = plug_in.StageContext().tags()
    assert set(tags) == {"project", "dvc_stage", "environment"}
    assert "no dep_md5 tags for this run" in caplog.text


def test_the_reason_of_a_failure_is_the_programs_and_not_what_mlflow_prints_at_its_end(
    world: World, server: str
) -> None:
    project(world, "import mlflow\nmlflow.start_run()\nraise ValueError('the table is empty')\n")
    done = world.call(
        "local",
        str(world.project),
        RUNNER_PROJECT="failing",
        MLFLOW_TRACKING_URI=server,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    assert done.returncode == 1
    # else this test would prove nothing
    assert "🏃 View run" in done.stdout.partition("ValueError: ")[2]
    assert "ended with code 255): ValueError: the table is empty. Finished" in done.stderr


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/raw.csv", "dep_md5/data/raw.csv"),
        ("../inputs/a b.csv", "dep_md5/inputs/a b.csv"),
        ("/abs/./x//y", "dep_md5/abs/x/y"),
        ("s3://bucket/k=1", "dep_md5/s3_/bucket/k_1"),
        ("d/" + "x" * 300, "dep_md5/" + "x" * 242),
    ],
)
def test_a_tag_is_named_as_mlflow_allows_it(path: str, name: str) -> None:
    assert load(PLUG_IN).tag("dep_md5", path) == name


def test_the_projects_own_modules_come_before_the_plug_in(world: World) -> None:
    committed_to(
        world,
        dvc__yaml='stages: {see: {cmd: "echo path=$PYTHONPATH"}}\n',
    )
    done = world.call("local", str(world.project), PYTHONPATH="src:lib")
    assert "path=src:lib:" in done.stdout, done.stdout + done.stderr
    assert "/mlflow_context\n" in done.stdout
