"""dvc.yaml says what each stage depends on; these hold it to what the code does."""

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from .conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PATHS = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["paths"]


def imported(*modules: str) -> set[str]:
    """Names of all modules that a new Python has after importing these."""
    script = f"import sys, json, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def files(modules: set[str]) -> set[str]:
    own = (name.replace(".", "/") for name in modules if name.startswith("wine_quality."))
    return {f"src/{name}.py" for name in own if (ROOT / f"src/{name}.py").is_file()}


@pytest.mark.processes
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_exactly_the_code_it_runs(name: str) -> None:
    modules = [f"wine_quality.stages.{name}"]
    if name == "model_evaluation":
        modules.append("wine_quality.tracking")  # imported when the metrics are safe
    listed = {dep for dep in STAGES[name]["deps"] if dep.startswith("src/")}
    assert listed == files(imported(*modules))


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_depends_on_the_packages_it_runs_with(name: str) -> None:
    assert "requirements-pipeline.txt" in STAGES[name]["deps"]
    assert (ROOT / "requirements-pipeline.txt").is_file()


@pytest.mark.parametrize("name", ["data_ingestion", "data_validation"])
def test_the_first_stages_start_without_the_heavy_libraries(name: str) -> None:
    assert not imported(f"wine_quality.stages.{name}") & {"pandas", "numpy", "sklearn", "mlflow"}


def outputs(stage: dict[str, Any]) -> list[str]:
    return [*stage.get("outs", []), *stage.get("metrics", [])]


def test_the_file_names_are_the_agreed_ones() -> None:
    written = {
        name: [PATHS[out.removeprefix("${paths.").removesuffix("}")] for out in outputs(stage)]
        for name, stage in STAGES.items()
    }
    assert written == {
        "data_ingestion": ["data/raw/winequality-red.csv", "data/source.json"],
        "data_validation": ["data/status.txt"],
        "data_transformation": [
            "data/processed/X_train.csv",
            "data/processed/X_test.csv",
            "data/processed/y_train.csv",
            "data/processed/y_test.csv",
        ],
        "model_trainer": ["models/model.joblib"],
        "model_evaluation": ["metrics/metrics.json"],
    }
