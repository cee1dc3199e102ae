"""What both stages share: one kind of fault, and files written whole or not at all."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fraud.settings import Settings, SettingsError, load

TABLE = Path("data/creditcard.csv")
ORIGIN = Path("data/source.json")
FITTED = Path("models")
PLOTS = Path("reports/plots")
METRICS = Path("reports/metrics.json")


class StageError(Exception):
    """A fault that a user can mend; its text is one sentence that says how."""


def write(target: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new, never a part."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def say(text: str) -> None:
    """Print a line at once: training takes minutes, and its log is followed."""
    print(text, flush=True)


def run(work: Callable[[Settings], None]) -> int:
    """Do a stage's work, and turn a fault into one sentence.

    Returns:
        The exit code: 0, 1 for a fault that a user can mend, 130 where it was interrupted.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt  # so that an open MLflow run is marked as failed

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        work(load())
    except (SettingsError, StageError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: run again to go on from here.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0
