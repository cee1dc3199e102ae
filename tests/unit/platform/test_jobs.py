"""A job runs to a good end once, and is never cut off in the middle."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import load

jobs = load("platform/library/platform_jobs.py")
JOB = {"service": "migrate", "container": "p-migrate", "digest": "new", "waiting": ["web"]}


class Engine:
    """An engine that knows one container: its state at each look, and what was asked of it."""

    def __init__(self, *states: tuple[str, int | None, str]) -> None:
        self.states = list(states)
        self.asked: list[str] = []

    def state_of(self, _: str) -> dict[str, Any]:
        status, code, digest = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"status": status, "code": code, "digest": digest}

    def docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(next(word for word in words if word in ("stop", "rm", "up", "logs")))
        return subprocess.CompletedProcess(words, 0, "its last words", "")


def run(monkeypatch: pytest.MonkeyPatch, engine: Engine, timeout: int = 60) -> None:
    monkeypatch.setattr(jobs, "docker", engine.docker)
    monkeypatch.setattr(jobs, "try_docker", engine.docker)
    monkeypatch.setattr(jobs, "state_of", engine.state_of)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0)
    jobs.run(Path("/opt/p"), JOB, timeout)


def test_what_waits_is_stopped_before_a_job_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(("absent", None, ""), ("running", None, "new"), ("exited", 0, "new"))
    run(monkeypatch, engine)
    assert engine.asked == ["stop", "rm", "up"]


def test_a_job_under_way_is_waited_for_and_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(("running", None, "new"), ("running", None, "new"), ("exited", 0, "new"))
    run(monkeypatch, engine)
    assert engine.asked == []


def test_a_job_of_another_declaration_ends_before_the_new_one_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = ("running", None, "old"), ("running", None, "new")
    engine = Engine(old, old, ("exited", 0, "old"), new, ("exited", 0, "new"))
    run(monkeypatch, engine)
    assert engine.asked == ["stop", "rm", "up"]


def test_a_job_that_does_not_end_in_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(("running", None, "old"))
    with pytest.raises(jobs.JobError, match=r"has not ended within -1 s .* It goes on"):
        run(monkeypatch, engine, timeout=-1)
    assert engine.asked == []


def test_a_job_that_fails_is_told_with_its_code_and_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(("absent", None, ""), ("exited", 3, "new"))
    with pytest.raises(jobs.JobError, match=r"ended with code 3(.|\n)*its last words"):
        run(monkeypatch, engine)
