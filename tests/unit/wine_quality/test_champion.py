"""The champion is judged on rows that neither model was trained on, in a store of MLflow's own."""

import csv
import io
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import skops.io
from mlflow import MlflowClient
from mlflow.entities import Run
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeRegressor

from wine_quality import champion, dataset, sample
from wine_quality.config import Model, Project, Split
from wine_quality.parts import Part, digests
from wine_quality.stages import data_transformation, model_evaluation, model_trainer

from .conftest import MLFLOW_WARNINGS

pytestmark = MLFLOW_WARNINGS

Table = list[list[str]]
GOOD = Model(
    kind="extra_trees",
    n_estimators=10,
    max_depth=None,
    min_samples_leaf=2,
    max_features=0.6,
    seed=1,
)
POOR = GOOD.model_copy(update={"kind": "decision_tree", "max_depth": 1, "min_samples_leaf": 100})


def clear(alcohol: float) -> int:
    return 5 if alcohol < 10.2 else 7


def noisy(alcohol: float, rng: random.Random = random.Random(1)) -> int:  # noqa: B008, S311
    return clear(alcohol) + rng.choice([-2, 0, 2])


def wines(rows: int, seed: int, score: Callable[[float], int] = clear) -> Table:
    """Generated wines, none of them real, scored by their alcohol."""
    table = list(csv.reader(io.StringIO(sample.generate(rows, seed).decode()), delimiter=";"))
    alcohol = sample.COLUMNS.index("alcohol")
    return [[*row[:-1], str(score(float(row[alcohol])))] for row in table[1:]]


class Wineyard:
    """A registered model, and pipeline runs that each make a version of it."""

    def __init__(self, project: Project, client: MlflowClient) -> None:
        self.client, self.name, self.schema = client, project.root.name, project.schema_
        self.experiment = client.create_experiment(self.name)
        client.create_registered_model(self.name)
        self.parts: dict[str, Part] = {}

    def run(self, table: Table, settings: Model, data_source: str = "file") -> Run:
        """Split a table, train on it, register the model as the pipeline does, and judge it."""
        lines = list(range(2, len(table) + 2))
        frame = data_transformation.typed(
            dataset.Table(sample.COLUMNS, table, lines, ";"), self.schema
        )
        x_train, x_test, y_train, y_test = data_transformation.split(
            frame, "quality", Split(test_size=0.2, seed=42)
        )
        self.parts = {"train": (x_train, y_train), "test": (x_test, y_test)}
        model = model_trainer.train(x_train, y_train, settings)
        run_id, version = self.register(
            {"model.skops": skops.io.dumps(model)},
            champion.trained_on(self.parts["train"]),
            data_source,
        )
        measured = model_evaluation.evaluate(model, self.parts)["test"]
        self.client.log_metric(run_id, "test_rmse", measured["rmse"])
        verdict = champion.crown(
            self.client,
            champion.Candidate(
                registered=self.name,
                version=version,
                run_id=run_id,
                model=model,
                parts=self.parts,
                synthetic=data_source == "synthetic",
            ),
        )
        run = self.client.get_run(run_id)
        assert run.data.tags["verdict"] == verdict
        return run

    def register(
        self, model: dict[str, bytes], trained_on: str | None, data_source: str
    ) -> tuple[str, str]:
        """Make a run and a version of these files."""
        run_id = self.client.create_run(
            self.experiment, tags={"data_source": data_source}
        ).info.run_id
        folder = Path(run_id)
        folder.mkdir()
        for name, content in model.items():
            (folder / name).write_bytes(content)
        self.client.log_artifacts(run_id, str(folder), "model")
        if trained_on is not None:
            self.client.log_text(run_id, trained_on, champion.TRAINED_ON)
        return run_id, self.version(run_id)

    def version(self, run_id: str) -> str:
        return str(
            self.client.create_model_version(self.name, f"runs:/{run_id}/model", run_id).version
        )

    def crown(self, version: str) -> None:
        self.client.set_registered_model_alias(self.name, "champion", version)

    @property
    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias(self.name, "champion").version)


@pytest.fixture
def yard(project: Project, client: MlflowClient) -> Wineyard:
    return Wineyard(project, client)


def figures(run: Run) -> tuple[int, float, float]:
    """Rows compared on, RMSE of the candidate, RMSE of the champion."""
    metrics = run.data.metrics
    return (
        int(metrics["compared_rows"]),
        metrics["candidate_rmse"],
        metrics["champion_rmse"],
    )


def uncompared(run: Run) -> bool:
    return not {"compared_rows", "candidate_rmse", "champion_rmse"} & set(run.data.metrics)


def test_on_the_same_data_the_better_model_is_champion_and_an_equal_one_is_not(
    yard: Wineyard,
) -> None:
    table = wines(300, 1, noisy)
    first = yard.run(table, POOR)
    assert first.data.tags["verdict"] == "the first champion"
    assert uncompared(first)

    rows, own, best = figures(yard.run(table, POOR))
    assert (rows, own) == (60, best), "the whole test part, and the same model"
    assert yard.champion == "1"

    third = yard.run(table, GOOD)
    rows, own, best = figures(third)
    assert (rows, own) == (60, third.data.metrics["test_rmse"])
    assert own < best == first.data.metrics["test_rmse"]
    assert yard.champion == "3"

    fourth = yard.run(table, POOR)
    assert figures(fourth) == (60, best, own)
    assert yard.champion == "3"
    assert fourth.data.tags["verdict"] == (
        f"candidate; champion version 3 stays: RMSE of the candidate {best:.4f}, of the champion"
        f" {own:.4f}, both on 60 rows of this run's test part that neither was trained on"
    )


def test_a_poor_model_is_not_champion_because_its_own_rows_are_easy(yard: Wineyard) -> None:
    first = yard.run(wines(400, 1, noisy), GOOD)
    second = yard.run(wines(300, 2), POOR)
    assert second.data.metrics["test_rmse"] < first.data.metrics["test_rmse"], "what misled"
    rows, own, best = figures(second)
    assert rows == 60
    assert best < own == second.data.metrics["test_rmse"]
    assert yard.champion == "1"


def test_a_model_of_another_wine_is_champion_though_its_own_rows_are_hard(yard: Wineyard) -> None:
    first = yard.run(wines(300, 1), GOOD)
    second = yard.run(wines(300, 2, lambda alcohol: 12 - noisy(alcohol)), GOOD)
    assert second.data.metrics["test_rmse"] > first.data.metrics["test_rmse"], "what misled"
    rows, own, best = figures(second)
    assert rows == 60
    assert own < best
    assert yard.champion == "2"
    assert second.data.tags["verdict"].startswith("the new champion, better than version 1: RMSE")


def test_of_a_file_that_grew_only_rows_that_both_do_not_know_are_compared_on(
    yard: Wineyard,
) -> None:
    table = wines(300, 1)
    yard.run(table, GOOD)
    before = yard.parts["train"][0]
    run = yard.run([*table, *wines(100, 3)], GOOD)
    moved = len(yard.parts["test"][0].merge(before))
    assert 0 < moved < 20
    assert figures(run)[0] == 80 - moved


def test_where_the_champion_knows_every_row_it_stays(yard: Wineyard) -> None:
    table = wines(300, 1)
    yard.run(table, POOR)
    part = pd.concat(yard.parts["train"], axis=1)
    known = [[str(cell) for cell in row] for row in part.to_numpy()]
    run = yard.run(known, GOOD)
    assert "0 of the 48 rows of this run's test part are new to both" in run.data.tags["verdict"]
    assert uncompared(run)
    assert yard.champion == "1"


def test_where_the_rows_are_too_few_the_champion_stays(yard: Wineyard) -> None:
    yard.run(wines(100, 1), POOR)
    run = yard.run(wines(100, 2), GOOD)
    assert "20 of the 20 rows" in run.data.tags["verdict"]
    assert "at least 30 are needed" in run.data.tags["verdict"]
    assert uncompared(run)
    assert yard.champion == "1"


def test_a_wine_scored_again_is_no_new_row(yard: Wineyard) -> None:
    yard.run(wines(300, 1), GOOD)
    known = set(digests(yard.parts["train"][0]))
    rows, _, _ = figures(yard.run(wines(300, 1, lambda alcohol: 4 + (alcohol > 9.6)), GOOD))
    assert rows == sum(digest not in known for digest in digests(yard.parts["test"][0])) < 60


def test_synthetic_never_replaces_real_and_real_always_replaces_synthetic(yard: Wineyard) -> None:
    table = wines(300, 1)
    yard.run(table, GOOD, "synthetic")
    real = yard.run(table, POOR, "file")
    assert real.data.tags["verdict"] == "the new champion, version 1 knew synthetic data only"
    assert yard.champion == "2"
    run = yard.run(table, GOOD, "synthetic")
    assert "stays, this version knows synthetic data only" in run.data.tags["verdict"]
    assert yard.champion == "2"


def fitted(columns: tuple[str, ...] = sample.COLUMNS[:-1]) -> DecisionTreeRegressor:
    x = pd.DataFrame([[0.0] * len(columns), [1.0] * len(columns)], columns=list(columns))
    return DecisionTreeRegressor().fit(x, [5, 6])


class Bomb:
    """What leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("open('unpickled', 'w').close()",)


UNTRUSTED = make_pipeline(FunctionTransformer(exec), fitted())
PICKLE = b"flavors: {sklearn: {pickled_model: model.skops, serialization_format: pickle}}"
TRUSTING = b"flavors: {sklearn: {pickled_model: model.skops, skops_trusted_types: [builtins.exec]}}"


@pytest.mark.parametrize(
    ("files", "trained_on", "said"),
    [
        ({"model.skops": skops.io.dumps(fitted())}, None, champion.START_AGAIN),
        ({"MLmodel": b"flavors: {}"}, "", "its model cannot be used here"),
        ({"model.skops": b"no zip"}, "", "its model cannot be used here (BadZipFile"),
        (
            {"model.skops": skops.io.dumps(fitted(("a", "b")))},
            "",
            "(ValueError: it takes other columns: a, b",
        ),
        ({"model.skops": skops.io.dumps([1])}, "", "its model cannot be used here (AttributeError"),
        ({"model.skops": pickle.dumps(Bomb()), "MLmodel": PICKLE}, "", "(BadZipFile"),
        ({"model.skops": skops.io.dumps(UNTRUSTED), "MLmodel": TRUSTING}, "", "(UntrustedTypes"),
    ],
    ids=["older", "missing", "damaged", "columns", "no model", "pickle", "untrusted"],
)
def test_a_champion_that_cannot_be_compared_with_stays_and_the_run_says_why(
    yard: Wineyard, files: dict[str, bytes], trained_on: str | None, said: str
) -> None:
    yard.crown(yard.register(files, trained_on, "file")[1])
    run = yard.run(wines(300, 1), GOOD)
    assert run.data.tags["verdict"].startswith("candidate; champion version 1 stays, ")
    assert said in run.data.tags["verdict"]
    assert uncompared(run)
    assert yard.champion == "1"
    assert not Path("unpickled").exists()


def test_a_champion_whose_run_was_purged_stays(yard: Wineyard) -> None:
    yard.crown(yard.version("0" * 32))
    run = yard.run(wines(300, 1), GOOD)
    assert f"was trained on: {champion.START_AGAIN}" in run.data.tags["verdict"]
    assert yard.champion == "1"
