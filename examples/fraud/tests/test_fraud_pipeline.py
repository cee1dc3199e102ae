"""Both stages as DVC runs them, on a small generated table."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
NAMES = {"logistic_regression", "random_forest", "gradient_boosting"}
pytestmark = [
    pytest.mark.processes,
    # MLflow's own code, run in the test's process
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


def repro(at: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "AWS"))}
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(at / ".dvc/tmp/site"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{at}/mlflow.db",
        "OMP_NUM_THREADS": "1",  # this machine runs other tests
    }
    return subprocess.run(
        ["dvc", "repro"], cwd=at, env=kept | own | env, capture_output=True, text=True, check=False
    )


def settings(at: Path, part: str, **changes: object) -> None:
    content = yaml.safe_load((at / "params.yaml").read_text())
    content[part].update(changes)
    (at / "params.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The project after one run, and what it said."""
    at = tmp_path_factory.mktemp("fraud") / "fraud"
    left = ("__pycache__", "data", "models", "reports", "cache", "tmp")
    shutil.copytree(ROOT, at, ignore=shutil.ignore_patterns(*left))
    subprocess.run(["git", "init", "-q"], cwd=at, check=True)
    settings(at, "data", source="synthetic", rows=20_000)
    settings(at, "train", random_forest={"n_estimators": 10, "max_depth": 8, "max_samples": 0.5})
    done = repro(at)
    assert done.returncode == 0, done.stdout + done.stderr
    return at, done.stdout


def runs(at: Path) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{at}/mlflow.db")
    found = client.get_experiment_by_name("credit-card-fraud")
    assert found
    every = client.search_runs([found.experiment_id])
    assert {run.info.status for run in every} == {"FINISHED"}
    return {run.data.params["model"]: run for run in every}


def report(at: Path) -> dict[str, Any]:
    return dict(json.loads((at / "reports/metrics.json").read_text()))


def test_three_models_are_runs_of_one_experiment_with_the_figures_that_matter(
    project: tuple[Path, str],
) -> None:
    at, _ = project
    found, told = runs(at), report(at)
    assert set(found) == set(told["models"]) == NAMES
    for name, run in found.items():
        test = told["models"][name]["test"]
        for key in ("average_precision", "roc_auc", "recall_at_alert_rate", "true_positives"):
            assert run.data.metrics[key] == test[key]
        assert "accuracy" not in " ".join(run.data.metrics)
        assert test["alerts"] <= 40
        assert sum(v for k, v in test.items() if k.endswith(("positives", "negatives"))) == 4000
        assert run.data.params["class_weight"] == "balanced"


def test_every_model_is_far_better_than_guessing(project: tuple[Path, str]) -> None:
    for figures in report(project[0])["models"].values():
        assert figures["test"]["average_precision"] > 20 * 0.00173
        assert figures["test"]["recall_at_alert_rate"] > 0.4


def test_the_confusion_matrix_the_curve_and_the_model_are_in_each_run(
    project: tuple[Path, str],
) -> None:
    at, _ = project
    client = MlflowClient(f"sqlite:///{at}/mlflow.db")
    for name, run in runs(at).items():
        plots = {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
        assert plots == {
            f"plots/{name}_{rest}"
            for rest in ("confusion_matrix.png", "pr_curve.png", "pr_curve.csv")
        }
        assert run.outputs
        assert run.outputs.model_outputs
    curve = pd.read_csv(at / "reports/plots/random_forest_pr_curve.csv")
    assert curve["recall"].max() == 1.0


def test_synthetic_data_are_called_so_in_the_log_the_report_and_each_run(
    project: tuple[Path, str],
) -> None:
    at, said = project
    assert said.count("data_source=synthetic") == 3
    assert report(at)["data_source"] == "synthetic"
    assert {run.data.tags["data_source"] for run in runs(at).values()} == {"synthetic"}


def test_the_best_by_average_precision_is_named_once(project: tuple[Path, str]) -> None:
    at, _ = project
    by_figure = {n: each["test"]["average_precision"] for n, each in report(at)["models"].items()}
    best = max(by_figure, key=lambda name: by_figure[name])
    assert report(at)["best"] == best
    assert {n for n, run in runs(at).items() if run.data.tags["best"] == "true"} == {best}


def test_another_alert_rate_leaves_the_data_and_a_server_that_is_down_leaves_the_report(
    project: tuple[Path, str],
) -> None:
    at, _ = project
    settings(at, "train", alert_rate=0.02)
    down = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    failed = repro(at, **down)
    assert failed.returncode != 0
    assert "MLflow did not take the run" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert report(at)["alert_rate"] == 0.02
    assert "Running stage 'get_data'" not in failed.stdout
