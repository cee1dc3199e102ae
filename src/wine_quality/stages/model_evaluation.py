"""Stage 5: measure the model on both parts, write the metrics, and log the run to MLflow."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from wine_quality.config import Project
from wine_quality.parts import Part, read_part
from wine_quality.runtime import PipelineError, file_digest, log, run_stage, write_atomic


def measure(actual: pd.Series, predicted: NDArray[np.float64]) -> dict[str, float]:
    """RMSE, MAE and R2 of the scores, accuracy and macro-F1 of the rounded ones; 6 decimals."""
    rounded = np.rint(predicted).astype("int64")
    metrics = {
        "rmse": root_mean_squared_error(actual, predicted),
        "mae": mean_absolute_error(actual, predicted),
        "r2": r2_score(actual, predicted),
        "accuracy": accuracy_score(actual, rounded),
        "macro_f1": f1_score(actual, rounded, average="macro", zero_division=0.0),
    }
    return {name: round(float(value), 6) for name, value in metrics.items()}


def evaluate(model: RegressorMixin, parts: dict[str, Part]) -> dict[str, dict[str, float]]:
    """`measure` for each named part of features and scores."""
    return {name: measure(y, model.predict(x)) for name, (x, y) in parts.items()}


def _work(project: Project) -> None:
    parts = {"train": read_part(project, "train"), "test": read_part(project, "test")}
    model = joblib.load(project.path("model"))
    origin = json.loads(project.path("source").read_text(encoding="utf-8"))
    metrics: dict[str, Any] = {
        **evaluate(model, parts),
        "rows": {"raw": origin["rows"], **{name: len(x) for name, (x, _) in parts.items()}},
        "data_source": origin["data_source"],
        "data_name": origin["name"],
        "data_md5": file_digest(project.path("raw"), "md5"),
    }
    content = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    write_atomic(project.path("metrics"), content.encode())
    log.info(
        "test R2 %.3f, RMSE %.3f, MAE %.3f (data_source: %s, %s); written to %s",
        metrics["test"]["r2"],
        metrics["test"]["rmse"],
        metrics["test"]["mae"],
        metrics["data_source"],
        metrics["data_name"],
        project.config.paths.metrics,
    )

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise PipelineError(
            "MLFLOW_TRACKING_URI is not set: give the address of the tracking server, or run"
            " `make pipeline-local`, which tracks to a file; only model_evaluation runs again"
        )
    # after the metrics are safe, and not on the way to them: importing MLflow takes seconds
    from wine_quality import tracking  # noqa: PLC0415

    tracked = tracking.track(project, model, parts, metrics)
    record = json.dumps(tracked.record(), indent=2, sort_keys=True) + "\n"
    write_atomic(project.path("last_run"), record.encode())
    log.info(
        "MLflow run %s: version %s of %s, test RMSE %.3f, %s",
        tracked.run_id,
        tracked.model_version,
        project.config.mlflow.registered_model,
        metrics["test"]["rmse"],
        tracked.verdict,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage in a project directory."""
    return run_stage("model_evaluation", _work, argv)


if __name__ == "__main__":
    sys.exit(main())
