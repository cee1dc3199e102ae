"""What MinIO holds, read as its root where its SDK is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_verify.evidence import TIMEOUT, Json, Reader, gather

SERVICE = "minio-admin"


def of_minio(given: Mapping[str, Any]) -> Json:
    """Read the state of the buckets that the platform promises."""
    import urllib3  # noqa: PLC0415 - there only
    from minio import Minio  # noqa: PLC0415 - there only
    from minio.error import S3Error  # noqa: PLC0415

    keys = [Path(f"/run/secrets/root_{name}").read_text().strip() for name in ("user", "password")]
    client = Minio(
        endpoint="minio:9000",
        access_key=keys[0],
        secret_key=keys[1],
        secure=False,
        http_client=urllib3.PoolManager(timeout=TIMEOUT, retries=False),
    )

    def read() -> dict[str, Json]:
        there = {bucket.name for bucket in client.list_buckets()}
        found: dict[str, Json] = {}
        for name in given.get("buckets", {}):
            if name in there:
                try:
                    policy = client.get_bucket_policy(bucket_name=name)
                except S3Error as error:
                    if error.code != "NoSuchBucketPolicy":
                        raise
                    policy = ""
                found[name] = {
                    "versioning": client.get_bucket_versioning(bucket_name=name).status,
                    "policy": policy,
                }
        return found

    return gather({"buckets": read})


AT_ONCE: dict[str, Reader] = {"minio": of_minio}
