"""One MLflow run for each model, all of one experiment.

MLflow reads its address and credentials from the environment; nothing here knows them.
"""

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

# before mlflow is imported, which reads them: a server that is down is noticed within half a minute
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import mlflow.sklearn
import pandas as pd
import skops.io
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

from fraud.stage import StageError
from fraud.told import Told

# named, because finding them out means loading the model in a second Python
REQUIREMENTS = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")


def track(
    experiment: str,
    model: Any,  # noqa: ANN401 - scikit-learn ships no types
    example: pd.DataFrame,
    files: Mapping[Path, str],
    told: Told,
) -> str:
    """Log a finished model as a run.

    Args:
        experiment: where the run goes.
        model: what was fitted.
        example: rows that it takes.
        files: file to its directory in the run.
        told: parameters, metrics and tags.

    Returns:
        The run's id.

    Raises:
        StageError: the tracking server fails; then the run is marked as failed.
    """
    try:
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=told.params["model"], tags=told.tags) as run:
            mlflow.log_params(told.params)
            mlflow.log_metrics(told.metrics)
            for file, directory in files.items():
                mlflow.log_artifact(str(file), directory)
            mlflow.sklearn.log_model(
                model,
                name="model",
                serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
                # of what was fitted a moment ago; who loads it is told which types these are
                skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(model)),
                signature=infer_signature(example, model.predict(example)),
                input_example=example.head(3),
                pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            )
        return str(run.info.run_id)
    except (MlflowException, OSError) as error:
        raise StageError(
            f"MLflow did not take the run ({' '.join(str(error).split())[:300]}): see that the"
            " server of MLFLOW_TRACKING_URI answers, and run again; only this stage runs."
        ) from None
