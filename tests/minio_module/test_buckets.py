"""Buckets: made, changed and removed as declared, and nothing else."""

from __future__ import annotations

import io
import json

import pytest
from minio import Minio
from minio.commonconfig import DISABLED, ENABLED, Filter
from minio.lifecycleconfig import (
    AbortIncompleteMultipartUpload,
    Expiration,
    LifecycleConfig,
    NoncurrentVersionExpiration,
    Rule,
)
from tests.minio_module.conftest import Scratch
from tests.minio_module.support import MinioServer, Options, Provision

RULE = {"id": "old", "prefix": "files/", "expire_noncurrent_days": 7}


@pytest.fixture
def s3(minio_server: MinioServer) -> Minio:
    return minio_server.s3()


def put(s3: Minio, bucket: str, key: str = "key") -> None:
    s3.put_object(bucket_name=bucket, object_name=key, data=io.BytesIO(b"data"), length=4)


def quota(server: MinioServer, bucket: str) -> int:
    answer = json.loads(server.admin().bucket_quota_get(bucket=bucket))
    return int(answer["quota"])


def test_a_bucket_has_what_it_was_declared_with_and_the_second_call_changes_nothing(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, s3: Minio
) -> None:
    bucket = {
        "name": scratch.name(),
        "versioning": True,
        "quota": 10_000_000,
        "tags": {"team": "wine lab", "stage": 1},
        "lifecycle": [RULE, {"id": "markers", "expire_delete_markers": True}],
    }
    first = provision(buckets=[bucket])
    assert first.changes == {
        f"bucket {scratch.name()}": [
            "created",
            "versioning on",
            "quota 10000000",
            "lifecycle set",
            "tags set",
        ]
    }
    name = scratch.name()
    assert s3.get_bucket_versioning(bucket_name=name).status == ENABLED
    assert quota(minio_server, name) == 10_000_000
    assert s3.get_bucket_tags(bucket_name=name) == {"team": "wine lab", "stage": "1"}
    config = s3.get_bucket_lifecycle(bucket_name=name)
    assert config is not None
    old = next(rule for rule in config.rules if rule.rule_id == "old")
    assert old.rule_filter is not None
    assert old.rule_filter.prefix == "files/"
    assert old.noncurrent_version_expiration == NoncurrentVersionExpiration(noncurrent_days=7)

    again = provision(buckets=[bucket])
    assert not again.changed
    assert again.changes == {}


CHANGES: dict[str, tuple[Options, Options]] = {
    "versioning suspended": ({"versioning": True}, {"versioning": False}),
    "versioning on": ({"versioning": False}, {"versioning": True}),
    "quota 2000000": ({"quota": 1_000_000}, {"quota": 2_000_000}),
    "quota 0": ({"quota": 1_000_000}, {"quota": 0}),
    "tags set": ({"tags": {"a": "1", "b": "2"}}, {"tags": {"a": "1"}}),
    "tags removed": ({"tags": {"a": "1"}}, {"tags": {}}),
    "lifecycle set": ({"lifecycle": [RULE]}, {"lifecycle": [RULE | {"prefix": ""}]}),
    "lifecycle removed": ({"lifecycle": [RULE]}, {"lifecycle": []}),
}


def test_a_changed_option_is_the_one_thing_that_changes_and_only_once(
    provision: Provision, scratch: Scratch
) -> None:
    names = {change: scratch.name(change.replace(" ", "-")) for change in CHANGES}
    before, after = (
        [{"name": name, **CHANGES[change][side]} for change, name in names.items()]
        for side in (0, 1)
    )
    provision(buckets=before)
    assert provision(buckets=after).changes == {
        f"bucket {name}": [change] for change, name in names.items()
    }
    assert provision(buckets=after).changes == {}


def test_versioning_false_leaves_a_bucket_alone_that_never_had_versions(
    provision: Provision, scratch: Scratch, s3: Minio
) -> None:
    provision(buckets=[{"name": scratch.name(), "versioning": False}])
    assert not provision(buckets=[{"name": scratch.name(), "versioning": False}]).changed
    assert s3.get_bucket_versioning(bucket_name=scratch.name()).status_string == "Off"


def test_options_that_are_left_out_and_buckets_that_are_not_listed_stay_as_they_are(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, s3: Minio
) -> None:
    rich = {"versioning": True, "quota": 5_000_000, "tags": {"a": "b"}, "lifecycle": [RULE]}
    provision(buckets=[{"name": scratch.name("a"), **rich}, {"name": scratch.name("b")}])
    assert not provision(buckets=[{"name": scratch.name("a")}]).changed
    assert s3.get_bucket_versioning(bucket_name=scratch.name("a")).status == ENABLED
    assert quota(minio_server, scratch.name("a")) == 5_000_000
    assert s3.get_bucket_tags(bucket_name=scratch.name("a")) == {"a": "b"}
    assert s3.get_bucket_lifecycle(bucket_name=scratch.name("a")) is not None
    assert s3.bucket_exists(bucket_name=scratch.name("b"))


def test_a_lifecycle_rule_that_someone_switched_off_is_switched_on_again(
    provision: Provision, scratch: Scratch, s3: Minio
) -> None:
    declared = [{"name": scratch.name(), "lifecycle": [{"id": "x", "expire_days": 3}]}]
    provision(buckets=declared)
    off = Rule(
        status=DISABLED,
        rule_id="x",
        rule_filter=Filter(prefix=""),
        expiration=Expiration(days=3),
    )
    s3.set_bucket_lifecycle(bucket_name=scratch.name(), config=LifecycleConfig(rules=[off]))
    assert provision(buckets=declared).changes == {f"bucket {scratch.name()}": ["lifecycle set"]}
    assert not provision(buckets=declared).changed


def test_minio_forgets_an_abort_action_so_there_is_no_option_for_it(
    provision: Provision, scratch: Scratch, s3: Minio
) -> None:
    provision(buckets=[{"name": scratch.name()}])
    abort = Rule(
        status=ENABLED,
        rule_id="x",
        rule_filter=Filter(prefix=""),
        expiration=Expiration(days=3),
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(days_after_initiation=1),
    )
    s3.set_bucket_lifecycle(bucket_name=scratch.name(), config=LifecycleConfig(rules=[abort]))
    config = s3.get_bucket_lifecycle(bucket_name=scratch.name())
    assert config is not None
    assert config.rules[0].abort_incomplete_multipart_upload is None
    rule = {"id": "x", "expire_days": 3, "abort_incomplete_days": 1}
    refused = provision.refused(buckets=[{"name": scratch.name(), "lifecycle": [rule]}])
    assert "buckets.lifecycle.abort_incomplete_days" in refused.message


def test_object_lock_is_given_at_creation_and_brings_versions(
    provision: Provision, scratch: Scratch, s3: Minio
) -> None:
    declared = [{"name": scratch.name(), "object_lock": True, "versioning": True}]
    assert provision(buckets=declared).changes == {f"bucket {scratch.name()}": ["created"]}
    s3.get_object_lock_config(bucket_name=scratch.name())
    assert s3.get_bucket_versioning(bucket_name=scratch.name()).status == ENABLED
    assert not provision(buckets=declared).changed


@pytest.mark.parametrize("lock", [True, False])
def test_object_lock_of_a_bucket_that_exists_is_not_changed_and_nothing_else_is_written(
    provision: Provision, scratch: Scratch, s3: Minio, lock: bool
) -> None:
    provision(buckets=[{"name": scratch.name("a"), "object_lock": not lock}])
    declared = [{"name": scratch.name("a"), "object_lock": lock}, {"name": scratch.name("b")}]
    refused = provision.refused(buckets=declared)
    assert (
        f"bucket {scratch.name('a')}: object_lock is to be {str(lock).lower()}" in refused.message
    )
    assert not s3.bucket_exists(bucket_name=scratch.name("b"))


def test_an_empty_bucket_is_removed_once(provision: Provision, scratch: Scratch, s3: Minio) -> None:
    provision(buckets=[{"name": scratch.name()}])
    declared = [{"name": scratch.name(), "state": "absent"}]
    assert provision(buckets=declared).changes == {f"bucket {scratch.name()}": ["removed"]}
    assert not s3.bucket_exists(bucket_name=scratch.name())
    assert not provision(buckets=declared).changed


@pytest.mark.parametrize("check", [True, False])
def test_a_bucket_that_holds_objects_is_not_removed_without_force(
    provision: Provision, scratch: Scratch, s3: Minio, check: bool
) -> None:
    provision(buckets=[{"name": scratch.name()}])
    put(s3, scratch.name())
    declared = [{"name": scratch.name(), "state": "absent"}, {"name": scratch.name("b")}]
    refused = provision.refused(buckets=declared, check=check)
    assert f"bucket {scratch.name()} is to be absent but is not empty" in refused.message
    assert not refused.changed
    assert s3.stat_object(bucket_name=scratch.name(), object_name="key").size == 4
    assert not s3.bucket_exists(bucket_name=scratch.name("b"))


def test_a_bucket_that_holds_only_deleted_versions_is_not_removed_without_force(
    provision: Provision, scratch: Scratch, s3: Minio
) -> None:
    provision(buckets=[{"name": scratch.name(), "versioning": True}])
    put(s3, scratch.name())
    s3.remove_object(bucket_name=scratch.name(), object_name="key")
    assert not list(s3.list_objects(bucket_name=scratch.name()))
    refused = provision.refused(buckets=[{"name": scratch.name(), "state": "absent"}])
    assert f"bucket {scratch.name()} is to be absent but is not empty" in refused.message
    assert s3.bucket_exists(bucket_name=scratch.name())


def test_force_removes_a_bucket_with_every_version(
    provision: Provision, scratch: Scratch, s3: Minio
) -> None:
    provision(buckets=[{"name": scratch.name(), "versioning": True}])
    for key in ("a", "a", "dir/b"):
        put(s3, scratch.name(), key)
    s3.remove_object(bucket_name=scratch.name(), object_name="a")
    declared = [{"name": scratch.name(), "state": "absent", "force": True}]
    assert provision(buckets=declared, check=True).changed
    assert len(list(s3.list_objects(bucket_name=scratch.name(), recursive=True))) == 1
    assert provision(buckets=declared).changes == {f"bucket {scratch.name()}": ["removed"]}
    assert not s3.bucket_exists(bucket_name=scratch.name())


def test_force_does_not_remove_an_object_under_legal_hold(
    provision: Provision, scratch: Scratch, s3: Minio
) -> None:
    provision(buckets=[{"name": scratch.name(), "object_lock": True}])
    put(s3, scratch.name())
    put(s3, scratch.name(), "free")
    s3.enable_object_legal_hold(bucket_name=scratch.name(), object_name="key")
    try:
        refused = provision.refused(
            buckets=[{"name": scratch.name(), "state": "absent", "force": True}]
        )
        assert "1 objects stay, the first is 'key'" in refused.message
        assert "the others are removed" in refused.message
        assert s3.stat_object(bucket_name=scratch.name(), object_name="key").size == 4
    finally:
        s3.disable_object_legal_hold(bucket_name=scratch.name(), object_name="key")
