"""The DVC remote and the tracking server, asked for what they hold."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError
from dvc_runner.settings import Settings

REGION = "us-east-1"  # a store that is not AWS takes any
BY_NAME = 100
NOT_FOUND = 404


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
    with as_remote(at):
        client = session_of(at).create_client(
            "s3", region_name=REGION, endpoint_url=at.remote_endpoint or None
        )
    return client, *place_of(at)


def place_of(at: Settings) -> tuple[str, str]:
    """Return the bucket of the remote and the prefix of its keys."""
    bucket, _, prefix = at.remote_url.removeprefix("s3://").partition("/")
    return bucket, prefix


def session_of(at: Settings) -> Any:  # noqa: ANN401 - botocore ships no types
    """Return what clients of the remote are made by, to be asked `as_remote`."""
    import botocore.session  # noqa: PLC0415 - comes with dvc-s3, and takes a while

    session, given = botocore.session.get_session(), s3_settings(at)
    if "access_key_id" in given:
        session.set_credentials(given["access_key_id"], given.get("secret_access_key"))
    return session


@contextmanager
def as_remote(at: Settings) -> Iterator[None]:
    """Hide what a project's own variables say to AWS's clients, where the remote has its own keys.

    Whom they trust is said to all of them.
    """
    own = "access_key_id" in s3_settings(at)
    names = [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]
    theirs = {name: os.environ.pop(name) for name in names if own}
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

    bucket = str(words["Bucket"])
    try:
        call(**words)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == NOT_FOUND:
            return False
        raise refused(at, bucket, status, error.response["Error"]) from error
    except BotoCoreError as error:
        raise silent(at, bucket, error) from error
    return True


def refused(at: Settings, bucket: str, status: int, said: Mapping[str, str]) -> RunnerError:
    """Say that the store does not do what it is asked, and why."""
    step = (
        "set dvc_runner_s3_access_key and dvc_runner_s3_secret_key to a key that may list, "
        "read and write it"
        if status in (401, 403)
        else "see its server's log, and run again"
    )
    return RunnerError(
        f"Bucket {bucket} at {at.remote_endpoint or 'AWS'} refuses "
        f"({said['Code']}: {said.get('Message', '')}): {step}."
    )


def silent(at: Settings, bucket: str, error: Exception) -> RunnerError:
    """Say that the store does not answer."""
    return RunnerError(
        f"Bucket {bucket} at {at.remote_endpoint or 'AWS'} does not answer ({error}): start it, "
        "or correct dvc_runner_s3_endpoint, and run again."
    )
