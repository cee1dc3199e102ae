import fcntl
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from wine_quality import sample, tracking
from wine_quality.config import Project, load_project
from wine_quality.parts import read_part
from wine_quality.runtime import PipelineError, file_digest
from wine_quality.stages import data_ingestion, data_transformation, data_validation, model_trainer

from .conftest import MLFLOW_WARNINGS, ROOT, commit, edit, lock

pytestmark = MLFLOW_WARNINGS


@pytest.fixture
def trained(folder: Path, request: pytest.FixtureRequest) -> Project:
    """A project whose first four stages ran on a small sample, with names of its own."""
    (folder / "x.csv").write_bytes(sample.generate(100, 1))
    edit(
        folder,
        "config.yaml",
        data_ingestion__source="x.csv",
        mlflow__experiment=request.node.name[:90],
        mlflow__registered_model=request.node.name[:90],
    )
    edit(folder, "params.yaml", model__n_estimators=3)
    for stage in (data_ingestion, data_validation, data_transformation, model_trainer):
        assert stage.main(["--project", str(folder)]) == 0
    project = load_project(folder)
    lock(project, file_digest(project.path("raw"), "md5"))
    project.path("metrics").parent.mkdir()
    project.path("metrics").write_text("{}")
    return project


def metrics(project: Project) -> dict[str, Any]:
    measured = {"rmse": 0.7, "r2": 0.4}
    return {
        "train": measured,
        "test": measured,
        "rows": {"raw": 100},
        "data_source": "file",
        "data_name": "x.csv",
        "data_md5": file_digest(project.path("raw"), "md5"),
    }


def track(project: Project) -> tracking.Tracked:
    model = joblib.load(project.path("model"))
    parts = {"train": read_part(project, "train"), "test": read_part(project, "test")}
    return tracking.track(project, model, parts, metrics(project))


def runs(client: MlflowClient, project: Project) -> list[Run]:
    experiment = client.get_experiment_by_name(project.config.mlflow.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def aliases(client: MlflowClient, project: Project) -> dict[str, str]:
    model = client.get_registered_model(project.config.mlflow.registered_model)
    return {name: str(version) for name, version in model.aliases.items()}


def versions(client: MlflowClient, project: Project) -> list[str]:
    name = project.config.mlflow.registered_model
    return [str(found.version) for found in client.search_model_versions(f"name = '{name}'")]


def test_a_second_run_is_a_second_version_and_candidate_follows(
    client: MlflowClient, trained: Project
) -> None:
    assert track(trained).model_version == "1"
    assert track(trained).model_version == "2"
    assert aliases(client, trained) == {"candidate": "2", "champion": "1"}
    assert len(runs(client, trained)) == 2


def test_a_run_that_fails_is_marked_and_registers_nothing(
    client: MlflowClient, trained: Project
) -> None:
    trained.path("source").unlink()
    with pytest.raises(FileNotFoundError):
        track(trained)
    assert [run.info.status for run in runs(client, trained)] == ["FAILED"]
    assert versions(client, trained) == []


def test_a_version_that_could_not_be_judged_is_taken_back(
    client: MlflowClient, trained: Project
) -> None:
    registered = trained.config.mlflow.registered_model
    client.create_registered_model(registered)
    experiment = client.create_experiment("of another store", artifact_location="nowhere://x")
    run_id = client.create_run(experiment).info.run_id
    foreign = client.create_model_version(registered, f"runs:/{run_id}/m", run_id)
    client.set_registered_model_alias(registered, "champion", foreign.version)
    with pytest.raises(PipelineError, match=r"did not take the run \(.*nowhere"):
        track(trained)
    assert [run.info.status for run in runs(client, trained)] == ["FAILED"]
    assert versions(client, trained) == [str(foreign.version)]


def die(client: MlflowClient, project: Project) -> tuple[str, str]:
    """Leave what an attempt in this workspace leaves that is killed; returns its name and run."""
    track(project)
    attempt = project.path("last_run").with_name("attempt").read_text().split()[0]
    experiment = runs(client, project)[0].info.experiment_id
    return attempt, client.create_run(experiment, tags={"attempt": attempt}).info.run_id


def test_a_run_whose_process_was_killed_is_buried_by_the_next_with_its_unused_version(
    client: MlflowClient, trained: Project
) -> None:
    registered = trained.config.mlflow.registered_model
    _, killed = die(client, trained)
    unused = client.create_model_version(registered, f"runs:/{killed}/m", killed)
    serving = client.create_model_version(registered, f"runs:/{killed}/n", killed)
    client.set_registered_model_alias(registered, "champion", serving.version)
    track(trained)
    assert client.get_run(killed).info.status == "FAILED"
    # a version that an alias points at may be in use
    assert str(unused.version) not in versions(client, trained)
    assert str(serving.version) in versions(client, trained)


def test_a_run_that_another_process_may_own_is_left_alone_with_its_version(
    client: MlflowClient, trained: Project
) -> None:
    registered = trained.config.mlflow.registered_model
    experiment = client.create_experiment(trained.config.mlflow.experiment)
    client.create_registered_model(registered)
    other = client.create_run(experiment, tags={"platform": "local"}).info.run_id
    made = client.create_model_version(registered, f"runs:/{other}/m", other)
    track(trained)
    assert client.get_run(other).info.status == "RUNNING"
    assert str(made.version) in versions(client, trained)


def test_no_run_is_buried_by_a_copy_of_its_workspace_nor_while_its_own_is_locked(
    client: MlflowClient, trained: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, living = die(client, trained)
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(trained.root, copy)
    track(load_project(copy))
    assert client.get_run(living).info.status == "RUNNING"
    with trained.path("last_run").with_name("attempt").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        track(trained)
    assert client.get_run(living).info.status == "RUNNING"


HALT = """
import json, sys, time
from pathlib import Path
import joblib
from mlflow import MlflowClient
from wine_quality import tracking
from wine_quality.config import load_project
from wine_quality.parts import read_part

def halt(*_):
    print("registered", flush=True)
    time.sleep(600)

MlflowClient.set_registered_model_alias = halt
project = load_project(Path(sys.argv[1]))
parts = {part: read_part(project, part) for part in ("train", "test")}
tracking.track(project, joblib.load(project.path("model")), parts, json.loads(sys.argv[2]))
"""


@pytest.mark.processes
def test_two_workspaces_that_log_to_one_experiment_leave_each_others_runs_alone(
    client: MlflowClient,
    trained: Project,
    tracking_store: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(trained.root, copy)
    words = [sys.executable, "-c", HALT, str(copy), json.dumps(metrics(trained))]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "MLFLOW_TRACKING_URI": tracking_store,
    }
    with subprocess.Popen(
        words, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True
    ) as living:
        try:
            assert living.stdout is not None
            assert living.stdout.readline() == "registered\n"
            (other,) = runs(client, trained)
            track(trained)
            assert client.get_run(other.info.run_id).info.status == "RUNNING"
            assert len(versions(client, trained)) == 2
        finally:
            living.kill()
    track(trained)
    assert client.get_run(other.info.run_id).info.status == "RUNNING"
    track(load_project(copy))
    assert client.get_run(other.info.run_id).info.status == "FAILED"
    assert len(versions(client, trained)) == 3


def test_data_that_dvc_does_not_know_is_not_tracked(client: MlflowClient, trained: Project) -> None:
    lock(trained, "0" * 32)
    with pytest.raises(PipelineError, match=f"dvc.lock: md5 of .* is {'0' * 32}, that of the file"):
        track(trained)
    (trained.root / "dvc.lock").unlink()
    with pytest.raises(PipelineError, match=r"is not there, .*; run `dvc repro`"):
        track(trained)
    assert client.get_experiment_by_name(trained.config.mlflow.experiment) is None


def test_the_environment_says_which_commit_and_platform_a_run_is_of(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("PIPELINE_GIT_COMMIT", "c" * 40),
        ("PIPELINE_GIT_DIRTY", "true"),
        ("PLATFORM_NAME", "lab"),
    ):
        monkeypatch.setenv(name, value)
    tags = tracking.lineage(trained, metrics(trained))
    assert (tags["git_commit"], tags["git_dirty"], tags["platform"]) == ("c" * 40, "true", "lab")


def test_a_run_names_the_commit_that_its_user_has_also_where_mlflow_itself_looks(
    client: MlflowClient, trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow's own idea of it is the commit of the program that was started
    monkeypatch.setattr(GitRunContext, "in_context", lambda _: True)
    monkeypatch.setattr(GitRunContext, "tags", lambda _: {MLFLOW_GIT_COMMIT: "5" * 40})
    commit(trained.root)
    head = tracking._git(trained.root, "rev-parse", "HEAD")

    def tags() -> dict[str, str]:
        found: dict[str, str] = client.get_run(track(trained).run_id).data.tags
        return {key: value for key, value in found.items() if "git" in key}

    assert tags() == {"git_commit": head, "git_dirty": "false", MLFLOW_GIT_COMMIT: head}
    monkeypatch.setenv("PIPELINE_GIT_COMMIT", "c" * 40)
    monkeypatch.setenv("PIPELINE_GIT_DIRTY", "true")
    assert tags() == {
        "git_commit": "c" * 40,
        "git_dirty": "true",
        "git_snapshot": head,
        MLFLOW_GIT_COMMIT: "c" * 40,
    }
    # of a directory that is in no repository
    monkeypatch.setenv("PIPELINE_GIT_COMMIT", "none")
    assert tags()[MLFLOW_GIT_COMMIT] == "none"


def test_a_run_tells_the_packages_it_was_made_with(
    client: MlflowClient, trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = client.get_run(track(trained).run_id)
    text = Path(
        client.download_artifacts(run.info.run_id, "environment.csv", str(tmp_path))
    ).read_text()
    assert run.data.tags["environment"] == hashlib.sha256(text.encode()).hexdigest()
    lines = text.splitlines()
    assert lines[:2] == ["package,version", f"python,{platform.python_version()}"]
    assert {f"{name},{version(name)}" for name in tracking.REQUIREMENTS} <= set(lines)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "scikit_learn-99.dist-info").mkdir()
    (tmp_path / "scikit_learn-99.dist-info/METADATA").write_text(
        "Name: Scikit.Learn\nVersion: 99\n"
    )
    told = tracking.lineage(trained, metrics(trained))["environment"]
    assert told != run.data.tags["environment"]
    assert "scikit-learn,99" in tracking.environment().splitlines()


def test_without_git_the_commit_is_none(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIPELINE_GIT_COMMIT", "PIPELINE_GIT_DIRTY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(trained.root.parent))
    tags = tracking.lineage(trained, metrics(trained))
    assert (tags["git_commit"], tags["git_dirty"]) == ("none", "none")
    assert "git_snapshot" not in tags


@pytest.mark.usefixtures("client")
def test_the_registered_model_takes_whole_numbers_in_any_column_and_refuses_what_is_none(
    trained: Project,
) -> None:
    from mlflow.pyfunc.scoring_server import infer_and_parse_data  # noqa: PLC0415  warns at import

    registered = trained.config.mlflow.registered_model
    address = f"models:/{registered}/{track(trained).model_version}"
    loaded = mlflow.pyfunc.load_model(address)
    whole = read_part(trained, "test")[0].head(3).round().astype("int64")
    wanted = loaded.predict(whole.astype("float64"))
    assert wanted.tolist() == joblib.load(trained.path("model")).predict(whole).tolist()
    columns = [str(name) for name in whole]
    for given in (whole, whole[columns[::-1]], whole.to_dict("records"), whole.to_dict("list")):
        assert loaded.predict(given).tolist() == wanted.tolist()
    body = {"dataframe_split": whole.to_dict("split", index=False)}
    # as `mlflow models serve` reads a request
    parsed = infer_and_parse_data(body, loaded.metadata.get_input_schema())
    assert loaded.predict(parsed).tolist() == wanted.tolist()
    with pytest.raises(MlflowException, match=f"missing inputs .*{columns[0]}"):
        loaded.predict(whole[columns[1:]])
    with pytest.raises(ValueError, match="could not convert string to float: 'dry'"):
        loaded.predict(whole.astype({columns[0]: object}).assign(**{columns[0]: "dry"}))


@pytest.mark.processes
def test_a_server_that_is_down_is_one_sentence_with_its_address_but_no_password(
    trained: Project,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mlflow.set_tracking_uri(f"http://me:s3cret@127.0.0.1:{port}")
    with pytest.raises(PipelineError) as seen:
        track(trained)
    sentence = str(seen.value)
    assert sentence.startswith(f"MLflow at http://127.0.0.1:{port} did not take the run")
    assert "nothing is lost: run again when it answers" in sentence
    assert "s3cret" not in sentence
    assert "\n" not in sentence


def test_the_record_for_programs_is_plain_json(trained: Project, client: MlflowClient) -> None:
    record = json.loads(json.dumps(track(trained).record()))
    assert set(record) == {"run_id", "experiment_id", "model_version", "data_md5", "model_md5"}
    with pytest.raises(MlflowException, match="not found"):
        client.get_run("0" * 32)
    assert client.get_run(record["run_id"]).info.status == "FINISHED"
