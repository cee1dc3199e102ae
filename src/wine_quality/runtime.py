"""What every stage shares: one kind of error, one log, files written whole or not at all."""

import argparse
import contextlib
import hashlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from wine_quality.config import Project

log = logging.getLogger("wine_quality")


class PipelineError(Exception):
    """A fault the user can mend; its text is one sentence that says how."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp makes files only their owner can read
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def file_digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def run_stage(
    name: str, work: Callable[["Project"], None], argv: Sequence[str] | None = None
) -> int:
    """Load the project's settings, do a stage's work, and turn a fault into one sentence.

    Returns the exit code: 0, 1 for a fault the user can mend, 130 when interrupted.
    """
    from wine_quality.config import load_project  # noqa: PLC0415  config imports this module

    parser = argparse.ArgumentParser(prog=f"python -m wine_quality.stages.{name}")
    parser.add_argument(
        "--project", type=Path, default=Path(), help="directory of config.yaml (default: here)"
    )
    root = parser.parse_args(argv).project
    with _terminated_as_interrupt(), contextlib.ExitStack() as stack:
        stack.enter_context(_logging_to(logging.StreamHandler(sys.stderr), f"{name}: %(message)s"))
        try:
            project = load_project(root)
            log_file = project.path("log")
            log_file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(
                _logging_to(
                    logging.FileHandler(log_file, encoding="utf-8"),
                    f"%(asctime)s %(levelname)s {name}: %(message)s",
                )
            )
            work(project)
        except PipelineError as error:
            fault, code = str(error), 1
        except OSError as error:
            fault, code = f"{error.filename or 'system'}: {error.strerror or error}", 1
        except KeyboardInterrupt:
            fault, code = "interrupted; run again to go on from here", 130
        else:
            return 0
        log.error("%s", fault)
    return code


@contextlib.contextmanager
def _logging_to(handler: logging.Handler, form: str) -> Iterator[None]:
    handler.setFormatter(logging.Formatter(form))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that an open MLflow run is marked as failed."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
