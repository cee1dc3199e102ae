"""The training and test parts on disk: numbers as text, the same on every machine."""

import hashlib
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


def digests(features: pd.DataFrame) -> list[str]:
    """What each row is known by on any machine and in any file: a digest of its features.

    Columns go by name. The score is left out, for a wine that is scored again is the same wine.
    """
    rows = features[sorted(features.columns)].itertuples(index=False, name=None)
    texts = (",".join(f"{value + 0.0:.15g}" for value in row) for row in rows)  # 0, never -0
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def read_part(project: Project, part: Literal["train", "test"]) -> Part:
    """Features as float64 and scores as int64 of one part, as stage 3 wrote them."""
    features = pd.read_csv(project.path(f"x_{part}"), dtype="float64")
    scores = pd.read_csv(project.path(f"y_{part}"), dtype="int64")
    return features, scores[project.schema_.target]
