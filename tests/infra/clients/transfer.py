"""Send files through MLflow and fetch them again, by a client that knows MLFLOW_TRACKING_URI alone.

usage: transfer.py BYTES [deleted]. Prints where the run's files are, and deletes the run where
asked to; fails where a file does not come back as it was.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import mlflow

# what people call their files, and what a URL, a header or a query could trip over
NAMES = (
    "plain.txt",
    "with blank.txt",
    "100%.txt",
    "a+b=c&d;e,f.txt",
    "Größe.txt",
    "漢字/ß µ/deep.bin",
    "empty",
)
BLOCK = 2**24


def make(directory: Path, size: int) -> None:
    """Write a file under each name, and one of `size` bytes of which no two blocks are equal."""
    for number, name in enumerate(NAMES):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else os.urandom(1024) + bytes([number]))
    block = os.urandom(BLOCK)
    with (directory / "large.bin").open("wb") as file:
        for start in range(0, size, BLOCK):
            file.write((start.to_bytes(8, "big") + block[8:])[: size - start])


def sums(directory: Path) -> dict[str, str]:
    """Hash every file below a directory."""
    found = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            found[str(path.relative_to(directory))] = hashlib.file_digest(
                file, "sha256"
            ).hexdigest()
    return found


def main(size: int) -> None:
    """Send, fetch and compare."""
    with tempfile.TemporaryDirectory() as place:
        sent, fetched = Path(place, "sent"), Path(place, "fetched")
        fetched.mkdir()
        make(sent, size)
        expected = sums(sent)
        mlflow.set_experiment("clients")
        with mlflow.start_run() as run:
            mlflow.log_artifacts(str(sent), "a directory/größer")
        (sent / "large.bin").unlink()
        back = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path="a directory/größer", dst_path=str(fetched)
        )
        found = sums(Path(back))
        wrong = sorted(expected.items() ^ found.items())
        if wrong:
            sys.exit(f"these came back otherwise: {wrong}")
        if sys.argv[2:] == ["deleted"]:
            mlflow.delete_run(run.info.run_id)
        print(run.info.artifact_uri)


if __name__ == "__main__":
    main(int(sys.argv[1]))
