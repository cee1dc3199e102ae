"""The training and test parts on disk: numbers as text, the same on every machine."""

from pathlib import Path
from typing import Literal

import pandas as pd

from wine_quality.config import Project
from wine_quality.runtime import write_atomic

Part = tuple[pd.DataFrame, pd.Series]


def write_csv(path: Path, data: pd.DataFrame | pd.Series) -> None:
    """Write numbers with 15 significant digits, which keeps any that a person wrote."""
    text = data.to_csv(index=False, float_format="%.15g", lineterminator="\n")
    write_atomic(path, text.encode())


def read_part(project: Project, part: Literal["train", "test"]) -> Part:
    """Features as float64 and scores as int64 of one part, as stage 3 wrote them."""
    features = pd.read_csv(project.path(f"x_{part}"), dtype="float64")
    scores = pd.read_csv(project.path(f"y_{part}"), dtype="int64")
    return features, scores[project.schema_.target]
