"""What the tracking server's S3 user reaches, where it records, and what artifacts it stored."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from platform_verify.evidence import NEAR, TIMEOUT, Json, Reader, gather
from platform_verify.host import command_line, processes
from platform_verify.s3 import bucket_and_key, client_here, object_md5, reach

SERVICE = "mlflow"
API = "http://127.0.0.1:5000/api/2.0/mlflow"
NEWEST = 100


def artifact_destination() -> str:
    """Return where the running server in this container keeps artifacts."""
    flag = "--artifacts-destination="
    for process in processes():
        for word in command_line(process):
            if word.startswith(flag):
                return word[len(flag) :]
    raise ValueError(f"no process has {flag}...")


def stored_artifacts(paths: Iterable[str]) -> Json:
    """Read and hash the objects below each artifact path: path -> name -> size and md5."""
    client, destination = client_here(), artifact_destination()
    found: Json = {}
    for path in paths:
        bucket, prefix = bucket_and_key(destination, f"{path}/")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [row["Key"] for page in pages for row in page.get("Contents", [])]
        found[path] = {key[len(prefix) :]: object_md5(client, bucket, key) for key in keys}
    return {"bucket": bucket_and_key(destination, "")[0], "paths": found}


def asked(path: str, **body: Any) -> Any:  # noqa: ANN401 - JSON
    """Return what the server in this container answers."""
    request = urllib.request.Request(  # noqa: S310 - this container's own address
        f"{API}/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with NEAR.open(request, timeout=TIMEOUT) as reply:
        return json.load(reply)


def recorded() -> Json:
    """Look in the database, by SQL, for the newest runs and experiments that the server tells."""
    import sqlalchemy  # noqa: PLC0415 - there only

    engine = sqlalchemy.create_engine(Path("/run/secrets/backend_store_uri").read_text().strip())
    url = engine.url
    found = asked("experiments/search", max_results=NEWEST).get("experiments", [])
    experiments = {each["experiment_id"] for each in found}
    newest = asked("runs/search", experiment_ids=sorted(experiments), max_results=NEWEST)
    runs = {each["info"]["run_id"] for each in newest.get("runs", [])}
    with engine.connect() as connection:
        for table, column, told in (
            ("experiments", "experiment_id", experiments),
            ("runs", "run_uuid", runs),
        ):
            query = sqlalchemy.text(f"SELECT {column} FROM {table}")  # noqa: S608 - words from here
            told -= {str(row[0]) for row in connection.execute(query)}
    kind = url.get_backend_name()
    return {
        "backend": kind if kind == "sqlite" else f"{kind} {url.database} on {host(url)}",
        "runs": len(newest.get("runs", [])),
        "elsewhere": sorted(experiments | runs),
    }


def host(url: Any) -> str:  # noqa: ANN401 - SQLAlchemy is there only
    """Return the address of an URL as the inventory writes it."""
    return f"{url.host}:{url.port}" if url.port else str(url.host)


def of_mlflow(given: Mapping[str, Any]) -> Json:
    """Read what the server's S3 user reaches, and where the server records."""
    return gather({"reach": lambda: reach(given.get("buckets", {})), "recorded": recorded})


def of_artifacts(given: Mapping[str, Any]) -> Json:
    """Read the objects below the artifact `paths`."""
    return gather({"artifacts": lambda: stored_artifacts(given["paths"])})


AT_ONCE: dict[str, Reader] = {"mlflow": of_mlflow}
ON_REQUEST: dict[str, Reader] = {"artifacts": of_artifacts}
