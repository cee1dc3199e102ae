"""Register eight versions of one model from eight processes at once; prints the versions there are.

usage: register.py MODEL
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.synchronize import Barrier

import mlflow
from mlflow import MlflowClient

CLIENTS = 8


def register(name: str, run: str, start: Barrier) -> None:
    """Register one version when all others are ready too."""
    client = MlflowClient()
    start.wait()
    client.create_model_version(name, f"runs:/{run}/model", run)


def main(name: str) -> None:
    """Start the clients; fail where one fails."""
    mlflow.set_experiment("clients")
    with mlflow.start_run() as run:
        mlflow.log_text("flavors: {}", "model/MLmodel")
    client = MlflowClient()
    client.create_registered_model(name)
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(CLIENTS)
    made = [
        fork.Process(target=register, args=(name, run.info.run_id, start)) for _ in range(CLIENTS)
    ]
    for process in made:
        process.start()
    for process in made:
        process.join()
    if any(process.exitcode for process in made):
        sys.exit("a client failed")
    versions = sorted(int(each.version) for each in client.search_model_versions(f"name='{name}'"))
    client.delete_registered_model(name)
    print(",".join(map(str, versions)))


if __name__ == "__main__":
    main(sys.argv[1])
