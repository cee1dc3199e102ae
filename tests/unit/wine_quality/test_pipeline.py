"""The whole pipeline, run by DVC in a copy of the project with a SQLite tracking store."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import joblib
import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from nbclient import NotebookClient

from wine_quality.parts import digests

from .conftest import MLFLOW_WARNINGS, REAL, ROOT, Workspace, edit, make_workspace

pytestmark = [*MLFLOW_WARNINGS, pytest.mark.processes]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after one `dvc repro`, on the real data where it is to be had."""
    source = str(REAL) if REAL.is_file() else "synthetic"
    workspace = make_workspace(tmp_path_factory.mktemp("workspace"), source)
    workspace.run("dvc", "repro")
    return workspace


def content(workspace: Workspace, name: str) -> dict[str, Any]:
    return dict(json.loads((workspace.path / name).read_text(encoding="utf-8")))


def locked(workspace: Workspace) -> dict[str, str]:
    """md5 of every output, as DVC saw it."""
    stages = yaml.safe_load((workspace.path / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def tracked(workspace: Workspace) -> tuple[MlflowClient, Run]:
    client = MlflowClient(workspace.tracking_uri)
    return client, client.get_run(content(workspace, "logs/last_run.json")["run_id"])


def test_the_model_is_as_good_as_stated(done: Workspace) -> None:
    metrics = content(done, "metrics/metrics.json")
    if metrics["data_source"] == "synthetic":
        assert metrics["test"]["r2"] > 0.2
    else:
        assert metrics["rows"] == {"raw": 1599, "train": 1087, "test": 272}
        assert metrics["test"]["r2"] >= 0.33
        assert metrics["test"]["rmse"] <= 0.69
    assert set(metrics["test"]) == {"rmse", "mae", "r2", "accuracy", "macro_f1"}


def test_every_stage_left_a_line_in_the_log(done: Workspace) -> None:
    log = (done.path / "logs/logs.log").read_text()
    stages = yaml.safe_load((done.path / "dvc.yaml").read_text())["stages"]
    assert [name for name in stages if f" {name}: " not in log] == []


def test_a_run_carries_parameters_metrics_and_lineage(done: Workspace) -> None:
    _, run = tracked(done)
    head = done.run("git", "rev-parse", "HEAD").stdout.strip()
    md5 = locked(done)
    metrics = content(done, "metrics/metrics.json")
    assert run.info.status == "FINISHED"
    assert (
        run.data.tags.items()
        >= {
            "git_commit": head,
            "git_dirty": "true",  # dvc.lock is new
            "data_md5": md5["data/raw/winequality-red.csv"],
            "model_md5": md5["models/model.joblib"],
            "data_source": metrics["data_source"],
            "data_name": REAL.name if REAL.is_file() else "sample rows=1599 seed=42",
            "schema_version": "2",
            "platform": "local",
        }.items()
    )
    assert run.data.params["kind"] == "extra_trees"
    assert run.data.params["split_test_size"] == "0.2"
    assert run.data.metrics == {
        f"{part}_{name}": value
        for part in ("train", "test")
        for name, value in metrics[part].items()
    }


def test_a_run_holds_the_very_files_that_dvc_tracks(done: Workspace, tmp_path: Path) -> None:
    client, run = tracked(done)
    got = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    md5 = locked(done)
    for mine, theirs in (
        ("pipeline/model.joblib", "models/model.joblib"),
        ("pipeline/metrics.json", "metrics/metrics.json"),
        ("pipeline/source.json", "data/source.json"),
    ):
        assert hashlib.md5((got / mine).read_bytes()).hexdigest() == md5[theirs]  # noqa: S324
    train = pd.read_csv(done.path / "data/processed/X_train.csv", dtype="float64")
    assert (got / "trained_on.csv").read_text().split() == ["digest", *sorted(digests(train))]
    plots = {path.name for path in (got / "plots").iterdir()}
    assert plots == {"predicted_vs_actual.png", "residuals.png", "feature_importance.png"}


def test_the_registered_model_predicts_what_the_file_predicts(done: Workspace) -> None:
    mlflow.set_tracking_uri(done.tracking_uri)
    loaded = mlflow.pyfunc.load_model("models:/wine-quality@candidate")
    mlflow.set_tracking_uri("")
    rows = pd.read_csv(done.path / "data/processed/X_test.csv", dtype="float64")
    model = joblib.load(done.path / "models/model.joblib")
    assert np.array_equal(loaded.predict(rows), model.predict(rows))
    assert loaded.metadata.signature.inputs.input_names() == list(rows.columns)
    assert loaded.input_example is not None


def test_the_only_version_is_candidate_and_champion(done: Workspace) -> None:
    client, run = tracked(done)
    for alias in ("candidate", "champion"):
        made = client.get_model_version_by_alias("wine-quality", alias)
        assert made.run_id == run.info.run_id
        assert str(made.version) == content(done, "logs/last_run.json")["model_version"]


def test_every_output_is_the_same_bytes_in_another_directory_and_process(
    done: Workspace, tmp_path: Path
) -> None:
    other = make_workspace(tmp_path, content_source(done))
    names = ", ".join(yaml.safe_load((done.path / "dvc.yaml").read_text())["stages"])
    ran = other.run(
        "python",
        "-c",
        f"from wine_quality.stages import {names}; print(*(s.main([]) for s in ({names})))",
        PYTHONPATH="src",
        PYTHONHASHSEED="1",
        TZ="Asia/Tokyo",
        LC_ALL="C",
        MLFLOW_TRACKING_URI="",
    )
    # without a server the last stage fails, after it wrote the metrics
    assert ran.stdout == "0 0 0 0 1\n"
    for path, md5 in locked(done).items():
        assert hashlib.md5((other.path / path).read_bytes()).hexdigest() == md5, path  # noqa: S324


def content_source(workspace: Workspace) -> str:
    settings = yaml.safe_load((workspace.path / "config.yaml").read_text())
    return str(settings["data_ingestion"]["source"])


def test_nothing_runs_again_while_nothing_changed(done: Workspace) -> None:
    before = content(done, "logs/last_run.json")
    assert "Running stage" not in done.run("dvc", "repro").stdout
    assert content(done, "logs/last_run.json") == before


def test_another_package_runs_every_stage_again(done: Workspace) -> None:
    lock = done.path / "requirements-pipeline.txt"
    before = lock.read_text()
    lock.write_text(before.replace("scikit-learn==", "scikit-learn==99."))
    told = done.run("dvc", "status", "--json").stdout
    lock.write_text(before)
    stages = yaml.safe_load((done.path / "dvc.yaml").read_text())["stages"]
    assert list(json.loads(told)) == list(stages)


def test_a_failed_validation_stops_everything_after_it(tmp_path: Path) -> None:
    rows = [["a", "quality"], ["1", "99"]]
    with (tmp_path / "bad.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    workspace = make_workspace(tmp_path, "bad.csv")
    ran = workspace.run("dvc", "repro", check=False)
    assert ran.returncode != 0
    assert "Running stage 'data_validation'" in ran.stdout
    assert "Running stage 'data_transformation'" not in ran.stdout
    status = (workspace.path / "data/status.txt").read_text()
    assert status.startswith("Validation status: False\n")
    assert "column 'quality': '99' is not from 0 to 10" in status
    assert "Traceback" not in ran.stderr
    assert not (workspace.path / "models").exists()


def test_another_hyper_parameter_runs_only_the_trainer_and_the_evaluation(done: Workspace) -> None:
    # the last test on this workspace: what was tracked above is the run before this one
    first = content(done, "logs/last_run.json")
    edit(done.path, "params.yaml", model__n_estimators=20)
    ran = done.run("dvc", "repro").stdout
    assert [line for line in ran.splitlines() if line.startswith("Running stage")] == [
        "Running stage 'model_trainer':",
        "Running stage 'model_evaluation':",
    ]
    second = content(done, "logs/last_run.json")
    assert second["model_version"] == "2"
    assert second["data_md5"] == first["data_md5"]
    assert second["model_md5"] != first["model_md5"]

    client, run = tracked(done)
    metrics = content(done, "metrics/metrics.json")
    assert run.data.metrics["compared_rows"] == metrics["rows"]["test"]
    assert run.data.metrics["candidate_rmse"] == metrics["test"]["rmse"]
    before = client.get_run(first["run_id"]).data.metrics["test_rmse"]
    assert run.data.metrics["champion_rmse"] == before
    best = "2" if metrics["test"]["rmse"] < before else "1"
    assert str(client.get_model_version_by_alias("wine-quality", "champion").version) == best
    assert run.data.tags["verdict"] in (done.path / "logs/logs.log").read_text()


def test_the_notebook_walks_all_stages_and_writes_nothing_into_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.yaml", "params.yaml", "schema.yaml", "dvc.yaml", "src", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("WINE_DATA", str(REAL) if REAL.is_file() else "synthetic")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = sorted(tmp_path.iterdir()), sorted((ROOT / "notebooks").iterdir())
    text = (ROOT / "notebooks/workflow_steps.ipynb").read_text(encoding="utf-8")
    book = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in book.cells), "strip the outputs first"
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        kind
        for cell in book.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    assert shown.count("image/png") == 4
    assert shown.count("text/html") >= 4
    assert (sorted(tmp_path.iterdir()), sorted((ROOT / "notebooks").iterdir())) == before
