"""The DVC remote and the tracking server, asked for what they hold."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError
from dvc_runner.settings import Settings

REGION = "us-east-1"  # a store that is not AWS takes any
BY_NAME = 100


def missing_in_remote(at: Settings, keys: Iterable[str]) -> list[str]:
    """List those of `keys` that the remote lacks, asking for few by name and for many by a list."""
    wanted = list(keys)
    if not at.remote_url.startswith("s3://"):
        return [key for key in wanted if not (Path(at.remote_url) / key).exists()]
    client, bucket, prefix = s3_of(at)
    names = {key: f"{prefix.rstrip('/')}/{key}".lstrip("/") for key in wanted}
    if len(wanted) > BY_NAME:
        there: set[str] = set()
        found(
            at, lambda **words: there.update(listed(client, **words)), Bucket=bucket, Prefix=prefix
        )
        return [key for key, name in names.items() if name not in there]
    return [
        key
        for key, name in names.items()
        if not found(at, client.head_object, Bucket=bucket, Key=name)
    ]


def listed(client: Any, **words: str | int) -> Iterator[str]:  # noqa: ANN401 - botocore ships no types
    """Name every object, a thousand by each request."""
    for page in client.get_paginator("list_objects_v2").paginate(**words):
        for entry in page.get("Contents", ()):
            yield entry["Key"]


def require_remote(at: Settings) -> None:
    """Raise RunnerError where the remote is a bucket that is not there or refuses the key."""
    if not at.remote_url.startswith("s3://"):
        return
    client, bucket, prefix = s3_of(at)
    if not found(at, client.list_objects_v2, Bucket=bucket, Prefix=prefix, MaxKeys=1):
        raise RunnerError(
            f"Bucket {bucket} at {at.remote_endpoint or 'AWS'} does not exist (NoSuchBucket): "
            "make it there, or correct dvc_runner_remote_url."
        )


def s3_of(at: Settings) -> tuple[Any, str, str]:
    """Return a client of the remote, its bucket and the prefix of its keys."""
    import botocore.session  # noqa: PLC0415 - comes with dvc-s3, and takes a while

    bucket, _, prefix = at.remote_url.removeprefix("s3://").partition("/")
    given = s3_settings(at)
    with without_aws() if "access_key_id" in given else nullcontext():
        client = botocore.session.get_session().create_client(
            "s3",
            region_name=given["region"],
            endpoint_url=at.remote_endpoint or None,
            aws_access_key_id=given.get("access_key_id"),
            aws_secret_access_key=given.get("secret_access_key"),
        )
    return client, bucket, prefix


@contextmanager
def without_aws() -> Iterator[None]:
    """Hide what a project's own variables say to AWS's clients, but for whom they trust."""
    names = [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]
    theirs = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(theirs)


def s3_settings(at: Settings) -> dict[str, str]:
    """Return the region and the keys of an S3 remote; without a file of keys AWS's own rules hold.

    A name of that file in the environment, or in DVC's settings, would reach every stage.
    """
    keys = configparser.ConfigParser(interpolation=None)
    keys.read(at.remote_credentials)
    found = {
        name: keys.get("default", f"aws_{name}", fallback="")
        for name in ("access_key_id", "secret_access_key")
    }
    return {"region": REGION, **{name: value for name, value in found.items() if value}}


def found(at: Settings, call: Callable[..., Any], **words: str | int) -> bool:
    """Ask S3 for something; False where it is not there, RunnerError where none may know."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

    place = f"Bucket {words['Bucket']} at {at.remote_endpoint or 'AWS'}"
    try:
        call(**words)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 404:  # noqa: PLR2004 - HTTP's own number
            return False
        said = error.response["Error"]
        step = (
            "set dvc_runner_s3_access_key and dvc_runner_s3_secret_key to a key that may list, "
            "read and write it"
            if status in (401, 403)
            else "see its server's log, and run again"
        )
        raise RunnerError(
            f"{place} refuses ({said['Code']}: {said.get('Message', '')}): {step}."
        ) from error
    except BotoCoreError as error:
        raise RunnerError(
            f"{place} does not answer ({error}): start it, or correct dvc_runner_s3_endpoint, "
            "and run again."
        ) from error
    return True
