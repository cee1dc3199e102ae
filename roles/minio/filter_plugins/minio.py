"""What MinIO's own API wants, from the few words the inventory says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST = 12


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
        "name": policy_name(user),
        "statements": [
            {
                "effect": "Allow",
                "actions": [
                    "s3:GetBucketLocation",
                    "s3:ListBucket",
                    "s3:ListBucketMultipartUploads",
                ],
                "resources": buckets,
            },
            {
                "effect": "Allow",
                "actions": [
                    "s3:AbortMultipartUpload",
                    "s3:DeleteObject",
                    "s3:GetObject",
                    "s3:ListMultipartUploadParts",
                    "s3:PutObject",
                ],
                "resources": [f"{bucket}/*" for bucket in buckets],
            },
        ],
    }


def policy_name(user: Mapping[str, Any]) -> str:
    """Name the policy of a user."""
    return f"{user['access_key']}-buckets"


def with_policy(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user as the module takes it, holding its own policy."""
    return {
        "access_key": user["access_key"],
        "secret_key": user["secret_key"],
        "policies": [policy_name(user)],
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "minio_bucket_policy": bucket_policy,
            "minio_credential_faults": credential_faults,
            "minio_user_with_policy": with_policy,
        }
