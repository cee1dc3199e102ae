"""Stage 1: the iris table that ships with scikit-learn, as a file."""

import sys

import pandas as pd
from sklearn.datasets import load_iris

from iris.files import TARGET, run, write_table
from iris.settings import Settings


def table() -> pd.DataFrame:
    """All 150 flowers: four lengths in cm, and the species by name."""
    bunch = load_iris(as_frame=True)
    names = {name: name.removesuffix(" (cm)").replace(" ", "_") for name in bunch.data}
    frame: pd.DataFrame = bunch.data.rename(columns=names)
    return frame.assign(**{TARGET: [str(bunch.target_names[code]) for code in bunch.target]})


def work(settings: Settings) -> str:
    """Write the raw table."""
    flowers = table()
    write_table(settings.paths.raw, flowers)
    return f"{len(flowers)} flowers of {flowers[TARGET].nunique()} species: {settings.paths.raw}"


if __name__ == "__main__":
    sys.exit(run(work))
