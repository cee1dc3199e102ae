"""What a notebook's cell reaches, run by a kernel as the server would start it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform_verify.evidence import Json, Reader, gather
from platform_verify.s3 import reach

SERVICE = "jupyter"
SECONDS = 90
BUCKET = """
import boto3, os
store, bucket = boto3.client("s3"), os.environ["NOTEBOOK_BUCKET"]
store.put_object(Bucket=bucket, Key="verify/cell", Body=b"written by a cell")
read = store.get_object(Bucket=bucket, Key="verify/cell")["Body"].read()
store.delete_object(Bucket=bucket, Key="verify/cell")
print(read.decode())
"""
TRACKING = """
import mlflow
print(len(mlflow.search_experiments()) > 0)
"""
DATABASE = """
import psycopg
with psycopg.connect(connect_timeout=10) as connection:
    print(connection.execute("select current_database()").fetchone()[0])
"""


def cell(code: str) -> str:
    """Run a cell in a kernel of its own and return what it prints.

    Raises:
        RuntimeError: the cell failed; its error in one line.
    """
    from jupyter_client.manager import start_new_kernel  # noqa: PLC0415 - there only

    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=SECONDS)
    said: list[str] = []
    try:

        def hear(message: Mapping[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                said.append(content["text"])

        reply = client.execute_interactive(code, output_hook=hear, timeout=SECONDS)["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["status"] != "ok":
        raise RuntimeError(f"a cell failed: {reply.get('ename')}: {reply.get('evalue')}")
    return "".join(said).strip()


def of_jupyter(given: Mapping[str, Any]) -> Json:
    """Run a cell for each neighbour that notebooks are promised."""
    wanted = given["notebooks"]
    cells = {
        "bucket": BUCKET if wanted["bucket"] else "",
        "tracking": TRACKING if wanted["tracking"] else "",
        "database": DATABASE if wanted["database"] else "",
    }
    return gather(
        {
            "cells": lambda: {name: cell(code) for name, code in cells.items() if code},
            "reach": lambda: reach(given.get("buckets", {})),
        }
    )


AT_ONCE: dict[str, Reader] = {"jupyter": of_jupyter}
