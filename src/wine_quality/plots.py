"""The three pictures that a run carries."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.base import RegressorMixin


def draw(
    model: RegressorMixin, features: list[str], actual: pd.Series, predicted: NDArray[np.float64]
) -> dict[str, Figure]:
    """Figures by name: predicted against actual scores, residuals, feature importance."""
    scatter = Figure(figsize=(5, 5), layout="constrained")
    axes = scatter.subplots()
    axes.scatter(actual, predicted, alpha=0.4)
    ends = [float(actual.min()), float(actual.max())]
    axes.plot(ends, ends, color="black", linewidth=1)
    axes.set(xlabel="actual score", ylabel="predicted score", title="Predicted against actual")

    residuals = Figure(figsize=(6, 4), layout="constrained")
    axes = residuals.subplots()
    axes.hist(predicted - actual.to_numpy(), bins=30)
    axes.set(xlabel="predicted minus actual score", ylabel="wines", title="Residuals")

    importance = Figure(figsize=(6, 4), layout="constrained")
    axes = importance.subplots()
    shares = pd.Series(model.feature_importances_, index=features).sort_values()
    axes.barh(list(shares.index), shares.to_numpy())
    axes.set(xlabel="share of the error removed", title="Feature importance")
    return {
        "predicted_vs_actual": scatter,
        "residuals": residuals,
        "feature_importance": importance,
    }
