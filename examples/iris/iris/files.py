"""What the stages share: files written whole or not at all, and faults told in one sentence."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pandas as pd

from iris.settings import Settings, SettingsError, load

TARGET = "species"


class StageError(Exception):
    """A fault that a user can mend; its text is one sentence that says how."""


def write(path: str, content: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new, never a part."""
    target = Path(path)
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


def write_table(path: str, table: pd.DataFrame) -> None:
    """Write a table as CSV, the same bytes on every machine."""
    write(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_table(path: str) -> tuple[pd.DataFrame, pd.Series]:
    """Read the features in cm and the species of a table."""
    table = pd.read_csv(path)
    return table.drop(columns=TARGET), table[TARGET]


def run(work: Callable[[Settings], str]) -> int:
    """Do a stage's work and print what it says.

    Returns:
        The exit code: 0, 1 for a fault that a user can mend, 130 where it was interrupted.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt  # so that an open MLflow run is marked as failed

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        print(work(load()))
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
