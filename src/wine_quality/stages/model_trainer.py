"""Stage 4: train the regressor on the training part."""

import io
import sys
from collections.abc import Sequence

import joblib
import pandas as pd
from sklearn.base import RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

from wine_quality.config import Model, Project
from wine_quality.parts import read_part
from wine_quality.runtime import log, run_stage, write_atomic


def build(settings: Model) -> RegressorMixin:
    """An untrained regressor with these hyper-parameters.

    One thread only: predictions summed by several threads differ in their last bits.
    """
    common = {
        "max_depth": settings.max_depth,
        "min_samples_leaf": settings.min_samples_leaf,
        "max_features": settings.max_features,
        "random_state": settings.seed,
    }
    match settings.kind:
        case "extra_trees":
            return ExtraTreesRegressor(settings.n_estimators, n_jobs=1, **common)
        case "random_forest":
            return RandomForestRegressor(settings.n_estimators, n_jobs=1, **common)
        case "decision_tree":
            return DecisionTreeRegressor(**common)


def train(x_train: pd.DataFrame, y_train: pd.Series, settings: Model) -> RegressorMixin:
    """A regressor fitted to float64 features and integer scores."""
    return build(settings).fit(x_train, y_train)


def serialise(model: RegressorMixin) -> bytes:
    """The model as a joblib file.

    Not compressed: the same data gives other bytes with another build of zlib.
    """
    buffer = io.BytesIO()
    joblib.dump(model, buffer, protocol=5)
    return buffer.getvalue()


def _work(project: Project) -> None:
    settings = project.params.model
    x_train, y_train = read_part(project, "train")
    content = serialise(train(x_train, y_train, settings))
    write_atomic(project.path("model"), content)
    log.info(
        "%s trained on %d rows, %.1f MB", settings.kind, len(x_train), len(content) / 1_000_000
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage in a project directory."""
    return run_stage("model_trainer", _work, argv)


if __name__ == "__main__":
    sys.exit(main())
