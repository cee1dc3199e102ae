"""What MinIO's own API wants, from the few words the inventory says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.common.text.formatters import human_to_bytes

LEAST = 12
BUCKET_NAME = re.compile(
    r"(?!\d+(\.\d+){3}\Z)(?!minio\Z)(?!.*(\.\.|\.-|-\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z"
)
SIZE = re.compile(r"\d+[kmgt]?b?\Z", re.IGNORECASE)
OLD_VERSIONS = "noncurrent-versions"


def faults(
    root_user: str,
    root_password: str,
    users: list[Mapping[str, Any]],
    buckets: list[Mapping[str, Any]],
    noncurrent_days: int,
) -> list[str]:
    """Say what is wrong with users and buckets, in sentences that never hold a secret."""
    return [
        *credential_faults(root_user, root_password, users),
        *user_faults(root_user, users),
        *bucket_faults(buckets),
        *day_faults("minio_noncurrent_days", noncurrent_days, 0),
    ]


def twice(names: list[str]) -> list[str]:
    """List the names that are there more than once."""
    return sorted({name for name in names if names.count(name) > 1})


def user_faults(root_user: str, users: list[Mapping[str, Any]]) -> Iterator[str]:
    """Say which users MinIO would not take."""
    names = [str(user["access_key"]) for user in users]
    for name in names:
        if not re.fullmatch(r"[^=,]{3,}", name):
            yield (
                f"minio_users: access_key {name!r} is no name of a user: "
                "give 3 characters or more, without '=' and ','"
            )
        if name == root_user:
            yield f"minio_users: {name} is the root user: choose another access_key"
    for user in users:
        if not user["buckets"]:
            yield f"minio_users: {user['access_key']} has no buckets: name one, or remove the user"
    yield from (f"minio_users lists {name!r} twice: merge the two" for name in twice(names))


def bucket_faults(buckets: list[Mapping[str, Any]]) -> Iterator[str]:
    """Say which buckets MinIO would not take."""
    names = [str(bucket["name"]) for bucket in buckets]
    yield from (f"minio_buckets lists {name!r} twice: merge the two" for name in twice(names))
    for bucket in buckets:
        where = f"minio_buckets: {bucket['name']}"
        if not BUCKET_NAME.match(str(bucket["name"])):
            yield (
                f"{where} is no name of a bucket: use 3 to 63 of a-z, 0-9, '-' and single '.', "
                "letter or digit first and last, no IP address and not 'minio'"
            )
        if not SIZE.match(str(bucket.get("quota", 0))):
            yield (
                f"{where}: quota is {bucket['quota']!r}: "
                "give bytes, or a size such as 500m, 10g or 2t; 0 is none"
            )
        yield from day_faults(f"{where}: noncurrent_days", bucket.get("noncurrent_days"), 0)
        rules = bucket.get("lifecycle") or []
        for name in twice([str(rule["id"]) for rule in rules] + [OLD_VERSIONS]):
            yield f"{where}: lifecycle has the id {name!r} twice: give each rule its own"
        for rule in rules:
            yield from rule_faults(f"{where}: lifecycle rule {rule['id']}", rule)


def rule_faults(where: str, rule: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with a lifecycle rule."""
    ends = ("expire_days", "expire_noncurrent_days", "expire_delete_markers")
    if not any(rule.get(end) for end in ends):
        yield f"{where} does nothing: give one of {', '.join(ends)}"
    for end in ends[:2]:
        yield from day_faults(f"{where}: {end}", rule.get(end), 1)
    if rule.get("expire_days") and rule.get("expire_delete_markers"):
        yield f"{where}: expire_days excludes expire_delete_markers: make them two rules"


def day_faults(where: str, days: object, least: int) -> Iterator[str]:
    """Say where days are no number, or too few."""
    if days is not None and not (re.fullmatch(r"\d+", str(days)) and int(str(days)) >= least):
        yield f"{where} is {days!r}: give {least} or more days{'; 0 is never' if not least else ''}"


def with_lifecycle(bucket: Mapping[str, Any], noncurrent_days: int) -> dict[str, Any]:
    """Return a bucket as the module takes it.

    One rule ends versions that were replaced or deleted and the markers left of the deleted: it
    stands in every bucket, for one whose versioning is suspended keeps its old versions.
    """
    days = int(bucket.get("noncurrent_days", noncurrent_days))
    rule = {"id": OLD_VERSIONS, "expire_noncurrent_days": days, "expire_delete_markers": True}
    return {
        "name": bucket["name"],
        "versioning": bucket.get("versioning", False),
        "quota": human_to_bytes(str(bucket.get("quota", 0)).upper()),
        "lifecycle": [*(bucket.get("lifecycle") or []), *([rule] if days else [])],
    }


def credential_faults(
    root_user: str, root_password: str, users: list[Mapping[str, Any]]
) -> list[str]:
    """Say what is wrong with the credentials, in sentences that never hold one."""
    given = [("minio_root_user", root_user, 3), ("minio_root_password", root_password, LEAST)]
    given += [
        (f"minio_users: secret_key of {user['access_key']}", user["secret_key"], LEAST)
        for user in users
    ]
    short = [
        f"{name} has {len(value)} characters and {least} are the least: set a longer one, "
        "or remove it from the inventory to have one generated"
        for name, value, least in given
        if len(value) < least
    ]
    address = [
        f'{name} begins with "env", which MinIO reads as an address to fetch the value from: '
        "set one that begins otherwise"
        for name, value, _ in given[:2]
        if value.startswith("env")
    ]
    return short + address


def bucket_policy(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy that lets a user work in its own buckets and do nothing else."""
    buckets = [f"arn:aws:s3:::{name}" for name in user["buckets"]]
    return {
        "name": f"{user['access_key']}-buckets",
        "statements": [
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetBucketLocation",
                    "s3:ListBucket",
                    "s3:ListBucketMultipartUploads",
                ],
                "Resource": buckets,
            },
            {
                "Effect": "Allow",
                "Action": [
                    "s3:AbortMultipartUpload",
                    "s3:DeleteObject",
                    "s3:GetObject",
                    "s3:ListMultipartUploadParts",
                    "s3:PutObject",
                ],
                "Resource": [f"{bucket}/*" for bucket in buckets],
            },
        ],
    }


def with_policy(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user as the module takes it, holding its own policy."""
    return {
        "access_key": user["access_key"],
        "secret_key": user["secret_key"],
        "policies": [bucket_policy(user)["name"]],
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "minio_bucket_policy": bucket_policy,
            "minio_bucket_with_lifecycle": with_lifecycle,
            "minio_faults": faults,
            "minio_user_with_policy": with_policy,
        }
