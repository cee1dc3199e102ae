"""The table of transactions: its columns, and what is refused of a file that is not one."""

from pathlib import Path

import numpy as np
import pandas as pd

from fraud.stage import StageError

COMPONENTS = tuple(f"V{number}" for number in range(1, 29))
# Time orders the file and says nothing of a transaction, so no model sees it; OpenML leaves it out
FEATURES = (*COMPONENTS, "Amount")
TARGET = "Class"
COLUMNS = ("Time", *FEATURES, TARGET)
MIN_FRAUDS = 10  # distinct ones; with fewer no figure of the test part means anything


def read(path: Path, name: str) -> pd.DataFrame:
    """Read a table and check it.

    Args:
        path: the file; `.gz` and `.zip` are read too.
        name: what a user calls it.

    Raises:
        StageError: it is no table of card transactions.
    """
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeError, EOFError) as error:
        raise StageError(
            f"{name} is no CSV file ({' '.join(str(error).split())}): give creditcard.csv"
        ) from None
    return checked(table, name)


def checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the table's known columns as numbers, in order.

    Raises:
        StageError: a column is missing, or holds something else.
    """
    if missing := [column for column in (*FEATURES, TARGET) if column not in table]:
        raise StageError(
            f"{name} lacks column {', '.join(missing)}: a table of card transactions has"
            f" {', '.join(COLUMNS[:3])} to {', '.join(COLUMNS[-3:])}"
        )
    found = table[[column for column in COLUMNS if column in table]]
    for column in found:
        values = pd.to_numeric(found[column], errors="coerce")
        if wrong := int((~np.isfinite(values.astype("float64"))).sum()):
            raise StageError(f"{name} has {wrong} rows where {column} is no number: mend the data")
        found = found.assign(**{str(column): values})
    if odd := sorted(set(found[TARGET].unique()) - {0, 1}):
        raise StageError(f"{name} has {TARGET} {odd[0]}: 0 is a good transaction and 1 a fraud")
    return found.astype({TARGET: "int64"})


def distinct(table: pd.DataFrame) -> pd.DataFrame:
    """Drop rows that a model cannot tell apart, or the test part would hold training rows."""
    return table.drop_duplicates(subset=list(FEATURES), ignore_index=True)
