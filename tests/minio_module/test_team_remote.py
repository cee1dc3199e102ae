"""A team's own S3 remote, on a server that is not the platform's, with credentials of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.minio_module.support import MinioServer, started
from tests.unit.dvc_runner.conftest import World, committed_to, dvc, git, new_world

PIPELINE = {
    "count": {"cmd": "wc -l <numbers.csv >count", "deps": ["numbers.csv"], "outs": ["count"]}
}
CREDENTIALS = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
TEAMS = "['remote \"team\"']\n    access_key_id = {}\n    secret_access_key = {}\n"


@pytest.fixture
def platform(minio_binary: str, tmp_path: Path) -> Iterator[MinioServer]:
    """The platform's own store."""
    (tmp_path / "platform").mkdir()
    with started(minio_binary, tmp_path / "platform") as server:
        server.s3().make_bucket("dvc-storage")
        yield server


@pytest.fixture
def world(minio_server: MinioServer, tmp_path: Path) -> World:
    """A clone of a project whose data only the team's server has."""
    made = new_world(tmp_path / "world")
    dvc(made.project, "init", "--quiet")
    (made.project / "numbers.csv").write_text("1\n2\n3\n")
    dvc(made.project, "add", "numbers.csv")
    team = minio_server.s3()
    if not team.bucket_exists("team-data"):
        team.make_bucket("team-data")
    address = f"http://{minio_server.address}"
    dvc(made.project, "remote", "add", "--default", "team", "s3://team-data/churn")
    dvc(made.project, "remote", "modify", "team", "endpointurl", address)
    for key in ("access_key", "secret_key"):
        option = key.replace("access_key", "access_key_id").replace(
            "secret_key", "secret_access_key"
        )
        dvc(made.project, "remote", "modify", "--local", "team", option, getattr(minio_server, key))
    dvc(made.project, "push")
    committed_to(made, dvc__yaml=json.dumps({"stages": PIPELINE}))
    git(made.root, "clone", "--quiet", "project", "clone")
    shutil.rmtree(made.project)
    (made.root / "clone").rename(made.project)
    return made


def told(world: World, platform: MinioServer, access_key: str, secret_key: str) -> dict[str, str]:
    """What the runner is told of both servers."""
    secrets = world.root / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "dvc_config").write_text(TEAMS.format(access_key, secret_key))
    own = CREDENTIALS.format(platform.access_key, platform.secret_key)
    (secrets / "s3_credentials").write_text(own)
    return {
        "RUNNER_SECRETS": str(secrets),
        "RUNNER_REMOTE_URL": "s3://dvc-storage",
        "RUNNER_REMOTE_ENDPOINT": f"http://{platform.address}",
        "RUNNER_REMOTE_CREDENTIALS": str(secrets / "s3_credentials"),
        "HOME": str(world.root),
    }


def names(server: MinioServer, bucket: str) -> list[str]:
    """Every object of a bucket."""
    return [str(each.object_name) for each in server.s3().list_objects(bucket, recursive=True)]


def test_data_of_a_teams_server_are_pulled_with_its_keys_and_are_the_platforms_from_then_on(
    world: World, platform: MinioServer, minio_server: MinioServer
) -> None:
    before = names(minio_server, "team-data")
    keys = (minio_server.access_key, minio_server.secret_key)
    done = world.call("local", str(world.project), **told(world, platform, *keys))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (world.work / "project/count").read_text().strip() == "3"
    data = [name.removeprefix("churn/") for name in before]
    assert {*data} < {*names(platform, "dvc-storage")}
    assert names(minio_server, "team-data") == before, "nothing is ever written there"
    assert minio_server.secret_key not in git(world.work / "project", "log", "-p", "--all")
    # the team's server is needed no more
    shutil.rmtree(world.work)
    done = world.call("local", str(world.project), **told(world, platform, "none", "none-of-them"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("wrong", "why"),
    [("access", "Forbidden"), ("secret", "Forbidden"), ("url", "no-such-bucket")],
)
def test_what_a_teams_server_refuses_is_told_in_a_sentence(
    wrong: str, why: str, world: World, platform: MinioServer, minio_server: MinioServer
) -> None:
    keys = {"access": minio_server.access_key, "secret": minio_server.secret_key}
    if wrong == "url":
        dvc(world.project, "remote", "modify", "team", "url", "s3://no-such-bucket/churn")
    given = {**keys, wrong: "none-of-them"}
    told_both = told(world, platform, given["access"], given["secret"])
    done = world.call("local", str(world.project), **told_both)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "is not to be had" in line]
    assert said.startswith("numbers.csv is not to be had: numbers.csv.dvc names md5 ")
    assert "its remote team (s3://" in said
    assert why in said
    assert keys["secret"] not in done.stdout + done.stderr
    assert not names(platform, "dvc-storage")
