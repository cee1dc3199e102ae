"""Stage 2: three models on the same parts, each a run of one MLflow experiment."""

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from sklearn.model_selection import train_test_split

from fraud.measure import Figures, Ints, Scores, confusion_plot, curve, curve_plot, measure
from fraud.models import BALANCED, MODELS
from fraud.settings import Settings, Split, Train
from fraud.stage import FITTED, METRICS, ORIGIN, PLOTS, TABLE, StageError, run, say, write
from fraud.table import FEATURES, MIN_FRAUDS, TARGET, distinct, read
from fraud.told import Told

Part = tuple[pd.DataFrame, pd.Series]


def parts(table: pd.DataFrame, settings: Split) -> dict[str, Part]:
    """A training and a test part with the same share of frauds, no row in both.

    Raises:
        StageError: there are too few frauds, or nothing else.
    """
    rows = distinct(table)
    frauds = int(rows[TARGET].sum())
    if frauds < MIN_FRAUDS or len(rows) - frauds < MIN_FRAUDS:
        raise StageError(
            f"{frauds} of {len(rows)} distinct transactions are frauds, at least {MIN_FRAUDS} of"
            " each kind are needed: give the whole creditcard.csv"
        )
    train, test = train_test_split(
        rows, test_size=settings.test_size, random_state=settings.seed, stratify=rows[TARGET]
    )
    return {
        name: (part[list(FEATURES)].astype("float64"), part[TARGET])
        for name, part in (("train", train), ("test", test))
    }


@dataclass(frozen=True)
class Trained:
    """A fitted model, its metrics by part, and each file for MLflow with its directory there."""

    model: Any
    metrics: dict[str, dict[str, float]]
    files: dict[Path, str]


def pictures(name: str, actual: Ints, scores: Scores, figures: Figures, rate: float) -> list[Path]:
    """Write the confusion matrix and the precision-recall curve of the test part."""
    points = curve(actual, scores)
    title = f"{name}: average precision {figures.average_precision:.3f}"
    PLOTS.mkdir(parents=True, exist_ok=True)
    matrix, line, csv = (
        PLOTS / f"{name}_{rest}"
        for rest in ("confusion_matrix.png", "pr_curve.png", "pr_curve.csv")
    )
    confusion_plot(figures, rate).savefig(matrix)
    curve_plot(points, float(actual.mean()), title).savefig(line)
    points.to_csv(csv, index=False, lineterminator="\n")
    return [matrix, line, csv]


def train(name: str, settings: Train, table: dict[str, Part]) -> Trained:
    """Fit one model, judge it on both parts, and write its files."""
    began = time.monotonic()
    model = MODELS[name](settings).fit(*table["train"])
    if hasattr(model, "n_jobs"):
        model.set_params(n_jobs=1)  # sums of several threads differ in their last bits
    figures, scores = {}, {}
    for part, (rows, actual) in table.items():
        scores[part] = model.predict_proba(rows)[:, 1]
        figures[part] = measure(actual.to_numpy(), scores[part], settings.alert_rate)
    test = figures["test"]
    drawn = pictures(name, table["test"][1].to_numpy(), scores["test"], test, settings.alert_rate)
    FITTED.mkdir(exist_ok=True)
    joblib.dump(model, FITTED / f"{name}.joblib")
    say(
        f"{name}: average precision {test.average_precision:.3f}, ROC AUC {test.roc_auc:.3f},"
        f" recall {test.metrics['recall_at_alert_rate']:.3f} with alerts on"
        f" {settings.alert_rate:.2%} ({time.monotonic() - began:.0f} s)"
    )
    metrics = {part: each.metrics for part, each in figures.items()}
    return Trained(model, metrics, {**dict.fromkeys(drawn, "plots"), METRICS: "reports"})


def run_of(name: str, made: Trained, settings: Settings, report: Mapping[str, Any]) -> Told:
    """What MLflow is told of a model."""
    return Told(
        params={
            "model": name,
            "class_weight": BALANCED,
            "alert_rate": settings.train.alert_rate,
            **getattr(settings.train, name).model_dump(),
            **{f"split_{key}": value for key, value in settings.split.model_dump().items()},
            **{f"rows_{key}": value for key, value in report["rows"].items()},
            **{f"frauds_{key}": value for key, value in report["frauds"].items()},
        },
        metrics={
            **made.metrics["test"],
            **{f"train_{key}": value for key, value in made.metrics["train"].items()},
        },
        tags={
            "data_source": report["data_source"],
            "best": str(name == report["best"]).lower(),
        },
    )


def work(settings: Settings) -> None:
    """Train all, write the report, then log each run: a server that is down costs no figures."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise StageError(
            "MLFLOW_TRACKING_URI is not set: give the address of the tracking server, such as"
            " http://127.0.0.1:5000, and run again."
        )
    origin = json.loads(ORIGIN.read_text(encoding="utf-8"))
    source = f"data_source={origin['data_source']}"
    table = parts(read(TABLE, str(TABLE)), settings.split)
    rows = {name: len(part) for name, (part, _) in table.items()}
    say(f"{source}: {rows['train']} rows to train on, {rows['test']} to test on")
    for directory in (FITTED, PLOTS):
        shutil.rmtree(directory, ignore_errors=True)
    made = {name: train(name, settings.train, table) for name in MODELS}
    best = max(made, key=lambda name: made[name].metrics["test"]["average_precision"])
    frauds = {name: int(actual.sum()) for name, (_, actual) in table.items()}
    report = {
        "data_source": origin["data_source"],
        "rows": {"raw": origin["rows"], **rows},
        "frauds": {"raw": origin["frauds"], **frauds},
        "alert_rate": settings.train.alert_rate,
        "best": best,
        "models": {name: each.metrics for name, each in made.items()},
    }
    write(METRICS, (json.dumps(report, indent=2) + "\n").encode())
    # importing MLflow takes seconds: not on the way to a fault in what is above
    from fraud.tracking import track  # noqa: PLC0415

    example = table["test"][0].head(20)
    for name, each in made.items():
        told = run_of(name, each, settings, report)
        run_id = track(settings.train.experiment, each.model, example, each.files, told)
        say(f"{name}: MLflow run {run_id}")
    say(f"best by average precision: {best} ({source})")


if __name__ == "__main__":
    sys.exit(run(work))
