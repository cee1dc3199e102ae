"""Stage 1: the table of transactions by path, from OpenML, or generated where neither is there."""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from sklearn.datasets import fetch_openml

from fraud.sample import generate
from fraud.settings import Data, Settings
from fraud.stage import ORIGIN, TABLE, StageError, run, say, write
from fraud.table import TARGET, checked, read

OPENML_ID = 1597  # the same table, there called creditcard
SYNTHETIC = "synthetic"
OPENML = "openml"


class Received(NamedTuple):
    """A table, what it is to be called everywhere, and the sentence that says why."""

    table: pd.DataFrame
    data_source: str
    why: str


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_file(given: Data) -> Received:
    """Read the file that a user names.

    Raises:
        StageError: it is not there, is another one than its sha256 says, or is no such table.
    """
    path = Path(given.source)
    if not path.is_file():
        raise StageError(
            f"data.source is {given.source}: there is no such file; name a creditcard.csv,"
            f" {OPENML} or {SYNTHETIC}"
        )
    if given.sha256 and (seen := digest(path)) != given.sha256:
        raise StageError(
            f"{path.name} hashes to {seen}, data.sha256 says {given.sha256}: correct one of them"
        )
    return Received(read(path, path.name), "file", f"read from {path.name}")


def from_openml() -> pd.DataFrame:
    """Fetch the table from OpenML; raises OSError or ValueError where that fails."""
    with tempfile.TemporaryDirectory() as cache:
        found = fetch_openml(
            data_id=OPENML_ID, as_frame=True, parser="pandas", data_home=cache, n_retries=1
        )
    frame: pd.DataFrame = found.frame
    return frame


def synthetic(given: Data, why: str) -> Received:
    """Generate the table, and say so."""
    return Received(generate(given.rows, given.seed), SYNTHETIC, f"generated, {why}")


def receive(given: Data) -> Received:
    """Get the table from where the settings say.

    Raises:
        StageError: it is not to be had there.
    """
    if given.source == SYNTHETIC:
        return synthetic(given, "as data.source asks")
    if given.source != OPENML:
        return from_file(given)
    try:
        table = from_openml()
    except (OSError, ValueError) as error:
        why = f"OpenML did not give the data ({' '.join(str(error).split())[:200]})"
        if given.fallback == SYNTHETIC:
            return synthetic(given, f"for {why}")
        raise StageError(
            f"{why}: name a creditcard.csv as data.source, or set data.fallback to {SYNTHETIC}"
        ) from None
    return Received(checked(table, "the table of OpenML"), OPENML, "fetched from OpenML")


def work(settings: Settings) -> None:
    """Write the table and a note of its origin."""
    received = receive(settings.data)
    table = received.table
    say(f"data_source={received.data_source}: {received.why}")
    if received.data_source == "file" and settings.data.source.endswith(".csv"):
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(settings.data.source, TABLE)  # byte for byte
    else:
        write(TABLE, table.to_csv(index=False, lineterminator="\n").encode())
    origin = {
        "data_source": received.data_source,
        "rows": len(table),
        "frauds": int(table[TARGET].sum()),
    }
    write(ORIGIN, (json.dumps(origin, indent=2) + "\n").encode())
    say(f"{origin['rows']} transactions, {origin['frauds']} of them frauds")


if __name__ == "__main__":
    sys.exit(run(work))
