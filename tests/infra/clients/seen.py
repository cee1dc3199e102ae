"""Register a version of a model with the alias `challenger`, and leave it there.

usage: seen.py MODEL
"""

from __future__ import annotations

import sys

import mlflow

mlflow.set_experiment("clients")
with mlflow.start_run() as run:
    mlflow.log_text("flavors: {}", "model/MLmodel")
made = mlflow.register_model(f"runs:/{run.info.run_id}/model", sys.argv[1])
mlflow.MlflowClient().set_registered_model_alias(sys.argv[1], "challenger", made.version)
