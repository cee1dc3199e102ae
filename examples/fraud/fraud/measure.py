"""Figures that mean something where one row in 579 is a fraud; accuracy is none of them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

Scores = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """What a model is judged by on one part, at a fixed number of alerts."""

    average_precision: float
    roc_auc: float
    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def alerts(self) -> int:
        """Transactions that people would look at."""
        return self.true_positives + self.false_positives

    @property
    def metrics(self) -> dict[str, float]:
        """As MLflow takes them."""
        found = self.true_positives
        return {
            "average_precision": self.average_precision,
            "roc_auc": self.roc_auc,
            "recall_at_alert_rate": round(found / (found + self.false_negatives), 6),
            "precision_at_alert_rate": round(found / self.alerts, 6) if self.alerts else 0.0,
            "alerts": self.alerts,
            "true_positives": found,
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
            "true_negatives": self.true_negatives,
        }


def threshold(scores: Scores, alert_rate: float) -> float:
    """The lowest score that raises an alert, so that at most that share of rows does.

    Rows of one score raise one together or not at all; inf where the highest are too many.
    """
    most = int(len(scores) * alert_rate)
    descending = np.sort(scores)[::-1]
    above = float(descending[most])  # the first that is too many
    within = descending[:most][descending[:most] > above]
    return float(within[-1]) if len(within) else float("inf")


def measure(actual: Ints, scores: Scores, alert_rate: float) -> Figures:
    """Judge scores, the higher the more like a fraud."""
    limit = threshold(scores, alert_rate)
    alert, fraud = scores >= limit, actual == 1
    return Figures(
        average_precision=round(float(average_precision_score(actual, scores)), 6),
        roc_auc=round(float(roc_auc_score(actual, scores)), 6),
        threshold=limit,
        true_positives=int((alert & fraud).sum()),
        false_positives=int((alert & ~fraud).sum()),
        false_negatives=int((~alert & fraud).sum()),
        true_negatives=int((~alert & ~fraud).sum()),
    )


def confusion_plot(figures: Figures, alert_rate: float) -> Figure:
    """The four numbers at the alert rate."""
    cells = np.array(
        [
            [figures.true_negatives, figures.false_positives],
            [figures.false_negatives, figures.true_positives],
        ]
    )
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.log10(cells + 1.0), cmap="Blues")
    for row, column in np.ndindex(2, 2):
        axes.text(column, row, f"{cells[row, column]:,}", ha="center", va="center", color="#c33")
    axes.set_xticks([0, 1], ["no alert", "alert"])
    axes.set_yticks([0, 1], ["good", "fraud"])
    axes.set(title=f"Alerts on at most {alert_rate:.2%} of transactions")
    return figure


def curve(actual: Ints, scores: Scores) -> pd.DataFrame:
    """The points of the precision-recall curve where recall changes, to 6 decimals."""
    precision, recall, limits = precision_recall_curve(actual, scores)
    points = {"recall": recall[:-1], "precision": precision[:-1], "threshold": limits}
    # of the rows of one recall the last has the best precision
    return pd.DataFrame(points).drop_duplicates("recall", keep="last").round(6)


def curve_plot(points: pd.DataFrame, share: float, title: str) -> Figure:
    """The curve, and the precision of guessing."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.step(points["recall"], points["precision"], where="post")
    axes.axhline(share, color="grey", linewidth=1, linestyle="--")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=title)
    return figure
