"""One run at a time holds the workspace."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from dvc_runner.git import RunnerError
from dvc_runner.settings import Settings

PATIENCE = 2.0


@contextmanager
def only_run(at: Settings, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the workspace's lock; raises RunnerError where a run holds it for `patience` seconds.

    Somebody who only asks whether a run is under way holds it for a moment too.
    """
    at.workspace.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with (at.workspace / "lock").open("a+") as lock:
        while not try_lock(lock):
            if time.monotonic() > deadline:
                raise RunnerError(f"A run is under way in {at.workspace}: wait for it.")
            time.sleep(PATIENCE / 20)
        # DVC inherits it: where this process is killed, its DVC still works in the workspace
        os.set_inheritable(lock.fileno(), True)
        yield


def try_lock(file: IO[str]) -> bool:
    """Lock an open file; False where another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(at: Settings) -> bool:
    """Tell whether a run holds the workspace."""
    try:
        with only_run(at, patience=0):
            return False
    except RunnerError:
        return True
