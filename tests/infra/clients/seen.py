"""Register a version of a model with the alias `challenger`, and leave it there.

usage: seen.py MODEL
"""

from __future__ import annotations

import sys

import mlflow
from mlflow import MlflowClient

mlflow.set_experiment("clients")
with mlflow.start_run() as run:
    mlflow.log_text("flavors: {}", "model/MLmodel")
client = MlflowClient()
client.create_registered_model(sys.argv[1])
made = client.create_model_version(sys.argv[1], f"runs:/{run.info.run_id}/model", run.info.run_id)
client.set_registered_model_alias(sys.argv[1], "challenger", made.version)
