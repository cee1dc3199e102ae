"""How Airflow's parts are, what it made of the DAGs, and what a task reaches."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_verify.evidence import NEAR, TIMEOUT, Json, Reader, gather
from platform_verify.s3 import reach

# where tasks run
SERVICE = "airflow-scheduler"


def parts() -> Json:
    """Return what Airflow's page of health says of each part: its name -> its status."""
    base = os.environ.get("AIRFLOW_BASE_PATH", "")
    url = f"http://airflow:8080{base}/api/v2/monitor/health"
    with NEAR.open(urllib.request.Request(url), timeout=TIMEOUT) as reply:
        return {name: said["status"] for name, said in json.load(reply).items()}


def dags() -> Json:
    """Read in the database which DAGs there are, and which files could not be read, by bundle."""
    import sqlalchemy  # noqa: PLC0415 - there only

    engine = sqlalchemy.create_engine(Path("/run/secrets/sql_alchemy_conn").read_text().strip())
    with engine.connect() as connection:
        known = connection.execute(sqlalchemy.text("SELECT dag_id FROM dag WHERE NOT is_stale"))
        names = sorted(row[0] for row in known)
        wrong = connection.execute(
            sqlalchemy.text("SELECT bundle_name, filename, stacktrace FROM import_error")
        )
        errors = [
            {"bundle": row[0], "file": row[1], "said": (row[2] or "").strip().splitlines()[-1:]}
            for row in wrong
        ]
    return {"names": names, "errors": errors}


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
            "projects": lambda: projects() if given["airflow"]["runner"] else [],
            "reach": lambda: reach(given.get("buckets", {})),
        }
    )


AT_ONCE: dict[str, Reader] = {"airflow": of_airflow}
