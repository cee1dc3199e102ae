"""What a run of MLflow is told: apart from what tells it, which takes seconds to import."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """Parameters, metrics and tags of one run."""

    params: dict[str, Any]
    metrics: dict[str, float]
    tags: dict[str, str]
