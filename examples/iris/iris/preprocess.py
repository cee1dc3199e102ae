"""Stage 2: a training part and a test part, with the same shares of every species."""

import sys

import pandas as pd
from sklearn.model_selection import train_test_split

from iris.files import TARGET, StageError, read_table, run, write_table
from iris.settings import Settings, Split


def split(table: pd.DataFrame, settings: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide distinct flowers; one that is listed twice would be in both parts.

    Raises:
        StageError: there are too few flowers of a species.
    """
    distinct = table.drop_duplicates(ignore_index=True)
    try:
        train, test = train_test_split(
            distinct,
            test_size=settings.test_size,
            random_state=settings.seed,
            stratify=distinct[TARGET],
        )
    except ValueError as error:
        raise StageError(
            f"{len(distinct)} distinct flowers cannot be split: {error}; give more of each species"
        ) from None
    return train, test


def work(settings: Settings) -> str:
    """Write both parts."""
    features, species = read_table(settings.paths.raw)
    train, test = split(features.assign(**{TARGET: species}), settings.split)
    write_table(settings.paths.train, train)
    write_table(settings.paths.test, test)
    return f"{len(train)} flowers to train on, {len(test)} to test on"


if __name__ == "__main__":
    sys.exit(run(work))
