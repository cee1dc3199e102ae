"""Two platforms on one host, of which one is destroyed after the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.infra.conftest import Stack, stack
from tests.infra.faults_support import WITHOUT_PIPELINE, left_of, lives_of

NAMES = ("mlops-side", "mlops-side-2")  # the one's name begins the other's


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Stack]]:
    """Two platforms as they are shipped."""
    first = stack(NAMES[0], 9240, tmp_path_factory.mktemp("one"))
    # with an identity that is generated, as users have it
    second = stack(NAMES[1], 9250, tmp_path_factory.mktemp("other"), platform_identity="")
    pair = (first, second)
    try:
        for one in pair:
            one.play("site.yml", *WITHOUT_PIPELINE)
        yield pair
    finally:
        for one in pair:
            one.destroy()


def client(one: Stack) -> MlflowClient:
    """MLflow's own client, from this machine."""
    return MlflowClient(f"http://127.0.0.1:{one.variables['mlflow_port']}")


def experiments(one: Stack) -> set[str]:
    """Names of what was tracked on a platform."""
    return {found.name for found in client(one).search_experiments()}


def secrets_of(one: Stack) -> Path:
    """Where an inventory keeps its generated secrets."""
    return Path(one.inventory) / ".secrets"


def left(one: Stack) -> str:
    """What the engine still has of a platform, and its folder on the host."""
    folder = Path("/opt", one.name)
    return left_of(one.name) + (str(folder) if folder.exists() else "")


def test_two_platforms_share_nothing_and_go_one_after_the_other(pair: tuple[Stack, Stack]) -> None:
    first, second = pair
    for one in pair:
        client(one).create_experiment(f"of-{one.name}")
    for one, other in ((first, second), (second, first)):
        assert f"of-{one.name}" in experiments(one)
        assert f"of-{other.name}" not in experiments(one)
        assert "changed=0" in one.play("site.yml", *WITHOUT_PIPELINE)
    before = lives_of(second.name)
    assert before

    first.destroy()
    assert left(first) == ""
    assert lives_of(second.name) == before
    assert f"of-{second.name}" in experiments(second)
    assert "changed=0" in second.play("site.yml", *WITHOUT_PIPELINE)

    second.destroy()
    assert left(second) == ""


def test_a_port_of_a_platform_that_runs_is_refused_to_another_by_its_owner(
    tmp_path: Path, pair: tuple[Stack, Stack]
) -> None:
    second = pair[1]
    second.play("site.yml", *WITHOUT_PIPELINE)
    third = stack("mlops-side-3", 9250, tmp_path)
    said = " ".join(third.attempt("site.yml", *WITHOUT_PIPELINE).split())
    assert "9250" in said
    assert second.name in said
    assert left(third) == ""


def test_another_inventory_of_the_same_name_does_not_give_a_running_platform_its_secrets(
    tmp_path: Path, pair: tuple[Stack, Stack]
) -> None:
    second = pair[1]
    second.play("site.yml", *WITHOUT_PIPELINE)
    before = lives_of(second.name)
    clone = stack(second.name, 9250, tmp_path, platform_identity="")
    for playbook in ("site.yml", "playbooks/destroy.yml", "playbooks/prune.yml"):
        said = clone.attempt(
            playbook, platform_destroy_confirmed=True, platform_prune_confirmed=True
        )
        said = " ".join(said.split())
        assert f"platform {second.name} were made from another inventory" in said
        assert "failed=1" in said
        assert lives_of(second.name) == before

    shutil.rmtree(secrets_of(clone))
    shutil.copytree(secrets_of(second), secrets_of(clone))
    assert "changed=0" in clone.play("site.yml", *WITHOUT_PIPELINE)
    shutil.rmtree(secrets_of(second) / second.name)
    shutil.copytree(secrets_of(clone) / second.name, secrets_of(second) / second.name)
    assert "changed=0" in second.play("site.yml", *WITHOUT_PIPELINE)


def test_whoever_gives_the_mark_of_a_platform_goes_on_with_it(
    tmp_path: Path, pair: tuple[Stack, Stack]
) -> None:
    second = pair[1]
    second.play("site.yml", *WITHOUT_PIPELINE)
    mark = (secrets_of(second) / f"{second.name}.identity").read_text().strip()
    client(second).create_experiment("before")
    heir = stack(second.name, 9250, tmp_path, platform_identity=mark)
    heir.play("site.yml", *WITHOUT_PIPELINE)
    assert "before" in experiments(heir)
    heir.destroy()
    assert left(second) == ""
