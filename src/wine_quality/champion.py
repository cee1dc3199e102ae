"""Which version is `champion`: the better one on rows that neither model was trained on.

The test errors of two runs cannot be compared: each was measured on a part of its own data.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import skops.io
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sklearn.base import RegressorMixin
from sklearn.metrics import root_mean_squared_error

from wine_quality.config import without_credentials
from wine_quality.parts import Part, digests

TRAINED_ON = "trained_on.csv"  # artifact of a run: a digest per row of its training part
START_AGAIN = "take its alias champion away to have the next run as the first"
MIN_ROWS = 30  # to compare on; luck decides on fewer
# a tree's nodes are no type that skops trusts by itself
TRUSTED_TYPES = ["sklearn.tree._tree.Tree"]


class IncomparableError(Exception):
    """Why a champion cannot be compared with, as the end of a sentence."""


@dataclass(frozen=True)
class Candidate:
    """A version that was just registered, its run, and what it was made of."""

    registered: str
    version: str
    run_id: str
    model: RegressorMixin
    parts: dict[str, Part]
    synthetic: bool


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate wins, why, and the figures that say so where there are any."""

    wins: bool
    sentence: str
    figures: dict[str, float]


def crown(client: MlflowClient, candidate: Candidate) -> str:
    """Move `champion` to the candidate where it earned it; say what was done and why.

    The sentence and its figures are on the candidate's run before the alias moves.
    """
    verdict = _judge(client, _champion(client, candidate.registered), candidate)
    now = time.time_ns() // 1_000_000
    client.log_batch(
        candidate.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in verdict.figures.items()],
        tags=[RunTag("verdict", verdict.sentence)],
    )
    if verdict.wins:
        client.set_registered_model_alias(candidate.registered, "champion", candidate.version)
    return verdict.sentence


def trained_on(part: Part) -> str:
    """Content of the artifact that says which rows a model was trained on."""
    return "\n".join(["digest", *sorted(digests(part[0])), ""])


def reason(error: Exception) -> str:
    """An error's text in one line, without the credentials of the tracking server."""
    address = mlflow.get_tracking_uri()
    return " ".join(str(error).split()).replace(address, without_credentials(address))


def _judge(client: MlflowClient, champion: ModelVersion | None, candidate: Candidate) -> Verdict:
    if champion is None:
        return Verdict(wins=True, sentence="the first champion", figures={})
    version = f"version {champion.version}"
    stays = f"candidate; champion {version} stays"
    run = _run(client, champion)
    synthetic = run is not None and run.data.tags.get("data_source") == "synthetic"
    if synthetic and not candidate.synthetic:
        sentence = f"the new champion, {version} knew synthetic data only"
        return Verdict(wins=True, sentence=sentence, figures={})
    if candidate.synthetic and not synthetic:
        sentence = f"{stays}, this version knows synthetic data only"
        return Verdict(wins=False, sentence=sentence, figures={})
    try:
        figures = _compare(client, champion, run, candidate)
    except IncomparableError as why:
        return Verdict(wins=False, sentence=f"{stays}, {why}", figures={})
    own, best = figures["candidate_rmse"], figures["champion_rmse"]
    wins = own < best
    return Verdict(
        wins=wins,
        sentence=f"{f'the new champion, better than {version}' if wins else stays}: RMSE of the"
        f" candidate {own:.4f}, of the champion {best:.4f}, both on {figures['compared_rows']:.0f}"
        " rows of this run's test part that neither was trained on",
        figures=figures,
    )


def _compare(
    client: MlflowClient, champion: ModelVersion, run: Run | None, candidate: Candidate
) -> dict[str, float]:
    """RMSE of both models on the candidate's test rows that neither was trained on.

    Raises:
        IncomparableError: it is not known which rows these are, they are too few, or the champion
            cannot predict them.
    """
    seen = _rows_of(client, run) | set(digests(candidate.parts["train"][0]))
    x, y = candidate.parts["test"]
    new = np.array([digest not in seen for digest in digests(x)])
    rows = int(new.sum())
    if rows < MIN_ROWS:
        raise IncomparableError(
            f"{rows} of the {len(x)} rows of this run's test part are new to both models, at least"
            f" {MIN_ROWS} are needed to compare"
        )
    x, y = x[new], y[new]
    try:
        model = _load(client, champion)
        best = root_mean_squared_error(y, model.predict(x[_columns(model, x)]))
    except Exception as error:  # a file of any origin fails in any way, and none may stop a run
        raise IncomparableError(
            f"its model cannot be used here ({type(error).__name__}: {reason(error)[:200]})"
        ) from None
    own = root_mean_squared_error(y, candidate.model.predict(x))
    return {
        "compared_rows": rows,
        "candidate_rmse": round(float(own), 6),
        "champion_rmse": round(float(best), 6),
    }


def _columns(model: RegressorMixin, x: pd.DataFrame) -> list[str]:
    """Names of these columns, in the model's order; a row's digest is of exactly these."""
    columns = [str(name) for name in model.feature_names_in_]
    if set(columns) != set(x.columns):
        raise ValueError(f"it takes other columns: {', '.join(columns)}")
    return columns


def _rows_of(client: MlflowClient, run: Run | None) -> set[str]:
    """Digests of the rows that a run's model was trained on."""
    if run is None:
        raise IncomparableError(
            f"its run is gone, and with it which rows it was trained on: {START_AGAIN}"
        )
    run_id = run.info.run_id
    if TRAINED_ON not in {found.path for found in client.list_artifacts(run_id)}:
        raise IncomparableError(
            f"its run has no {TRAINED_ON}, so which rows it knows is not known: {START_AGAIN}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run_id, TRAINED_ON, folder))
        return set(path.read_text(encoding="ascii", errors="replace").split())


def _load(client: MlflowClient, made: ModelVersion) -> RegressorMixin:
    """A version's model, read so that no code in it can run.

    MLflow's own loader would unpickle a version that says it is a pickle, and trust the types that
    the version itself names.
    """
    address = client.get_model_version_download_uri(made.name, made.version)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(download_artifacts(artifact_uri=address, dst_path=folder))
        return skops.io.load(path / "model.skops", trusted=TRUSTED_TYPES)


def _run(client: MlflowClient, made: ModelVersion) -> Run | None:
    """The run behind a version, where it has one that was not purged."""
    try:
        return client.get_run(made.run_id) if made.run_id else None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _champion(client: MlflowClient, registered: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(registered, "champion")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
