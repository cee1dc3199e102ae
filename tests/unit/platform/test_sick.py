"""What keeps a platform from coming up is told in the words of who is sick, and in Compose's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import RunModule, load

MODULE = "platform/library/platform_sick.py"
TAKEN = "Bind for 127.0.0.1:5000 failed: port is already allocated"
sick = load(MODULE)


def container(status: str, code: int = 0, health: str = "", *said: str) -> dict[str, Any]:
    """Return a container as `docker inspect` has it."""
    state: dict[str, Any] = {"Status": status, "ExitCode": code}
    if health:
        state["Health"] = {"Status": health, "Log": [{"Output": text} for text in said]}
    return {"Name": "/p-web", "State": state}


def failed(seen: dict[str, Any], reason: str) -> dict[str, Any]:
    """Return a container that the engine could not start."""
    seen["State"]["Error"] = reason
    return seen


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (container("running", 0, "healthy", "1\n"), ""),
        (container("running"), ""),
        (container("exited", 0), ""),
        (container("running", 0, "unhealthy", "old", "no room\n"), "p-web is unhealthy: no room"),
        (container("running", 0, "starting", ""), "p-web is starting: end of its log"),
        (container("created"), ""),
        (container("exited", 143), ""),
        (failed(container("created", 128), TAKEN), f"p-web is created, code 128: {TAKEN}"),
        (failed(container("exited", 143), TAKEN), f"p-web is exited, code 143: {TAKEN}"),
        (container("exited", 137), "p-web is exited, code 137: end of its log"),
        (container("restarting", 3), "p-web is restarting, code 3: end of its log"),
    ],
)
def test_a_container_says_what_its_check_or_its_log_said_last(
    seen: dict[str, Any], sentence: str
) -> None:
    assert sick.complaint(seen, "first\nend of its log\n\n") == sentence


@pytest.mark.parametrize(
    ("inspected", "says"),
    [
        (container("running"), "Compose: no such image"),
        (
            container("restarting", 3),
            "p-web is restarting, code 3: its log\nCompose: no such image",
        ),
    ],
    ids=["nobody else complains", "a container complains"],
)
def test_what_compose_said_is_always_told(
    inspected: dict[str, Any],
    says: str,
    run_module: RunModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "inspected").write_text(json.dumps([inspected]))
    client = tmp_path / "docker"
    client.write_text(
        f"#!/bin/sh\ncase $1 in ps) echo p-web;; logs) echo its log;; "
        f"inspect) cat {tmp_path}/inspected;; esac\n"
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answer = run_module(MODULE, name="p", compose="Compose: no such image")
    assert (answer["failed"], answer["msg"]) == (True, says)
