"""How Airflow's parts are, what it made of the DAGs, and what a task reaches."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_verify.evidence import NEAR, TIMEOUT, Json, Reader, answer_to, gather
from platform_verify.s3 import reach

# where tasks run
SERVICE = "airflow-scheduler"


def parts() -> Json:
    """Return what Airflow's page of health says of each part: its name -> its status."""
    base = os.environ.get("AIRFLOW_BASE_PATH", "")
    url = f"http://airflow:8080{base}/api/v2/monitor/health"
    with NEAR.open(urllib.request.Request(url), timeout=TIMEOUT) as reply:
        return {name: said["status"] for name, said in json.load(reply).items()}


def rows(query: str) -> list[Any]:
    """Ask Airflow's database, as Airflow does."""
    import sqlalchemy  # noqa: PLC0415 - there only

    engine = sqlalchemy.create_engine(Path("/run/secrets/sql_alchemy_conn").read_text().strip())
    with engine.connect() as connection:
        return list(connection.execute(sqlalchemy.text(query)))


def dags() -> Json:
    """Read which DAGs there are, and which files could not be read, by bundle."""
    names = [row[0] for row in rows("SELECT dag_id FROM dag WHERE NOT is_stale ORDER BY 1")]
    wrong = rows("SELECT bundle_name, filename, stacktrace FROM import_error ORDER BY 2")
    errors = [
        {"bundle": bundle, "file": file, "said": (said or "").strip().splitlines()[-1:]}
        for bundle, file, said in wrong
    ]
    return {"names": names, "errors": errors}


def recorded() -> Json:
    """Look in the tracking server for what the last DAG run that recorded anything says it did.

    Returns the DAG, and each MLflow run with the status of the answer; nothing where none did.
    """
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    newest = rows(
        "SELECT dag_id, value FROM xcom"
        " WHERE key = 'return_value' AND jsonb_typeof(value) = 'object'"
        " AND value ? 'number' AND jsonb_typeof(value -> 'mlflow_runs') = 'array'"
        " AND value -> 'mlflow_runs' <> '[]'"
        " ORDER BY timestamp DESC LIMIT 1"
    )
    if not tracking or not newest:
        return {}
    dag, value = newest[0]
    path = f"{tracking}/api/2.0/mlflow/runs/get?run_id="
    answers = {run: answer_to({"url": f"{path}{run}"})["status"] for run in value["mlflow_runs"]}
    return {"dag": dag, "runs": answers}


def projects() -> list[str]:
    """Ask the runners' API, as a task does, which projects it has."""
    sys.path.insert(0, "/config/python")
    from runner_api import Runner  # noqa: PLC0415 - there only

    here = Runner.here()
    with here.open("GET", "projects") as reply:
        return sorted(each["project"] for each in json.load(reply))


def of_airflow(given: Mapping[str, Any]) -> Json:
    """Read how the parts are, the DAGs, and what a task reaches."""
    return gather(
        {
            "parts": parts,
            "dags": dags,
            "recorded": recorded,
            "projects": lambda: projects() if given["airflow"]["runner"] else [],
            "reach": lambda: reach(given.get("buckets", {})),
        }
    )


AT_ONCE: dict[str, Reader] = {"airflow": of_airflow}
