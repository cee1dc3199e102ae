"""What an S3 user may do: tried in its service's container, and judged here."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from platform_verify.evidence import CHUNK, TIMEOUT, Json, answer_to

FORBIDDEN = 403
REFUSED = (401, FORBIDDEN)
DENIED = "AccessDenied"
# S3's answers that only come after it looked who asks
MAY = {
    "list": ("allowed",),
    "read": ("allowed", "NoSuchKey"),
    "write": ("allowed", "BadDigest"),
}
POLICIES = "`make up` writes the policies of its user again; detach what was attached by hand"


def client_here() -> Any:  # noqa: ANN401 - botocore has no types
    """Return an S3 client with the credentials and the endpoint of this container."""
    import botocore.session  # noqa: PLC0415 - there only
    from botocore.config import Config  # noqa: PLC0415

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    config = Config(
        connect_timeout=5,
        read_timeout=TIMEOUT,
        retries={"total_max_attempts": 2},
        s3={"addressing_style": "path"},
    )
    session = botocore.session.get_session()
    return session.create_client("s3", endpoint_url=endpoint, config=config)


def outcome(call: Callable[[], Any]) -> str:
    """Return `allowed`, or the code that S3 refuses with."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - there only

    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "allowed"


def reach(buckets: Iterable[str]) -> Json:
    """Try what this container's S3 user may do in each bucket, changing nothing."""
    client = client_here()
    signer = client._request_signer._credentials  # botocore has no public name for it
    tried: Json = {}
    for name in buckets:
        tried[name] = {
            "list": outcome(lambda name=name: client.list_objects_v2(Bucket=name, MaxKeys=1)),  # type: ignore[misc]
            "read": outcome(lambda name=name: client.get_object(Bucket=name, Key="verify")),  # type: ignore[misc]
            # a checksum that no content has: who may write is told so, and yet writes nothing
            "write": outcome(
                lambda name=name: client.put_object(  # type: ignore[misc]
                    Bucket=name,
                    Key="verify",
                    Body=b"verify",
                    ContentMD5=base64.b64encode(hashlib.md5(b"other").digest()).decode(),  # noqa: S324
                )
            ),
            "policy": outcome(lambda name=name: client.get_bucket_policy(Bucket=name)),  # type: ignore[misc]
        }
    return {
        "user": signer.access_key,
        "buckets": tried,
        "admin": administers(client.meta.endpoint_url, signer),
    }


def administers(endpoint: str, credentials: Any) -> int:  # noqa: ANN401 - botocore has no types
    """Return the status that MinIO's admin API gives this user for its list of users."""
    from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - there only
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415

    asked = AWSRequest("GET", f"{endpoint}/minio/admin/v3/list-users")
    asked.headers["X-Amz-Content-SHA256"] = hashlib.sha256(b"").hexdigest()
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(asked)
    return int(answer_to({"url": asked.url, "headers": dict(asked.headers)})["status"])


def object_md5(client: Any, bucket: str, key: str) -> Json:  # noqa: ANN401 - botocore's own
    """Read an object and hash its bytes; size and md5."""
    digest, size = hashlib.md5(), 0  # noqa: S324 - DVC's own
    for block in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(CHUNK):
        digest.update(block)
        size += len(block)
    return {"size": size, "md5": digest.hexdigest()}


def bucket_and_key(url: str, rest: str) -> tuple[str, str]:
    """Split s3://bucket/prefix and put `rest` below it."""
    bucket, _, prefix = url[len("s3://") :].partition("/")
    return bucket, f"{prefix.strip('/')}/{rest}".lstrip("/")


def excess(reach: Mapping[str, Any], own: Iterable[str]) -> Iterator[str]:
    """Say what a user may do and should not, or should and may not."""
    user = reach["user"]
    for bucket, answers in reach["buckets"].items():
        for what, allowed in MAY.items():
            answer = answers[what]
            if bucket in own and answer not in allowed:
                yield f"{user} cannot {what} {bucket}, its own: {answer}"
            # a bucket that is not there denies nothing
            if bucket not in own and answer != DENIED:
                yield f"{user} may {what} {bucket}: the answer is {answer}, not {DENIED}"
        if answers["policy"] != DENIED:
            yield f"{user} may read the policy of {bucket}: the answer is {answers['policy']}"
    if reach["admin"] not in REFUSED:
        yield f"{user} may list MinIO's users like an administrator: {reach['admin']}"


def reached(reach: Mapping[str, Any], own: Iterable[str]) -> str:
    """Say what a user reaches that reaches only its own."""
    others = ", ".join(name for name in reach["buckets"] if name not in own) or "no other bucket"
    return f"{reach['user']}: {', '.join(own)}; refused at {others} and as administrator"
