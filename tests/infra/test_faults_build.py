"""Builds and starts that fail, are interrupted or are killed: the next run ends well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.infra.faults_support import (
    Gate,
    Platform,
    Running,
    copy_project,
    docker,
    gate,
    wait_for,
)

NAME = "mlops-faults-build"
TASKS = """\
- name: Declare it
  ansible.builtin.import_role:
    name: container_service
  vars:
    container_service_spec:
      name: {name}
      build: {{context: files/image}}
      command: [sh, -c, "{command}"]
      secrets: {{key: secret-of-{name}}}
      user: "10001:10001"
      healthcheck: {{test: [CMD, test, -e, /tmp/ready], start_period: 30s}}
      mem_limit: 64m
"""
PLAYBOOK = """\
- hosts: localhost
  gather_facts: false
  roles: [docker, one, two, platform]
"""
DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${{BASE_IMAGE}}
LABEL mlops.faults={name}
{steps}
ENTRYPOINT ["tini", "--"]
"""
READY = "touch /tmp/ready; exec sleep infinity"


class Pair(Platform):
    """A platform of two tiny services that build their images on the base of the real ones."""

    def service(self, name: str, *steps: str, command: str = READY) -> None:
        """Write the role of a service: the steps of its Dockerfile and what it runs."""
        role = self.checkout / "roles" / name
        for part in ("tasks", "files/image"):
            (role / part).mkdir(parents=True, exist_ok=True)
        (role / "tasks/main.yml").write_text(TASKS.format(name=name, command=command))
        dockerfile = DOCKERFILE.format(name=NAME, steps="\n".join(steps))
        (role / "files/image/Dockerfile").write_text(dockerfile)

    def images(self, service: str) -> list[str]:
        """List the ids of the images built for a service."""
        words = ("images", "--quiet", "--no-trunc", "--filter", f"label=mlops.faults={NAME}")
        return docker(*words, f"localhost/mlops/{service}").split()

    def containers(self) -> list[str]:
        """List the containers of its images and of every step of building them."""
        return docker("ps", "--all", "--quiet", "--filter", f"label=mlops.faults={NAME}").split()

    def begin(self) -> Running:
        """Start to bring it up."""
        return self.start(playbook="pair.yml")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two services; nothing of them is left behind."""
    checkout = copy_project(tmp_path / "project")
    (checkout / "pair.yml").write_text(PLAYBOOK)
    it = Pair(checkout, {"platform_name": NAME, "base_image_directory": str(tmp_path / "builds")})
    yield it
    it.close()
    for service in ("one", "two"):
        if found := it.images(service):
            docker("rmi", "--force", *found)
    assert it.containers() == [], "a build left a container behind"


def settle(pair: Pair) -> None:
    """Assert that a run ends well now, that all is whole, and that one more changes nothing."""
    outcome = pair.begin().end()
    assert outcome.code == 0, outcome.text
    pair.assert_whole()
    assert sorted(pair.lives()) == [f"{NAME}-one", f"{NAME}-two"]
    again = pair.begin().end()
    assert (again.code, again.changed) == (0, 0), again.text


def test_a_failing_build_shows_the_tools_own_words_and_costs_no_other_image(pair: Pair) -> None:
    pair.service("one", "RUN true")
    pair.service("two", "RUN echo 'The flux is not compensated' >&2; exit 3")
    outcome = pair.begin().end()
    assert outcome.code != 0
    log = pair.checkout.parent / "builds/two.log"
    outcome.assert_says(
        "Image two: docker build ended with code",
        "| The flux is not compensated",
        "returned a non-zero code: 3",
        f"The whole log: {log} on this host",
        "mend the cause and run again",
    )
    assert "The flux is not compensated" in log.read_text()
    assert "Image one" not in outcome.text
    assert pair.containers() == []
    kept = pair.images("one")
    assert len(kept) == 1
    assert pair.images("two") == []
    assert not pair.directory.exists()

    pair.service("two", "RUN echo 'The flux is compensated'")
    log_of_one = (pair.checkout.parent / "builds/one.log").stat().st_mtime_ns
    settle(pair)
    assert pair.images("one") == kept
    assert (pair.checkout.parent / "builds/one.log").stat().st_mtime_ns == log_of_one


ENDS: list[Callable[[Running], None]] = [Running.interrupt, Running.kill, Running.kill_family]


def stop_at(at: Gate, pair: Pair, end: Callable[[Running], None]) -> None:
    """Stop a run that has come to the gate, and open the gate for the next one."""
    running = pair.begin()
    wait_for(at.asked.is_set, "the run to come to the gate")
    end(running)
    at.opened.set()


def leave_half_a_file(pair: Pair) -> None:
    """Leave what a run leaves that is killed while it writes the project."""
    pair.directory.mkdir(exist_ok=True)
    (pair.directory / ".compose.yaml.0a1b2c3d").write_text("name: mlo")


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_run_stopped_while_it_builds_is_made_good_by_the_next(
    pair: Pair, end: Callable[[Running], None]
) -> None:
    with gate() as door:
        pair.service("one", "RUN true")
        pair.service("two", f"RUN {door.wait_command}")
        stop_at(door, pair, end)
        leave_half_a_file(pair)
        settle(pair)


# killed alone is the same here as while it builds: what it started goes on
@pytest.mark.parametrize("end", [ENDS[0], ENDS[2]], ids=lambda end: end.__name__)
def test_a_run_stopped_while_containers_start_is_made_good_by_the_next(
    pair: Pair, end: Callable[[Running], None]
) -> None:
    with gate() as door:
        pair.service("one", "RUN true")
        pair.service("two", "RUN true", command=f"{door.wait_command}; {READY}")
        stop_at(door, pair, end)
        settle(pair)
