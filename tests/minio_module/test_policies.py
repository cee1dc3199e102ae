"""Policies: compared by meaning, and never taken from somebody who still has them."""

from __future__ import annotations

import io
import json
import secrets

import pytest
from minio.error import MinioAdminException, S3Error
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


def test_actions_joined_by_a_comma_are_refused_here_because_the_server_refuses_them(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    joined = statement("s3:GetObject,s3:PutObject", on="b/*")
    refused = provision.refused(
        buckets=[{"name": scratch.name("b")}], policies=policy(scratch.name(), joined)
    )
    assert "action 's3:GetObject,s3:PutObject' is invalid: give one" in refused.message
    assert not minio_server.s3().bucket_exists(bucket_name=scratch.name("b"))
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": joined["actions"], "Resource": joined["resources"]}
        ],
    }
    with pytest.raises(MinioAdminException, match="XMinioMalformedIAMPolicy"):
        minio_server.admin().policy_add(policy_name=scratch.name(), policy=document)


READ = statement("s3:GetObject", "s3:ListBucket", on="b/*")
LIST = statement("s3:ListBucket", on="b", conditions={"StringLike": {"s3:prefix": ["x/*", "y/*"]}})


SAME = {
    "statements": [LIST, READ],
    "actions": [READ | {"actions": ["s3:ListBucket", "s3:GetObject"]}, LIST],
    "action-twice": [READ | {"actions": ["s3:GetObject", "s3:ListBucket", "s3:GetObject"]}, LIST],
    "statement-twice": [READ, READ, LIST],
    "values": [READ, LIST | {"conditions": {"StringLike": {"s3:prefix": ["y/*", "x/*"]}}}],
    "defaults": [READ | {"effect": "Allow", "conditions": {}}, LIST],
}
DIFFERENT = {
    "statement-less": [READ],
    "statement-more": [READ, LIST, statement("s3:DeleteObject", on="b/*")],
    "action-less": [READ | {"actions": ["s3:GetObject"]}, LIST],
    "action-more": [READ | {"actions": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"]}, LIST],
    "resource": [READ | {"resources": ["arn:aws:s3:::b/*", "arn:aws:s3:::c/*"]}, LIST],
    "effect": [READ | {"effect": "Deny"}, LIST],
    "condition-less": [READ, LIST | {"conditions": {}}],
    "value-less": [READ, LIST | {"conditions": {"StringLike": {"s3:prefix": ["x/*"]}}}],
    "operator": [READ, LIST | {"conditions": {"StringNotLike": {"s3:prefix": ["x/*", "y/*"]}}}],
}
CONDITIONS: dict[str, Options] = {
    "one": {"StringEquals": {"s3:prefix": "one value"}},
    "case": {"StringEqualsIgnoreCase": {"s3:prefix": ["Ab"]}},
    "all": {"ForAllValues:StringLike": {"s3:prefix": ["a*", "b*"]}},
    "two": {"StringLike": {"s3:prefix": ["a/*"]}, "NumericLessThan": {"s3:max-keys": "10"}},
    "number": {"NumericEquals": {"s3:max-keys": 7}},
    "padded-number": {"NumericEquals": {"s3:max-keys": "007"}},
    "flag": {"Bool": {"aws:SecureTransport": True}},
    "flag-as-text": {"Bool": {"aws:SecureTransport": "false"}},
    "null": {"Null": {"s3:prefix": "true"}},
    "time": {"DateGreaterThan": {"aws:CurrentTime": "2026-01-02T03:04:05Z"}},
    "long-time": {"DateLessThan": {"aws:CurrentTime": "2026-01-02T03:04:05.678+00:00"}},
    "address": {"IpAddress": {"aws:SourceIp": "10.1.2.3"}},
    "networks": {"NotIpAddress": {"aws:SourceIp": ["10.1.2.3/8", "2001:DB8::/64"]}},
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


def test_a_condition_that_the_server_spells_in_its_own_way_is_no_change(
    provision: Provision, scratch: Scratch
) -> None:
    declared = [
        each
        for key, value in CONDITIONS.items()
        for each in policy(scratch.name(key), statement("s3:ListBucket", on="b", conditions=value))
    ]
    assert len(provision(policies=declared).changes) == len(CONDITIONS)
    assert provision(policies=declared).changes == {}


def test_a_condition_limits_what_a_user_may_list(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    bucket, name, user = scratch.name("b"), scratch.name("p"), scratch.user()
    prefix = {"StringLike": {"s3:prefix": ["mine/*"]}}
    provision(
        buckets=[{"name": bucket}],
        policies=policy(name, statement("s3:ListBucket", on=bucket, conditions=prefix)),
        users=[{"access_key": user, "secret_key": SECRET, "policies": [name]}],
    )
    s3 = minio_server.s3(user, SECRET)
    assert list(s3.list_objects(bucket_name=bucket, prefix="mine/")) == []
    with pytest.raises(S3Error, match="AccessDenied"):
        list(s3.list_objects(bucket_name=bucket, prefix="yours/"))


def test_a_policy_that_someone_changed_by_hand_is_set_right(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    declared = policy(scratch.name(), READ)
    provision(policies=declared)
    loose = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    minio_server.admin().policy_add(
        policy_name=scratch.name(), policy={"Version": "2012-10-17", "Statement": [loose]}
    )
    assert provision(policies=declared).changed
    assert not provision(policies=declared).changed


def test_a_policy_is_removed_once(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    provision(policies=[*policy(scratch.name("a"), READ), *policy(scratch.name("b"), READ)])
    declared = [{"name": scratch.name("a"), "state": "absent"}]
    assert provision(policies=declared).changes == {f"policy {scratch.name('a')}": ["removed"]}
    left = json.loads(minio_server.admin().policy_list())
    assert scratch.name("a") not in left
    assert scratch.name("b") in left
    assert not provision(policies=declared).changed


@pytest.mark.parametrize("check", [True, False])
def test_a_policy_that_a_user_has_is_not_removed_and_the_user_is_named(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, check: bool
) -> None:
    name, user = scratch.name(), scratch.user()
    holder = {"access_key": user, "secret_key": SECRET}
    provision(policies=policy(name, READ), users=[holder | {"policies": [name]}])
    for users in ([], [holder]):
        refused = provision.refused(
            policies=[{"name": name, "state": "absent"}],
            users=users,
            buckets=[{"name": scratch.name("b")}],
            check=check,
        )
        assert f"policy {name} is to be absent but user {user} still has it" in refused.message
    assert name in json.loads(minio_server.admin().policy_list())
    assert not minio_server.s3().bucket_exists(bucket_name=scratch.name("b"))


@pytest.mark.parametrize(
    "change", [{"policies": []}, {"state": "absent"}], ids=["detached", "user removed"]
)
def test_a_policy_goes_in_the_same_call_that_takes_it_from_its_user(
    provision: Provision, scratch: Scratch, change: Options
) -> None:
    name, user = scratch.name(), scratch.user()
    holder = {"access_key": user, "secret_key": SECRET}
    provision(policies=policy(name, READ), users=[holder | {"policies": [name]}])
    result = provision(policies=[{"name": name, "state": "absent"}], users=[holder | change])
    assert result.changes[f"policy {name}"] == ["removed"]


def test_a_policy_that_a_group_has_is_not_removed_and_the_group_is_named(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    name, group, admin = scratch.name(), scratch.name("group"), minio_server.admin()
    user = scratch.user()
    provision(policies=policy(name, READ), users=[{"access_key": user, "secret_key": SECRET}])
    # The SDK says str, the server wants a list.
    admin.group_add(group_name=group, members=[user])  # type: ignore[arg-type]
    admin.attach_policy(policies=[name], group=group)
    try:
        refused = provision.refused(policies=[{"name": name, "state": "absent"}])
        assert f"group {group} still has it" in refused.message
    finally:
        admin.group_remove(group_name=group, members=[user])  # type: ignore[arg-type]
        admin.group_remove(group_name=group)


def test_a_policy_that_comes_with_minio_is_not_removed(provision: Provision) -> None:
    refused = provision.refused(policies=[{"name": "readwrite", "state": "absent"}])
    assert "policy readwrite is built into MinIO" in refused.message
