"""Evidence is read although this machine stumbles, and the platform is not blamed for it."""

from __future__ import annotations

import errno
from typing import cast

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host as Connection

from platform_verify import facts
from platform_verify.evidence import CannotRunError


class Way:
    """A way to a host on which a process can be started from the given attempt on."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.attempts = 0

    def run(self, command: str) -> str:
        self.attempts += 1
        if self.attempts < self.first:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable", "/bin/sh")
        return f"did {command}"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "PAUSE", 0.0)


def ask(way: Way) -> CommandResult:
    return facts.ask(cast("Connection", way), "look")


@pytest.mark.parametrize("first", [1, 2])
def test_a_process_that_cannot_be_started_once_is_started_again(first: int) -> None:
    way = Way(first)
    assert ask(way) == "did look"
    assert way.attempts == first


def test_a_process_that_cannot_be_started_twice_is_this_machines_fault() -> None:
    way = Way(3)
    with pytest.raises(CannotRunError, match=r"machine cannot start a process .*unavailable"):
        ask(way)
    assert way.attempts == 2


@pytest.mark.parametrize("name", sorted(facts.ONLY_ANSIBLE))
def test_a_password_by_any_name_that_ansible_takes_goes_by_ansible_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        "testinfra.get_host", lambda _, force_ansible, **__: asked.append(force_ansible)
    )
    facts.connect("near", {"ansible_connection": "ssh"}, "inventory")
    facts.connect("near", {"ansible_connection": "ssh", name: "given"}, "inventory")
    assert asked == [False, True]
