"""What the tracking server's S3 user reaches, and the artifacts that are stored for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from platform_verify.evidence import Json, Reader, gather
from platform_verify.host import command_line, processes
from platform_verify.s3 import bucket_and_key, client_here, object_md5, reach

SERVICE = "mlflow"


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


def of_mlflow(given: Mapping[str, Any]) -> Json:
    """Read what the server's S3 user reaches."""
    return gather({"reach": lambda: reach(given.get("buckets", {}))})


def of_artifacts(given: Mapping[str, Any]) -> Json:
    """Read the objects below the artifact `paths`."""
    return gather({"artifacts": lambda: stored_artifacts(given["paths"])})


AT_ONCE: dict[str, Reader] = {"mlflow": of_mlflow}
ON_REQUEST: dict[str, Reader] = {"artifacts": of_artifacts}
