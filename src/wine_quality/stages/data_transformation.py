"""Stage 3: drop exact duplicates, then split into a training and a test part."""

import hashlib
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from wine_quality.config import Project, Schema, Split
from wine_quality.dataset import NULLS, Table, read
from wine_quality.parts import digests, write_csv
from wine_quality.runtime import PipelineError, log, run_stage

MIN_ROWS = 10  # distinct ones; below that neither part says anything

Parts = tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]


def typed(table: Table, schema: Schema) -> pd.DataFrame:
    """The validated table as numbers, columns in the schema's order.

    Features are float64 (a permitted null is NaN), the target is int64.
    """
    columns = {}
    for name in schema.columns:
        place = table.header.index(name)
        cells = (row[place] for row in table.rows)
        # Python's own float(): exact to the last bit, with any version of pandas
        values = [float("nan" if cell.lower() in NULLS else cell) for cell in cells]
        columns[name] = pd.Series(values, dtype="float64")
    frame = pd.DataFrame(columns)
    return frame.astype({schema.target: "int64"})


def split(frame: pd.DataFrame, target: str, settings: Split) -> Parts:
    """Divide distinct rows so that both parts have like shares of every score.

    The rows of a score are put in the order of a digest of seed and content, and the first of
    them are the test part. So the order of the file does not matter, and of a file that grew only
    those rows change parts that lie where the order is cut.

    Args:
        frame: distinct rows, features and target.
        target: name of the target column.
        settings: share of the test part, and the seed.

    Returns:
        X_train, X_test, y_train, y_test.

    Raises:
        PipelineError: there are fewer than MIN_ROWS rows.
    """
    if len(frame) < MIN_ROWS:
        raise PipelineError(
            f"{len(frame)} distinct rows are left, at least {MIN_ROWS} are needed; give more data"
        )
    keys = [
        hashlib.sha256(f"{settings.seed}:{digest}".encode()).hexdigest()
        for digest in digests(frame.drop(columns=target))
    ]
    ordered = frame.iloc[np.lexsort((frame[target].to_numpy(), np.array(keys)))]
    scores = ordered[target]
    tests = max(2, round(len(frame) * settings.test_size))  # R2 is not defined for one row
    tested = ordered.groupby(target).cumcount() < scores.map(_quotas(scores, tests))
    features = ordered.drop(columns=target)
    return features[~tested], features[tested], scores[~tested], scores[tested]


def _quotas(scores: pd.Series, tests: int) -> pd.Series:
    """How many rows of each score are in the test part: its share, and `tests` in all.

    What rounding down leaves over goes to the scores that lost most by it.
    """
    quotas, lost = divmod(scores.value_counts().sort_index() * tests, len(scores))
    quotas[lost.nlargest(tests - quotas.sum()).index] += 1
    return quotas


def _work(project: Project) -> None:
    status = project.path("status")
    if status.read_text(encoding="utf-8").splitlines()[:1] != ["Validation status: True"]:
        raise PipelineError(
            f"{project.config.paths.status}: the data did not pass its validation; mend it and run"
            " `dvc repro`"
        )
    schema = project.schema_
    raw = project.path("raw")
    frame = typed(read(raw.read_bytes(), raw.name), schema)
    distinct = frame.drop_duplicates(ignore_index=True)
    log.info(
        "%d of %d rows are exact duplicates and were dropped, so that none is in both parts",
        len(frame) - len(distinct),
        len(frame),
    )
    x_train, x_test, y_train, y_test = split(distinct, schema.target, project.params.split)
    write_csv(project.path("x_train"), x_train)
    write_csv(project.path("x_test"), x_test)
    write_csv(project.path("y_train"), y_train)
    write_csv(project.path("y_test"), y_test)
    log.info("%d rows to train on, %d to test on", len(x_train), len(x_test))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage in a project directory."""
    return run_stage("data_transformation", _work, argv)


if __name__ == "__main__":
    sys.exit(main())
