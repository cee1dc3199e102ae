import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from wine_quality import sample, tracking
from wine_quality.config import Project
from wine_quality.parts import read_part
from wine_quality.runtime import PipelineError, file_digest
from wine_quality.stages import data_ingestion, data_transformation, data_validation, model_trainer

from .conftest import MLFLOW_WARNINGS, edit

pytestmark = MLFLOW_WARNINGS


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking store in a file, shared by this module's tests; each has its own names in it."""
    folder = tmp_path_factory.mktemp("mlflow")
    address = f"sqlite:///{folder}/x.db"
    yield address
    mlflow.set_tracking_uri("")


@pytest.fixture
def client(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    for name in ("PIPELINE_GIT_COMMIT", "PIPELINE_GIT_DIRTY", "PLATFORM_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a file store
    mlflow.set_tracking_uri(uri)
    return MlflowClient()


@pytest.fixture
def trained(folder: Path, request: pytest.FixtureRequest) -> Project:
    """A project whose first four stages ran on a small sample, with names of its own."""
    from wine_quality.config import load_project  # noqa: PLC0415

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


def lock(project: Project, md5: str) -> None:
    out = {"path": project.config.paths.raw, "md5": md5}
    content = {"stages": {"data_ingestion": {"outs": [out]}}}
    (project.root / "dvc.lock").write_text(yaml.safe_dump(content))


def metrics(project: Project, rmse: float = 0.7, data_source: str = "file") -> dict[str, Any]:
    measured = {"rmse": rmse, "r2": 0.4}
    return {
        "train": measured,
        "test": measured,
        "rows": {"raw": 100},
        "data_source": data_source,
        "data_md5": file_digest(project.path("raw"), "md5"),
    }


def track(project: Project, rmse: float = 0.7) -> tracking.Tracked:
    model = joblib.load(project.path("model"))
    return tracking.track(project, model, read_part(project, "test"), metrics(project, rmse))


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


def test_champion_is_first_then_better_and_never_synthetic_over_real(
    client: MlflowClient, trained: Project
) -> None:
    registered = trained.config.mlflow.registered_model
    experiment = client.create_experiment(trained.config.mlflow.experiment)
    client.create_registered_model(registered)

    def crowned(rmse: float, data_source: str) -> str:
        run = client.create_run(experiment, tags={"data_source": data_source})
        client.log_metric(run.info.run_id, "test_rmse", rmse)
        made = client.create_model_version(
            registered, f"runs:/{run.info.run_id}/m", run.info.run_id
        )
        tracking.crown(client, registered, made.version, metrics(trained, rmse, data_source))
        return aliases(client, trained)["champion"]

    assert crowned(0.9, "synthetic") == "1"
    assert crowned(0.8, "synthetic") == "2"
    assert crowned(0.95, "file") == "3", "a model of real data follows one of synthetic data"
    assert crowned(0.95, "file") == "3"
    assert crowned(0.7, "file") == "5"
    assert crowned(0.8, "file") == "5"
    assert crowned(0.1, "synthetic") == "5"
    assert crowned(0.6, "uci") == "8"


def test_a_champion_without_a_metric_stays(client: MlflowClient, trained: Project) -> None:
    registered = trained.config.mlflow.registered_model
    experiment = client.create_experiment(trained.config.mlflow.experiment)
    client.create_registered_model(registered)
    run = client.create_run(experiment)
    for _ in range(2):
        made = client.create_model_version(registered, "runs:/x/m", run.info.run_id)
    client.set_registered_model_alias(registered, "champion", "1")
    verdict = tracking.crown(client, registered, made.version, metrics(trained))
    assert aliases(client, trained)["champion"] == "1"
    assert "no run with a test_rmse" in verdict


def test_a_second_run_is_a_second_version_and_candidate_follows(
    client: MlflowClient, trained: Project
) -> None:
    assert track(trained, rmse=0.7).model_version == "1"
    assert track(trained, rmse=0.8).model_version == "2"
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


def test_a_version_whose_alias_could_not_be_set_is_taken_back(
    client: MlflowClient, trained: Project
) -> None:
    registered = trained.config.mlflow.registered_model
    client.create_registered_model(registered)
    foreign = client.create_model_version(registered, "runs:/x/m", run_id="0" * 32)
    client.set_registered_model_alias(registered, "champion", foreign.version)
    with pytest.raises(PipelineError, match="did not take the run"):
        track(trained)
    assert [run.info.status for run in runs(client, trained)] == ["FAILED"]
    assert versions(client, trained) == [str(foreign.version)]


def test_a_run_whose_process_was_killed_is_buried_by_the_next_with_its_unused_version(
    client: MlflowClient, trained: Project
) -> None:
    registered = trained.config.mlflow.registered_model
    experiment = client.create_experiment(trained.config.mlflow.experiment)
    client.create_registered_model(registered)
    killed = client.create_run(experiment, tags={"platform": "local"}).info.run_id
    elsewhere = client.create_run(experiment, tags={"platform": "other"}).info.run_id
    client.create_model_version(registered, f"runs:/{killed}/m", killed)
    serving = client.create_model_version(registered, f"runs:/{killed}/n", killed)
    client.set_registered_model_alias(registered, "champion", serving.version)
    done = track(trained)
    assert {run.info.run_id: run.info.status for run in runs(client, trained)} == {
        killed: "FAILED",
        elsewhere: "RUNNING",
        done.run_id: "FINISHED",
    }
    # a version that an alias points at may be in use
    assert set(versions(client, trained)) == {done.model_version, str(serving.version)}


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


def test_without_git_the_commit_is_none(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIPELINE_GIT_COMMIT", "PIPELINE_GIT_DIRTY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(trained.root.parent))
    tags = tracking.lineage(trained, metrics(trained))
    assert (tags["git_commit"], tags["git_dirty"]) == ("none", "none")


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
