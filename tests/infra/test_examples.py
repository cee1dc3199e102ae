"""The example projects as a user has them: iris by its inventory, fraud as one more entry."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.infra.conftest import ROOT, Stack, stack
from tests.infra.faults_support import docker

from platform_verify import report

SMALL = {"params.yaml:data.rows": 20_000, "params.yaml:data.source": "synthetic"}
PROJECTS = {
    # as inventory/iris has it
    "iris": {"source": str(ROOT / "examples/iris")},
    "fraud": {"source": str(ROOT / "examples/fraud"), "params": SMALL},
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The platform that inventory/iris makes, under another name, with fraud beside iris."""
    made = stack("mlops-iris", 9250, tmp_path_factory.mktemp("mlops-iris"), of="iris")
    try:
        made.play("site.yml", dvc_runner_projects=PROJECTS)
        yield made
    finally:
        made.destroy()


def tracked(platform: Stack, experiment: str) -> list[Run]:
    """Ask MLflow for all runs of an experiment, the newest first."""
    client = MlflowClient(f"http://127.0.0.1:{platform.variables['mlflow_port']}")
    found = client.get_experiment_by_name(experiment)
    assert found
    return list(client.search_runs([found.experiment_id]))


def output(platform: Stack, project: str, path: str) -> str:
    """Read a file of a project's workspace."""
    runner = platform.container(f"dvc-runner-{project}")
    return docker("exec", runner, "cat", f"/workspace/project/{path}")


def test_iris_is_one_run_its_model_is_registered_and_its_data_lie_below_the_prefix(
    platform: Stack,
) -> None:
    [run] = tracked(platform, "iris")
    full = json.loads(output(platform, "iris", "reports/metrics.json"))
    assert run.data.metrics["test_accuracy"] == full["test"]["accuracy"]
    assert run.data.metrics["train_accuracy"] == full["train"]["accuracy"]
    assert run.data.tags["model_version"] == "1"
    assert run.data.tags["project"] == "iris"
    list_keys = (
        "from pathlib import Path; from minio import Minio;"
        "u, p = (Path(f'/run/secrets/root_{n}').read_text().strip() for n in ('user', 'password'));"
        "c = Minio(endpoint='minio:9000', access_key=u, secret_key=p, secure=False);"
        "print(*(o.object_name for o in c.list_objects('dvc-storage', recursive=True)), sep='\\n')"
    )
    keys = docker("exec", platform.container("minio-admin"), "python", "-c", list_keys).split()
    assert len(keys) > 5
    assert all(key.startswith("iris/files/md5/") for key in keys)


def test_fraud_is_three_runs_of_one_experiment_that_all_say_synthetic(platform: Stack) -> None:
    runs = tracked(platform, "credit-card-fraud")
    assert {run.data.params["model"] for run in runs} == {
        *("logistic_regression", "random_forest", "gradient_boosting")
    }
    for run in runs:
        assert run.data.tags["data_source"] == "synthetic"
        assert {"average_precision", "roc_auc", "recall_at_alert_rate"} <= set(run.data.metrics)
        assert run.data.metrics["alerts"] <= 40
    full = json.loads(output(platform, "fraud", "reports/metrics.json"))
    assert full["data_source"] == "synthetic"
    assert full["rows"]["raw"] == 20_000


def test_the_verdict_holds_for_both_and_a_second_run_changes_nothing(platform: Stack) -> None:
    judged = report.read(platform.verdict_path)
    assert judged is not None
    assert judged.ok
    held = {check.name for check in judged.checks if check.ok}
    assert {f"A fresh clone can pull everything ({name})" for name in PROJECTS} <= held
    assert {f"MLflow has the run, with its lineage ({name})" for name in PROJECTS} <= held
    assert "changed=0" in platform.play("site.yml", dvc_runner_projects=PROJECTS)


def test_another_hyper_parameter_of_iris_runs_the_last_stage_alone(platform: Stack) -> None:
    changed = ["config/config.yaml:model.C=0.1"]
    one = {"dvc_runner_projects": PROJECTS, "dvc_runner_project": "iris"}
    said = platform.play("playbooks/pipeline.yml", dvc_runner_set=changed, **one)
    ran = [line.split("'")[1] for line in said.splitlines() if "Running stage" in line]
    assert ran == ["experiment_runner"]
    newest, *before = tracked(platform, "iris")
    assert newest.data.params["C"] == "0.1"
    assert len(before) == 1
