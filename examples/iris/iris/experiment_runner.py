"""Stage 3: train, evaluate on both parts, and log everything in one MLflow run."""

import json
import os
import pickle
import sys
from typing import Any

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from iris.files import StageError, read_table, run, write
from iris.settings import Model, Settings

Report = dict[str, Any]  # scikit-learn's classification_report


def train(features: pd.DataFrame, species: pd.Series, settings: Model) -> Pipeline:
    """Fit a logistic regression on standardised lengths."""
    model: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(**settings.model_dump()))
    return model.fit(features, species)


def evaluate(model: Pipeline, features: pd.DataFrame, species: pd.Series) -> Report:
    """The full classification report, numbers to 6 decimals."""
    report: Report = classification_report(
        species, model.predict(features), output_dict=True, zero_division=0.0
    )
    rounded: Report = json.loads(json.dumps(report), parse_float=lambda text: round(float(text), 6))
    return rounded


def work(settings: Settings) -> str:
    """Write the model and the report, then log the run and register the model."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise StageError(
            "MLFLOW_TRACKING_URI is not set: give the address of the tracking server, such as"
            " http://127.0.0.1:5000, and run again."
        )
    parts = {
        "train": read_table(settings.paths.train),
        "test": read_table(settings.paths.test),
    }
    model = train(*parts["train"], settings.model)
    reports = {name: evaluate(model, *part) for name, part in parts.items()}
    write(settings.paths.model, pickle.dumps(model, protocol=5))
    write(settings.paths.metrics, (json.dumps(reports, indent=2) + "\n").encode())
    # importing MLflow takes seconds: not on the way to a fault in what is above
    from iris import tracking  # noqa: PLC0415

    version = tracking.track(settings, model, parts, reports)
    return (
        f"test accuracy {reports['test']['accuracy']:.3f}, version {version} of"
        f" {settings.mlflow.registered_model}"
    )


if __name__ == "__main__":
    sys.exit(run(work))
