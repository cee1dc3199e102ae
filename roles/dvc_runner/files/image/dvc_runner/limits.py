"""What a run may take: time, memory, and the room that is left."""

from __future__ import annotations

import errno
import re
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc_runner.git import TimeLimitError
from dvc_runner.settings import Settings

PATIENCE = 5.0
RESERVE = 1 << 16
# of a container, in the second and the first version of control groups
CGROUP = Path("/sys/fs/cgroup")
KILLS = ("memory.events", "memory/memory.oom_control")
MEMORY = ("memory.max", "memory/memory.limit_in_bytes")
SHARED = Path("/dev/shm")  # noqa: S108 - not for a file of ours
# what a stage says, or DVC of it, where memory that is shared has run out
SHARED_FULL = re.compile(
    r"[Bb]us error|exited with (-7|135)\b|insufficient shared memory|No space left.*/dev/shm"
)
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """After so long stop what this process started, and raise TimeLimitError; 0 is no limit."""

    def stop(*_: object) -> None:
        stop_children()
        raise TimeLimitError(
            f"The run took longer than dvc_runner_timeout, {seconds} seconds, and was stopped. "
            "Finished stages are kept: run again with a higher one, or 0 for none."
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stop_children() -> None:
    """End every process below this one, by force where asking is not enough."""
    import psutil  # noqa: PLC0415 - comes with DVC

    def signal_all(processes: Iterable[Any], how: str) -> None:
        for each in processes:
            with suppress(psutil.Error):  # it ended by itself
                getattr(each, how)()

    children = psutil.Process().children(recursive=True)
    signal_all(children, "terminate")
    _, left = psutil.wait_procs(children, timeout=PATIENCE)
    signal_all({*left, *psutil.Process().children(recursive=True)}, "kill")


def reserve(at: Settings) -> None:
    """Keep the room that it takes to say how a run ended."""
    (at.workspace / "reserve").write_bytes(bytes(RESERVE))


def give_back(at: Settings) -> None:
    """Give up the room that was kept."""
    (at.workspace / "reserve").unlink(missing_ok=True)


def full_disk(at: Settings, error: BaseException) -> str:
    """Say that the disk is full where that is behind an error, or return an empty string."""
    behind: BaseException | None = error
    while behind and not (isinstance(behind, OSError) and behind.errno in FULL):
        behind = behind.__cause__ or behind.__context__
    if not behind and shutil.disk_usage(at.workspace).free > RESERVE:
        return ""
    return (
        f"The disk under {at.workspace} is full: free some of it (`make prune` removes images that "
        "nothing uses), then run again. Finished stages are kept."
    )


def memory_kills() -> int:
    """Count the processes of this container that were killed for want of memory."""
    text = said_by_kernel(KILLS)
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def said_by_kernel(names: Iterable[str]) -> str:
    """Return what the first of the control group's files says that is there."""
    for name in names:
        with suppress(OSError):
            return (CGROUP / name).read_text()
    return ""


def limit_met(kills: int, log: Path, told: int = 0) -> str:
    """Say which limit stopped a stage, or return an empty string.

    Args:
        kills: how many processes had been killed for want of memory before it.
        log: where it is said what happens.
        told: how many bytes of that were said before it.
    """
    if memory_kills() > kills:
        return (
            f"a process was killed at the memory limit of the container, {memory_limit()}: give it "
            "more (dvc_runner_memory), or have the stage take less."
        )
    if SHARED_FULL.search(log.read_bytes()[told:].decode(errors="replace")):
        return (
            f"shared memory ran out, {SHARED} has {size_of(shutil.disk_usage(SHARED).total)}: give "
            "the project more memory (dvc_runner_memory), which it is a part of, or have its data "
            "loader start fewer workers."
        )
    return ""


def memory_limit() -> str:
    """Return the memory limit of this container for a person to read."""
    text = said_by_kernel(MEMORY).strip()
    return size_of(int(text)) if text.isdigit() else "that of the host"


def size_of(number: int) -> str:
    """Spell a number of bytes."""
    return f"{number / (1 << 20):.0f} MiB" if number < 1 << 30 else f"{number / (1 << 30):.1f} GiB"
