"""What keeps a platform from coming up is told in the words of the container that is sick."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.conftest import load

sick = load("platform/library/platform_sick.py")


def container(status: str, code: int = 0, health: str = "", *said: str) -> dict[str, Any]:
    """Return a container as `docker inspect` has it."""
    state: dict[str, Any] = {"Status": status, "ExitCode": code}
    if health:
        state["Health"] = {"Status": health, "Log": [{"Output": text} for text in said]}
    return {"Name": "/p-web", "State": state}


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (container("running", 0, "healthy", "1\n"), ""),
        (container("running"), ""),
        (container("exited", 0), ""),
        (container("running", 0, "unhealthy", "old", "no room\n"), "p-web is unhealthy: no room"),
        (container("running", 0, "starting", ""), "p-web is starting: end of its log"),
        (container("restarting", 3), "p-web is restarting, code 3: end of its log"),
    ],
)
def test_a_container_says_what_its_check_or_its_log_said_last(
    seen: dict[str, Any], sentence: str
) -> None:
    assert sick.complaint(seen, "first\nend of its log\n\n") == sentence
