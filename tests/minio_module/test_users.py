"""Users: keys and policies as declared, without a write where nothing differs."""

from __future__ import annotations

import json
import secrets

import pytest
from minio.error import MinioAdminException
from tests.minio_module.conftest import Scratch
from tests.minio_module.support import MinioServer, Options, Provision, Relay, statement

SECRET = secrets.token_urlsafe(16)
OTHER_SECRET = secrets.token_urlsafe(16)


def policies_of(server: MinioServer, user: str) -> set[str]:
    info = json.loads(server.admin().user_info(access_key=user))
    return set(filter(None, info.get("policyName", "").split(",")))


def policies(*names: str) -> list[Options]:
    return [{"name": name, "statements": [statement("s3:GetObject", on="b/*")]} for name in names]


def test_a_user_logs_in_with_the_declared_key_and_the_second_call_changes_nothing(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    user, name = scratch.user(), scratch.name()
    declared: Options = {
        "policies": policies(name),
        "users": [{"access_key": user, "secret_key": SECRET, "policies": [name]}],
    }
    assert provision(**declared).changes[f"user {user}"] == ["created", f"policies {name}"]
    assert minio_server.answer_to(user, SECRET) == "ok"
    assert policies_of(minio_server, user) == {name}
    assert not provision(**declared).changed


def test_a_changed_key_replaces_the_old_one_and_keeps_the_policies(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    user, name = scratch.user(), scratch.name()
    first = {"access_key": user, "secret_key": SECRET, "policies": [name]}
    provision(policies=policies(name), users=[first])
    rotated = [first | {"secret_key": OTHER_SECRET}]
    assert provision(users=rotated).changes == {f"user {user}": ["secret key changed"]}
    assert minio_server.answer_to(user, OTHER_SECRET) == "ok"
    assert minio_server.answer_to(user, SECRET) == "SignatureDoesNotMatch"
    assert policies_of(minio_server, user) == {name}
    assert not provision(users=rotated).changed


def test_a_key_that_holds_is_never_written_again_though_the_server_would_take_it(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, relay: Relay
) -> None:
    user = scratch.user()
    provision(users=[{"access_key": user, "secret_key": SECRET}])
    assert not provision(
        users=[{"access_key": user, "secret_key": SECRET}], via=relay.address
    ).changed
    assert relay.requests
    assert relay.writes() == []
    # What the module must not lean on: adding a user again resets its key without a word.
    minio_server.admin().user_add(access_key=user, secret_key=OTHER_SECRET)
    assert minio_server.answer_to(user, SECRET) == "SignatureDoesNotMatch"


def test_a_user_without_any_permission_proves_its_key_all_the_same(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    user = scratch.user()
    declared = [{"access_key": user, "secret_key": SECRET, "policies": []}]
    provision(users=declared)
    assert policies_of(minio_server, user) == set()
    assert not provision(users=declared).changed


def test_policies_that_are_given_are_all_a_user_has(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    user, (a, b, c) = scratch.user(), [scratch.name(each) for each in "abc"]
    declared = {"access_key": user, "secret_key": SECRET}
    provision(policies=policies(a, b, c), users=[declared | {"policies": [a, b]}])
    assert not provision(users=[declared | {"policies": [b, a]}]).changed
    result = provision(users=[declared | {"policies": [c, b]}])
    assert result.changes == {f"user {user}": [f"policies {b}, {c}"]}
    assert policies_of(minio_server, user) == {b, c}
    none = provision(users=[declared | {"policies": []}])
    assert none.changes == {f"user {user}": ["policies none"]}
    assert policies_of(minio_server, user) == set()
    assert not provision(users=[declared | {"policies": []}]).changed


def test_another_caller_who_attaches_the_policy_first_is_no_error(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, relay: Relay
) -> None:
    user, name = scratch.user(), scratch.name()
    declared = {"access_key": user, "secret_key": SECRET}
    provision(policies=policies(name), users=[declared])
    admin = minio_server.admin()

    def be_faster(_method: str, path: str) -> None:
        if "/set-user-or-group-policy?" in path:
            admin.attach_policy(policies=[name], user=user)
            faster.append(path)

    faster: list[str] = []
    relay.meddle = be_faster
    provision(users=[declared | {"policies": [name]}], via=relay.address)
    assert len(faster) == 1
    assert policies_of(minio_server, user) == {name}
    with pytest.raises(MinioAdminException, match="XMinioAdminPolicyChangeAlreadyApplied"):
        admin.attach_policy(policies=[name], user=user)


def test_a_user_that_someone_disabled_is_enabled_with_its_key_and_its_policies(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    user, (a, b) = scratch.user(), (scratch.name("a"), scratch.name("b"))
    declared = {"access_key": user, "secret_key": SECRET, "policies": [a]}
    provision(policies=policies(a, b), users=[declared])
    minio_server.admin().user_disable(access_key=user)
    assert minio_server.answer_to(user, SECRET) == "InvalidAccessKeyId"
    other = [declared | {"secret_key": OTHER_SECRET, "policies": [b]}]
    assert provision(users=other).changes == {f"user {user}": ["enabled", f"policies {b}"]}
    assert minio_server.answer_to(user, OTHER_SECRET) == "ok"
    assert policies_of(minio_server, user) == {b}
    assert not provision(users=other).changed


def test_a_user_that_is_not_listed_is_left_alone(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    stays, other = scratch.user("a"), scratch.user("b")
    provision(users=[{"access_key": stays, "secret_key": SECRET}])
    provision(users=[{"access_key": other, "secret_key": SECRET}])
    assert minio_server.answer_to(stays, SECRET) == "ok"
