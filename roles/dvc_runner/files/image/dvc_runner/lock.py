"""One run at a time holds the workspace."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


def is_held(path: Path) -> bool:
    """Tell whether a process holds the lock of a file; who only asks need not be able to write."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def is_running(at: Settings) -> bool:
    """Tell whether a run holds the workspace."""
    return is_held(at.workspace / "lock")
