"""Buckets: made and changed as declared, and nothing else."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from minio import Minio
from minio.commonconfig import DISABLED, ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import (
    AbortIncompleteMultipartUpload,
    Expiration,
    LifecycleConfig,
    NoncurrentVersionExpiration,
    Rule,
)
from minio.versioningconfig import VersioningConfig
from tests.minio_module.conftest import Scratch
from tests.minio_module.support import MinioServer, Options, Provision, started

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
        "lifecycle": [RULE, {"id": "markers", "expire_delete_markers": True}],
    }
    first = provision(buckets=[bucket])
    assert first.changes == {
        f"bucket {scratch.name()}": [
            "created",
            "versioning on",
            "quota 10000000",
            "lifecycle set",
        ]
    }
    name = scratch.name()
    assert s3.get_bucket_versioning(bucket_name=name).status == ENABLED
    assert quota(minio_server, name) == 10_000_000
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


def test_a_bucket_that_is_listed_is_made_exactly_so_and_one_that_is_not_is_left_alone(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, s3: Minio
) -> None:
    rich = {"versioning": True, "quota": 5_000_000, "lifecycle": [RULE]}
    provision(buckets=[{"name": scratch.name(each), **rich} for each in "ab"])
    plain = [{"name": scratch.name("a")}]
    assert provision(buckets=plain).changes == {
        f"bucket {scratch.name('a')}": ["versioning suspended", "quota 0", "lifecycle removed"]
    }
    assert not provision(buckets=plain).changed
    assert s3.get_bucket_versioning(bucket_name=scratch.name("b")).status == ENABLED
    assert quota(minio_server, scratch.name("b")) == 5_000_000
    assert s3.get_bucket_lifecycle(bucket_name=scratch.name("b")) is not None


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


def test_a_full_bucket_takes_no_more(provision: Provision, scratch: Scratch, s3: Minio) -> None:
    provision(buckets=[{"name": scratch.name(), "quota": 3}])
    with pytest.raises(S3Error, match="quota"):
        put(s3, scratch.name())


def long_ago(s3: Minio, method: str, key: str, year: int) -> None:
    """Write or delete an object as a replica of another server, which keeps its time."""
    headers: dict[str, str | list[str] | tuple[str]] = {
        "X-Minio-Source-Replication-Request": "true",
        "X-Minio-Source-Mtime": f"{year}-01-01T00:00:00Z",
        "X-Minio-Source-DeleteMarker": "true",
    }
    body = b"data" if method == "PUT" else None
    s3._execute(method, bucket_name="bucket", object_name=key, body=body, headers=headers)


def test_the_rule_of_the_platform_frees_the_space_of_what_was_deleted_or_replaced_long_ago(
    minio_binary: str, tmp_path: Path
) -> None:
    rule = {"id": "x", "expire_noncurrent_days": 30, "expire_delete_markers": True}
    with started(minio_binary, tmp_path, MINIO_SCANNER_CYCLE="1s") as server:
        s3 = server.s3()
        s3.make_bucket(bucket_name="bucket")
        s3.set_bucket_versioning(bucket_name="bucket", config=VersioningConfig(ENABLED))
        for year in (2020, 2021):
            long_ago(s3, "PUT", "replaced", year)
        long_ago(s3, "PUT", "deleted", 2020)
        long_ago(s3, "DELETE", "deleted", 2021)
        put(s3, "bucket", "young")
        put(s3, "bucket", "young")

        def versions() -> list[str]:
            found = s3.list_objects(bucket_name="bucket", recursive=True, include_version=True)
            return sorted(each.object_name or "" for each in found)

        assert versions() == ["deleted", "deleted", "replaced", "replaced", "young", "young"]
        declared = [{"name": "bucket", "versioning": True, "lifecycle": [rule]}]
        assert Provision(server, tmp_path)(buckets=declared).changes == {
            "bucket bucket": ["lifecycle set"]
        }
        end = time.monotonic() + 60
        while len(versions()) > 3 and time.monotonic() < end:
            time.sleep(0.2)
        assert versions() == ["replaced", "young", "young"]
