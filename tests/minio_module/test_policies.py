"""Policies: compared by meaning."""

from __future__ import annotations

import io
import json
import secrets

import pytest
from minio.error import S3Error
from tests.minio_module.conftest import Scratch
from tests.minio_module.support import MinioServer, Options, Provision, statement

SECRET = secrets.token_urlsafe(16)


def policy(name: str, *statements: Options) -> list[Options]:
    return [{"name": name, "statements": list(statements)}]


def test_a_policy_with_several_actions_allows_each_of_them_and_no_other(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    bucket, name, user = scratch.name("b"), scratch.name("p"), scratch.user()
    declared: Options = {
        "buckets": [{"name": bucket}, {"name": scratch.name("other")}],
        "policies": policy(name, statement("s3:GetObject", "s3:PutObject", on=f"{bucket}/*")),
        "users": [{"access_key": user, "secret_key": SECRET, "policies": [name]}],
    }
    assert provision(**declared).changes[f"policy {name}"] == ["created"]
    s3 = minio_server.s3(user, SECRET)
    s3.put_object(bucket_name=bucket, object_name="k", data=io.BytesIO(b"data"), length=4)
    assert s3.stat_object(bucket_name=bucket, object_name="k").size == 4
    with pytest.raises(S3Error, match="AccessDenied"):
        s3.remove_object(bucket_name=bucket, object_name="k")
    with pytest.raises(S3Error, match="AccessDenied"):
        s3.put_object(
            bucket_name=scratch.name("other"), object_name="k", data=io.BytesIO(b""), length=0
        )
    assert not provision(**declared).changed


READ = statement("s3:GetObject", "s3:ListBucket", on="b/*")
LIST = statement("s3:ListBucket", on="b")


SAME = {
    "statements": [LIST, READ],
    "Action": [READ | {"Action": ["s3:ListBucket", "s3:GetObject"]}, LIST],
    "action-twice": [READ | {"Action": ["s3:GetObject", "s3:ListBucket", "s3:GetObject"]}, LIST],
    "statement-twice": [READ, READ, LIST],
}
DIFFERENT = {
    "statement-less": [READ],
    "statement-more": [READ, LIST, statement("s3:DeleteObject", on="b/*")],
    "action-less": [READ | {"Action": ["s3:GetObject"]}, LIST],
    "action-more": [READ | {"Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"]}, LIST],
    "resource": [READ | {"Resource": ["arn:aws:s3:::b/*", "arn:aws:s3:::c/*"]}, LIST],
}


def test_the_same_policy_in_another_order_or_spelling_is_no_change(
    provision: Provision, scratch: Scratch
) -> None:
    provision(policies=[each for key in SAME for each in policy(scratch.name(key), READ, LIST)])
    other = [each for key, value in SAME.items() for each in policy(scratch.name(key), *value)]
    assert provision(policies=other).changes == {}


def test_a_policy_that_means_something_else_is_changed_once(
    provision: Provision, scratch: Scratch
) -> None:
    provision(
        policies=[each for key in DIFFERENT for each in policy(scratch.name(key), READ, LIST)]
    )
    other = [each for key, value in DIFFERENT.items() for each in policy(scratch.name(key), *value)]
    assert provision(policies=other).changes == {
        f"policy {scratch.name(key)}": ["statements changed"] for key in DIFFERENT
    }
    assert provision(policies=other).changes == {}


HAND = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"]}
CHANGED_BY_HAND: dict[str, Options] = {
    "loose": {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]},
    "denied": HAND | {"Effect": "Deny", "Resource": READ["Resource"]},
    "other-way-round": HAND | {"NotResource": READ["Resource"]},
    "limited": HAND
    | {
        "Resource": READ["Resource"],
        "Condition": {"Bool": {"aws:SecureTransport": "true"}},
    },
}


@pytest.mark.parametrize("how", CHANGED_BY_HAND)
def test_a_policy_that_someone_changed_by_hand_is_set_right(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, how: str
) -> None:
    declared = policy(scratch.name(), READ)
    provision(policies=declared)
    assert not provision(policies=declared).changed
    minio_server.admin().policy_add(
        policy_name=scratch.name(),
        policy={"Version": "2012-10-17", "Statement": [CHANGED_BY_HAND[how]]},
    )
    assert provision(policies=declared).changed
    assert not provision(policies=declared).changed


def test_a_policy_that_is_not_listed_is_left_alone(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    provision(policies=policy(scratch.name("a"), READ))
    provision(policies=policy(scratch.name("b"), READ))
    assert scratch.name("a") in json.loads(minio_server.admin().policy_list())
