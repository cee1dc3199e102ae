"""What checks call wrong, where breaking a platform that far would take too much."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from platform_verify.declared import Port, Service
from platform_verify.s3 import excess

ROLES = Path(__file__).parents[3] / "roles"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared with, not bound
ONE = Service("minio", "lab", "lab-minio", "10001:10001", "1g", (Port(9000, "127.0.0.1", 9100),))
SOUND: dict[str, Any] = {
    "name": "lab-minio",
    "user": "10001:10001",
    "uids": [10001],
    "cap_drop": ["ALL"],
    "cap_add": [],
    "security": ["no-new-privileges:true"],
    "privileged": False,
    "namespaces": [],
    "mounts": ["/opt/lab/services/minio/secrets/root_user"],
    "ports": [{"inside": 9000, "address": "127.0.0.1", "port": 9100, "protocol": "tcp"}],
    "proxies": [{"inside": 9000, "address": "127.0.0.1", "port": 9100, "protocol": "tcp"}],
    "listeners": [["::", 9000], ["127.0.0.11", 40123]],
}
OWN = {"list": "allowed", "read": "NoSuchKey", "write": "BadDigest", "policy": "AccessDenied"}
FOREIGN = dict.fromkeys(OWN, "AccessDenied")
REACH: dict[str, Any] = {"user": "dvc", "buckets": {"own": OWN, "other": FOREIGN}, "admin": 403}


def checks(role: str, name: str) -> ModuleType:
    """Load a role's file of checks."""
    path = ROLES / role / "verify" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"user": ""}, "runs as root"),
        ({"user": "10002:10002"}, "declared is 10001:10001"),
        ({"uids": [0, 10001]}, "has a process of root"),
        ({"cap_drop": []}, "has capabilities"),
        ({"cap_add": ["SYS_ADMIN"]}, "has capabilities (SYS_ADMIN)"),
        ({"security": []}, "may gain privileges"),
        ({"privileged": True}, "is privileged"),
        ({"namespaces": ["host"]}, "shares a namespace"),
        ({"mounts": ["/var/run/docker.sock"]}, "holds the engine's socket"),
    ],
)
def test_a_container_that_may_become_root_is_named(change: dict[str, Any], said: str) -> None:
    found = list(checks("platform", "check_containers").powers(ONE, SOUND | change))
    assert found == [] if not said else said in found[0]


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("pid", {"namespaces": ["host"], "uids": [0, 10001]}),
        ("cap_add", {"cap_add": ["NET_BIND_SERVICE"]}),
        ("user", {"uids": [0]}),
    ],
)
def test_a_rule_that_is_excepted_holds_no_more_and_its_reason_is_shown(
    rule: str, change: dict[str, Any]
) -> None:
    judge = checks("platform", "check_containers")
    one = replace(ONE, exceptions={rule: "it must"})
    assert list(judge.powers(one, SOUND | change)) == []
    assert list(judge.powers(ONE, SOUND | change))
    shown = judge.excepted({"lab-minio": (one, SOUND)})
    assert shown == f"; minio is excepted from {rule}: it must"


def test_containers_of_a_service_are_named_by_its_stage_and_replicas() -> None:
    assert ONE.containers == ("lab-minio",)
    assert replace(ONE, replicas=2).containers == ("lab-minio-1", "lab-minio-2")
    assert replace(ONE, stage="job").containers == ("lab-minio",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"ports": []}, "is not open on 127.0.0.1:9100"),
        (
            {"ports": [{"inside": 9000, "address": EVERYWHERE, "port": 9100, "protocol": "tcp"}]},
            f"is open on {EVERYWHERE}:9100",
        ),
        (
            {
                "proxies": [
                    {"inside": 9001, "address": "127.0.0.1", "port": 9101, "protocol": "tcp"}
                ]
            },
            "is open on 127.0.0.1:9101 (its port 9001)",
        ),
        ({"listeners": [[EVERYWHERE, 22]]}, "listens on port 22"),
    ],
)
def test_an_opening_that_is_not_the_declared_one_is_named(
    change: dict[str, Any], said: str
) -> None:
    found = list(
        checks("platform", "check_containers").openings(ONE.container, ONE, SOUND | change)
    )
    assert found == [] if not said else said in found[0]


def test_a_port_for_neighbours_is_known_when_exposed_and_the_hosts_own_are_not_judged() -> None:
    openings = checks("platform", "check_containers").openings
    seen = SOUND | {"ports": [], "proxies": [], "listeners": [["0.0.0.0", 5432]]}  # noqa: S104
    silent = replace(ONE, ports=())
    assert list(openings("lab-db", silent, seen))
    assert list(openings("lab-db", replace(silent, exposed=[5432]), seen)) == []
    excepted = replace(silent, exceptions={"network_mode": "it counts packets"})
    assert list(openings("lab-db", excepted, seen)) == []


@pytest.mark.parametrize(
    ("bucket", "answers", "said"),
    [
        ("own", OWN, ""),
        ("own", OWN | {"write": "AccessDenied"}, "dvc cannot write own, its own"),
        ("own", OWN | {"policy": "NoSuchBucketPolicy"}, "dvc may read the policy of own"),
        ("other", FOREIGN | {"list": "allowed"}, "dvc may list other"),
        ("other", FOREIGN | {"read": "NoSuchKey"}, "dvc may read other"),
        ("other", FOREIGN | {"write": "BadDigest"}, "dvc may write other"),
        ("other", FOREIGN | {"list": "NoSuchBucket"}, "not AccessDenied"),
    ],
)
def test_a_user_that_reaches_too_much_or_too_little_is_named(
    bucket: str, answers: dict[str, str], said: str
) -> None:
    reach = REACH | {"buckets": REACH["buckets"] | {bucket: answers}}
    found = list(excess(reach, ("own",)))
    assert found == [] if not said else said in found[0]


def test_a_user_that_minio_takes_for_an_administrator_is_named() -> None:
    found = list(excess(REACH | {"admin": 200}, ("own",)))
    assert found == ["dvc may list MinIO's users like an administrator: 200"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"status": "RUNNING"}, "its status is RUNNING"),
        ({"metrics": {"test_rmse": 0.7}}, "metric test_rmse is 0.7"),
        ({"metrics": {}}, "metric test_rmse is None"),
        ({"tags": {}}, "tag data_md5 is None, not d"),
    ],
)
def test_a_run_that_tells_something_else_than_the_files_is_named(
    change: dict[str, Any], said: str
) -> None:
    chain = {
        "outputs": {"raw.csv": "d", "model.joblib": "m"},
        "paths": {"raw": "raw.csv", "model": "model.joblib"},
        "metrics": {"data_source": "file", "train": {}, "test": {"rmse": 0.5}},
        "platform": "lab",
        "ran_at": ["c0ffee"],
    }
    tags = {"data_md5": "d", "model_md5": "m", "data_source": "file", "platform": "lab"}
    run = {
        "status": "FINISHED",
        "tags": tags | {"git_commit": "c0ffee"},
        "metrics": {"test_rmse": 0.5},
    }
    found = list(checks("dvc_runner", "check_lineage").misses(chain, run | change))
    assert found == [] if not said else said in found[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"status": "RUNNING"}, ["run a1 is RUNNING"]),
        ({"project": "other"}, ["tag project of run a1 is other, not churn"]),
        ({"platform": ""}, ["tag platform of run a1 is , not lab"]),
        ({"git_commit": ""}, ["run a1 names no commit"]),
    ],
)
def test_an_mlflow_run_that_does_not_tell_whose_it_is_is_named(
    change: dict[str, str], said: list[str]
) -> None:
    tags = {"project": "churn", "platform": "lab", "git_commit": "c0ffee", **change}
    run = {"run_id": "a1", "status": tags.pop("status", "FINISHED"), "tags": tags}
    chain = {"project": "churn", "platform": "lab"}
    assert list(checks("dvc_runner", "check_lineage").untold(chain, run)) == said
