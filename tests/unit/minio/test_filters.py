"""What users and buckets of the inventory become, and which of them are refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from tests.unit.conftest import load

minio = load("minio/filter_plugins/minio.py")
module = load("minio/library/minio_provision.py")

USER = {"access_key": "dvc", "secret_key": "s" * 11, "buckets": ["dvc-storage", "spare"]}


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = minio.bucket_policy(USER)["statements"]
    return found


def test_a_policy_names_the_users_own_buckets_and_no_others() -> None:
    resources = {resource for each in statements() for resource in each["Resource"]}
    assert resources == {
        "arn:aws:s3:::dvc-storage",
        "arn:aws:s3:::dvc-storage/*",
        "arn:aws:s3:::spare",
        "arn:aws:s3:::spare/*",
    }


def test_what_a_bucket_grants_is_not_granted_on_objects_and_the_other_way_round() -> None:
    for each in statements():
        about_objects = {resource.endswith("/*") for resource in each["Resource"]}
        assert len(about_objects) == 1


def test_a_user_may_list_read_write_and_delete_and_nothing_more() -> None:
    actions = {action for each in statements() for action in each["Action"]}
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= actions
    assert not any("*" in action for action in actions)
    forbidden = ("Policy", "CreateBucket", "DeleteBucket", "Version", "admin:", "AllMyBuckets")
    assert not [action for action in actions for word in forbidden if word in action]


def test_a_user_holds_the_policy_that_was_made_for_it() -> None:
    assert minio.with_policy(USER)["policies"] == [minio.bucket_policy(USER)["name"]]


def test_what_the_filters_make_is_what_the_module_takes() -> None:
    rule = {"id": "x", "prefix": "tmp/", "expire_days": "3"}
    bucket = {"name": "b", "versioning": "true", "quota": "1g", "lifecycle": [rule]}
    taken = ArgumentSpecValidator(module.ARGUMENTS).validate(
        {
            "endpoint": "minio:9000",
            "access_key_file": "/a",
            "secret_key_file": "/b",
            "buckets": [minio.with_lifecycle(bucket, "30")],
            "policies": [minio.bucket_policy(USER)],
            "users": [minio.with_policy(USER)],
        }
    )
    assert taken.error_messages == []
    (made,) = taken.validated_parameters["buckets"]
    assert (made["versioning"], made["quota"]) == (True, 1024**3)
    assert [each["expire_days"] for each in made["lifecycle"]] == [3, None]


def test_two_users_do_not_share_a_policy() -> None:
    other = {**USER, "access_key": "mlflow"}
    assert minio.bucket_policy(USER)["name"] != minio.bucket_policy(other)["name"]


def test_a_bucket_that_says_nothing_has_its_old_versions_removed_and_no_limit() -> None:
    assert minio.with_lifecycle({"name": "b"}, 30) == {
        "name": "b",
        "versioning": False,
        "quota": 0,
        "lifecycle": [
            {
                "id": "noncurrent-versions",
                "expire_noncurrent_days": 30,
                "expire_delete_markers": True,
            }
        ],
    }


@pytest.mark.parametrize(
    ("own", "every", "days"),
    [
        ({}, "7", [7]),
        ({"noncurrent_days": 1}, 30, [1]),
        ({"noncurrent_days": 0}, 30, []),
        ({}, 0, []),
    ],
)
def test_old_versions_stay_as_long_as_their_bucket_says_or_else_all_buckets(
    own: dict[str, int], every: int | str, days: list[int]
) -> None:
    rules = minio.with_lifecycle({"name": "b", **own}, every)["lifecycle"]
    assert [rule["expire_noncurrent_days"] for rule in rules] == days


def test_rules_of_a_bucket_stand_beside_the_one_for_old_versions() -> None:
    own = {"id": "runs", "prefix": "tmp/", "expire_days": 3}
    rules = minio.with_lifecycle({"name": "b", "lifecycle": [own]}, 30)["lifecycle"]
    assert [rule["id"] for rule in rules] == ["runs", "noncurrent-versions"]


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("0", 0),
        (10737418240, 10737418240),
        ("500m", 500 * 1024**2),
        ("10g", 10 * 1024**3),
        ("10GB", 10 * 1024**3),
        ("10gb", 10 * 1024**3),
        ("2T", 2 * 1024**4),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(size: object, count: int) -> None:
    assert minio.with_lifecycle({"name": "b", "quota": size}, 30)["quota"] == count


def said_of_bucket(**bucket: object) -> list[str]:
    given = [{"name": "bucket", **bucket}]
    return list(minio.faults("root", STRONG, [], given, 30))


@pytest.mark.parametrize(
    "name", ["ab", "UPPER", "a..b", "a.-b", "10.0.0.1", "minio", "-abc", "abc\n"]
)
def test_a_bucket_name_that_minio_refuses_is_refused(name: str) -> None:
    (said,) = said_of_bucket(name=name)
    assert said.startswith(f"minio_buckets: {name} is no name of a bucket: use 3 to 63")


@pytest.mark.parametrize("name", ["abc", "a-b.c9", "1.2.3.4.5", "minio-2", "a" * 63])
def test_a_bucket_name_that_minio_takes_is_taken(name: str) -> None:
    assert said_of_bucket(name=name) == []


@pytest.mark.parametrize(
    ("bucket", "says"),
    [
        ({"quota": "lots"}, "bucket: quota is 'lots': give bytes, or a size such as 500m"),
        ({"quota": -1}, "bucket: quota is -1: give bytes"),
        ({"quota": "1.5g"}, "bucket: quota is '1.5g': give bytes"),
        ({"noncurrent_days": -1}, "bucket: noncurrent_days is -1: give 0 or more days; 0 is never"),
        ({"lifecycle": [{"id": "x"}]}, "bucket: lifecycle rule x does nothing: give one of"),
        (
            {"lifecycle": [{"id": "x", "expire_days": 0, "expire_noncurrent_days": 1}]},
            "bucket: lifecycle rule x: expire_days is 0: give 1 or more days",
        ),
        (
            {"lifecycle": [{"id": "x", "expire_days": 1, "expire_delete_markers": True}]},
            "bucket: lifecycle rule x: expire_days excludes expire_delete_markers",
        ),
        (
            {"lifecycle": [{"id": "noncurrent-versions", "expire_days": 1}]},
            "bucket: lifecycle has the id 'noncurrent-versions' twice",
        ),
    ],
)
def test_a_bucket_that_minio_would_not_take_is_refused_by_name_and_value(
    bucket: dict[str, Any], says: str
) -> None:
    (said,) = said_of_bucket(**bucket)
    assert said.startswith(f"minio_buckets: {says}")


def test_days_that_are_no_number_are_refused_and_text_that_is_one_is_taken() -> None:
    assert minio.faults("root", STRONG, [], [], "30") == []
    (said,) = minio.faults("root", STRONG, [], [], "a month")
    assert said == "minio_noncurrent_days is 'a month': give 0 or more days; 0 is never"


def test_a_bucket_or_a_user_that_is_listed_twice_is_refused() -> None:
    user = {**USER, "secret_key": STRONG}
    assert minio.faults("root", STRONG, [user] * 2, [{"name": "abc"}] * 2, 30) == [
        "minio_users lists 'dvc' twice: merge the two",
        "minio_buckets lists 'abc' twice: merge the two",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ab", "access_key 'ab' is no name of a user: give 3"),
        ("a,b", "access_key 'a,b' is no name of a user"),
        ("root", "root is the root user: choose another access_key"),
    ],
)
def test_a_user_that_minio_would_not_take_is_refused(name: str, says: str) -> None:
    user = {**USER, "access_key": name, "secret_key": STRONG}
    (said,) = minio.faults("root", STRONG, [user], [], 30)
    assert said.startswith(f"minio_users: {says}")


STRONG = "s" * 12


def test_credentials_that_are_long_enough_have_no_fault() -> None:
    assert minio.credential_faults("abc", STRONG, [{**USER, "secret_key": STRONG}]) == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("ab", STRONG, STRONG), "minio_root_user has 2 characters and 3 are the least: "),
        (
            ("abc", "xyz-xyz-xyz", STRONG),
            "minio_root_password has 11 characters and 12 are the least: ",
        ),
        (
            ("abc", STRONG, "xyz"),
            "minio_users: secret_key of dvc has 3 characters and 12 are the least: ",
        ),
    ],
)
def test_a_short_secret_is_refused_by_its_name_and_length_and_is_not_shown(
    given: tuple[str, str, str], says: str
) -> None:
    user, password, secret = given
    (said,) = minio.credential_faults(user, password, [{**USER, "secret_key": secret}])
    assert said.startswith(says)
    assert "xyz" not in said


def test_a_credential_that_minio_would_take_for_an_address_is_refused_and_not_shown() -> None:
    (said,) = minio.credential_faults("abc", "env" + STRONG, [])
    assert said.startswith('minio_root_password begins with "env"')
    assert STRONG not in said


def test_a_user_of_no_bucket_is_refused_before_anything_is_made() -> None:
    user = {**USER, "secret_key": STRONG, "buckets": []}
    (said,) = minio.faults("root", STRONG, [user], [], 30)
    assert said == "minio_users: dvc has no buckets: name one, or remove the user"
