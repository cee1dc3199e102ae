"""What a user of the inventory becomes: a policy for its own buckets and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.conftest import load

minio = load("minio/filter_plugins/minio.py")

USER = {"access_key": "dvc", "secret_key": "s" * 11, "buckets": ["dvc-storage", "spare"]}


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = minio.bucket_policy(USER)["statements"]
    return found


def test_a_policy_names_the_users_own_buckets_and_no_others() -> None:
    resources = {resource for each in statements() for resource in each["resources"]}
    assert resources == {
        "arn:aws:s3:::dvc-storage",
        "arn:aws:s3:::dvc-storage/*",
        "arn:aws:s3:::spare",
        "arn:aws:s3:::spare/*",
    }


def test_what_a_bucket_grants_is_not_granted_on_objects_and_the_other_way_round() -> None:
    for each in statements():
        about_objects = {resource.endswith("/*") for resource in each["resources"]}
        assert len(about_objects) == 1


def test_a_user_may_list_read_write_and_delete_and_nothing_more() -> None:
    actions = {action for each in statements() for action in each["actions"]}
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= actions
    assert not any("*" in action for action in actions)
    forbidden = ("Policy", "CreateBucket", "DeleteBucket", "Version", "admin:", "AllMyBuckets")
    assert not [action for action in actions for word in forbidden if word in action]
    assert {each["effect"] for each in statements()} == {"Allow"}


def test_a_user_holds_the_policy_that_was_made_for_it() -> None:
    assert minio.with_policy(USER)["policies"] == [minio.bucket_policy(USER)["name"]]


def test_two_users_do_not_share_a_policy() -> None:
    other = {**USER, "access_key": "mlflow"}
    assert minio.bucket_policy(USER)["name"] != minio.bucket_policy(other)["name"]


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
