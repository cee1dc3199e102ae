"""The one MLflow run: parameters, metrics of both parts, files and the registered model.

MLflow reads its address and credentials from the environment; nothing here knows them.
"""

import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

# before mlflow is imported, which reads them: a server that is down is noticed within half a minute
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import mlflow.sklearn
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.pipeline import Pipeline

from iris.files import StageError
from iris.settings import Settings

# named, because finding them out means loading the model in a second Python
REQUIREMENTS = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")


def flat(report: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Name each figure of a report as a metric, such as `test_macro_avg_f1_score`."""
    for key, value in report.items():
        name = f"{prefix}_{key}".replace(" ", "_").replace("-", "_")
        if isinstance(value, Mapping):
            yield from flat(value, name)
        else:
            yield name, float(value)


def track(
    settings: Settings,
    model: Pipeline,
    parts: Mapping[str, tuple[pd.DataFrame, pd.Series]],
    reports: Mapping[str, Mapping[str, Any]],
) -> str:
    """Log all of it in one run and register the model last, so that a version has a whole run.

    Returns:
        The version that was registered.

    Raises:
        StageError: the tracking server fails; then the run is marked as failed.
    """
    try:
        return _track(settings, model, parts, reports)
    except (MlflowException, OSError) as error:
        raise StageError(
            f"MLflow did not take the run ({' '.join(str(error).split())[:300]}): see that the"
            " server of MLFLOW_TRACKING_URI answers, and run again; only this stage runs."
        ) from None


def _track(
    settings: Settings,
    model: Pipeline,
    parts: Mapping[str, tuple[pd.DataFrame, pd.Series]],
    reports: Mapping[str, Mapping[str, Any]],
) -> str:
    features, _ = parts["test"]
    mlflow.set_experiment(settings.mlflow.experiment)
    with mlflow.start_run() as run:
        mlflow.log_params(
            {
                **settings.model.model_dump(),
                **{f"split_{key}": value for key, value in settings.split.model_dump().items()},
                **{f"rows_{name}": len(rows) for name, (rows, _) in parts.items()},
            }
        )
        mlflow.log_metrics(dict(each for name in reports for each in flat(reports[name], name)))
        for path in (settings.paths.model, settings.paths.metrics):
            mlflow.log_artifact(path, path.rpartition("/")[0])
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
            signature=infer_signature(features, model.predict(features)),
            input_example=features.head(3),
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
        )
        client, name = MlflowClient(), settings.mlflow.registered_model
        made = mlflow.register_model(logged.model_uri, name, await_registration_for=0)
        try:
            client.set_tag(run.info.run_id, "model_version", made.version)
            client.set_registered_model_alias(name, "candidate", made.version)
        except BaseException:
            client.delete_model_version(name, made.version)
            raise
    return str(made.version)
