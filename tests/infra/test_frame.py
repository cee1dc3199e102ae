"""What the frame does for every service, tried with roles that are no part of the project."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.faults_support import (
    WITHOUT_PIPELINE,
    Platform,
    assert_refused,
    commit_all,
    copy_project,
    docker,
    free_ports,
)
from tests.toy import toy

from platform_verify import report

FOLDER = Path("/srv/mlops-frame-toy")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The core with a store, a job and a service of two replicas beside it."""
    checkout = copy_project(tmp_path_factory.mktemp("frame") / "checkout")
    toy.add(checkout)
    commit_all(checkout)
    variables = {"platform_name": "mlops-frame", "toy_folder": str(FOLDER), **free_ports()}
    made = Platform(checkout, variables)
    try:
        made.up(*WITHOUT_PIPELINE)
        yield made
    finally:
        made.close()
        shutil.rmtree(FOLDER, ignore_errors=True)


def migrations(platform: Platform) -> list[str]:
    """What the job left each time it ran to its end."""
    return docker("exec", f"{platform.name}-toy-1", "cat", "/data/migrations").split()


def test_the_job_found_the_store_provisioned_and_ran_once(platform: Platform) -> None:
    assert migrations(platform) == ["1"]
    again = platform.up(*WITHOUT_PIPELINE)
    assert again.changed == 0, again.text
    assert migrations(platform) == ["1"]


def test_replicas_answer_behind_one_name_with_a_tree_of_files(platform: Platform) -> None:
    names = docker("ps", "--filter", "label=mlops.service=toy", "--format", "{{.Names}}").split()
    assert sorted(names) == [f"{platform.name}-toy-1", f"{platform.name}-toy-2"]
    inside = ("exec", platform.container("toystore"))
    assert len(docker(*inside, "getent", "ahosts", "toy").splitlines()) >= 2
    page = docker(*inside, "curl", "-fsS", "http://toy:8080/pages/wine/index.html")
    assert page == "red and white"


def test_the_folder_on_the_host_belongs_to_the_containers_user(platform: Platform) -> None:
    assert (FOLDER.stat().st_uid, FOLDER.stat().st_mode & 0o777) == (10001, 0o750)
    docker("exec", f"{platform.name}-toy-1", "touch", "/folder/written")
    assert (FOLDER / "written").exists()


def test_a_service_reads_its_secret(platform: Platform) -> None:
    command = platform.directory / "bin" / "toy"
    done = subprocess.run(
        [command, "cat", "/run/secrets/toy"], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == (platform.secrets / "toy_secret").read_text().strip()


def test_a_job_declared_otherwise_runs_once_more_while_what_waits_for_it_is_stopped(
    platform: Platform,
) -> None:
    before = platform.lives()
    platform.up(*WITHOUT_PIPELINE, given={"toy_release": "2"})
    assert migrations(platform) == ["1", "2"]
    after = platform.lives()
    core = [platform.container(name) for name in ("minio", "mlflow", "dvc-runner-wine", "toystore")]
    assert {name: before[name] for name in core} == {name: after[name] for name in core}


def test_a_job_that_fails_ends_the_run_with_its_words_and_runs_again_next_time(
    platform: Platform,
) -> None:
    failed = platform.play(*WITHOUT_PIPELINE, given={"toy_release": "3", "toy_fails": "true"})
    assert failed.code != 0
    failed.assert_says("toy-migrate ended with code 3", "no migration to 3 today")
    platform.up(*WITHOUT_PIPELINE, given={"toy_release": "3"})
    assert migrations(platform)[-1] == "3"
    assert platform.up(*WITHOUT_PIPELINE, given={"toy_release": "3"}).changed == 0


def test_the_verdict_expects_them_and_shows_what_is_excepted(
    platform: Platform, tmp_path: Path
) -> None:
    path = tmp_path / "verify.json"
    platform.play(
        playbook="playbooks/verify.yml", given={"verify_report": str(path), "toy_release": "3"}
    )
    judged = report.read(path)
    assert judged
    found = {check.name: check for check in judged.checks}
    for name in ("Containers run and are healthy", "Only the declared ports listen"):
        assert found[name].ok, found[name]
    assert "toy" in found["Containers run and are healthy"].detail
    assert "a toy starts few processes" in found["Containers are limited"].detail


# --- what is not ours


@pytest.fixture
def nowhere(tmp_path: Path) -> Platform:
    """A platform of which nothing is there."""
    variables = {"platform_name": "mlops-stranger", **free_ports()}
    return Platform(copy_project(tmp_path / "checkout"), variables)


def test_a_strangers_project_of_the_same_name_is_refused_and_stays(nowhere: Platform) -> None:
    label = f"com.docker.compose.project={nowhere.name}"
    made = docker("create", "--label", label, "--name", "somebody-elses", base_image(), "true")
    try:
        outcome = nowhere.play(*WITHOUT_PIPELINE)
        assert_refused(outcome, nowhere)
        outcome.assert_says("There is a container somebody-elses that is not of platform")
        assert docker("inspect", "--format", "{{.Id}}", "somebody-elses") == made
    finally:
        docker("rm", "--force", "--volumes", made)


def test_a_strangers_volume_of_a_name_that_ours_would_have_is_refused(nowhere: Platform) -> None:
    name = f"{nowhere.name}_minio"
    docker("volume", "create", name)
    try:
        outcome = nowhere.play(*WITHOUT_PIPELINE)
        assert_refused(outcome, nowhere)
        outcome.assert_says(f"There is a volume {name} that is not of platform {nowhere.name}")
    finally:
        docker("volume", "rm", name)


def base_image() -> str:
    """An image that is here."""
    return docker("images", "--format", "{{.Repository}}:{{.Tag}}", "localhost/mlops/base").split()[
        0
    ]


def test_a_strangers_project_file_where_ours_would_be_is_refused_and_stays(
    nowhere: Platform,
) -> None:
    theirs = nowhere.directory / "compose.yaml"
    theirs.parent.mkdir()
    theirs.write_text("name: theirs\n")
    try:
        outcome = nowhere.play(*WITHOUT_PIPELINE)
        assert outcome.code != 0
        outcome.assert_says(f"{theirs} was not written by this platform")
        assert theirs.read_text() == "name: theirs\n"
        assert nowhere.left() == ""
    finally:
        shutil.rmtree(theirs.parent)


def test_limits_that_add_up_to_more_than_the_host_has_are_told(nowhere: Platform) -> None:
    outcome = nowhere.play(*WITHOUT_PIPELINE, "--check", given={"minio_memory": "9000g"})
    assert outcome.code == 0, outcome.text
    outcome.assert_says("The services may use 92", "MiB of memory together")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tags", "mlflow"), "There is no tag 'mlflow' to run alone"),
        (("--skip-tags", "mlflow"), "The tag 'mlflow' cannot be skipped"),
        (("--skip-tags", "docker"), "The tag 'docker' cannot be skipped"),
    ],
    ids=str,
)
def test_tags_that_would_not_do_what_they_say_are_refused(
    nowhere: Platform, words: tuple[str, ...], said: str
) -> None:
    outcome = nowhere.play(*words)
    assert_refused(outcome, nowhere)
    outcome.assert_says(said)


def test_services_on_two_hosts_are_refused_before_any_is_reached(nowhere: Platform) -> None:
    hosts = nowhere.inventory / "hosts.yml"
    text = hosts.read_text().replace("  hosts:\n", "  hosts:\n    192.0.2.1:\n", 1)
    hosts.write_text(
        text.replace("mlflow: {hosts: {localhost: }}", "mlflow: {hosts: {192.0.2.1: }}")
    )
    outcome = nowhere.play()
    assert_refused(outcome, nowhere)
    outcome.assert_says("One platform runs on one host so far", "mlflow on 192.0.2.1")
