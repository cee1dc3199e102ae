"""Who cannot become root is told so, and nobody else is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import load

platform = load("platform/filter_plugins/platform.py")

Reach = dict[str, Any]
HERE: Reach = {"connection": "local", "become": True, "method": "sudo", "password": False}


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ordinary user, whose programs are in the directory that is returned."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(platform.context, "CLIARGS", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def sudo(at: Path, code: int) -> None:
    """A sudo that ends so where it must not ask."""
    (at / "sudo").write_text(f"#!/bin/sh\nexit {code}\n")
    (at / "sudo").chmod(0o755)


def test_without_sudo_the_ways_to_be_root_are_named() -> None:
    (said,) = platform.without_root(HERE)
    assert "you are uid 1000 and sudo is not installed. Run as root" in said


def test_a_sudo_that_wants_a_password_is_told_so(user: Path) -> None:
    sudo(user, 1)
    (said,) = platform.without_root(HERE)
    assert "sudo wants a password" in said
    assert "-K" in said


def test_a_sudo_that_asks_nothing_is_enough(user: Path) -> None:
    sudo(user, 0)
    assert platform.without_root(HERE) == []


@pytest.mark.parametrize(
    "other",
    [{"connection": "ssh"}, {"become": False}, {"method": "doas"}, {"password": True}],
    ids=str,
)
def test_another_way_to_root_is_not_judged_from_here(other: Reach) -> None:
    assert platform.without_root(HERE | other) == []


@pytest.mark.parametrize(
    ("said", "refused"), [({"become_ask_pass": True}, False), ({"become": True}, True)]
)
def test_the_command_line_counts(
    said: dict[str, bool], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.context, "CLIARGS", said)
    assert bool(platform.without_root(HERE | {"become": "become_ask_pass" in said})) is refused


def test_root_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert platform.without_root(HERE) == []
