import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedKFold, cross_validate

from wine_quality import parts, plots, sample
from wine_quality.config import Model, Project, Split
from wine_quality.dataset import read
from wine_quality.runtime import PipelineError
from wine_quality.stages import data_transformation, model_evaluation, model_trainer

SPLIT = Split(test_size=0.2, seed=42)


def table(project: Project, rows: int = 300) -> pd.DataFrame:
    return data_transformation.typed(read(sample.generate(rows, 1), "x.csv"), project.schema_)


def prepare(project: Project, content: bytes, status: str = "True") -> None:
    for name, text in (
        ("raw", content),
        ("status", f"Validation status: {status}\n".encode()),
    ):
        project.path(name).parent.mkdir(parents=True, exist_ok=True)
        project.path(name).write_bytes(text)


def test_duplicates_are_dropped_before_the_split_and_counted(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    content = sample.generate(100, 1)
    prepare(project, content + content.split(b"\n", 1)[1])
    assert data_transformation.main(["--project", str(project.root)]) == 0
    assert "100 of 200 rows are exact duplicates" in capsys.readouterr().err
    train, test = (pd.read_csv(project.path(name)) for name in ("x_train", "x_test"))
    assert (len(train), len(test)) == (80, 20)
    assert train.merge(test).empty


def test_the_real_table_loses_its_240_duplicates(
    project: Project, real_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(project, real_file.read_bytes())
    assert data_transformation.main(["--project", str(project.root)]) == 0
    assert "240 of 1599 rows" in capsys.readouterr().err


def test_a_table_that_failed_its_validation_is_not_split(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(project, sample.generate(100, 1), "False")
    assert data_transformation.main(["--project", str(project.root)]) == 1
    assert "did not pass" in capsys.readouterr().err
    assert not project.path("x_train").exists()


def test_numbers_are_the_same_after_a_trip_through_a_file(tmp_path: Path) -> None:
    data = pd.DataFrame({"a": [9.53333333333333, 0.1, 1e-5, 123456.789, float("nan")]})
    parts.write_csv(tmp_path / "a.csv", data)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), data, check_exact=True)
    assert (tmp_path / "a.csv").read_bytes().startswith(b"a\n9.53333333333333\n0.1\n1e-05\n")


def test_both_parts_have_like_shares_of_every_score(project: Project) -> None:
    _, _, train, test = data_transformation.split(table(project), "quality", SPLIT)
    wanted = pd.concat([train, test]).value_counts() * SPLIT.test_size
    assert (wanted - test.value_counts().reindex(wanted.index, fill_value=0)).abs().max() < 1


def test_of_a_table_that_grew_hardly_any_row_changes_parts(project: Project) -> None:
    grown = table(project, 1100)
    rng = np.random.default_rng(1)
    old = grown.loc[np.sort(rng.permutation(1100)[100:])]
    before = data_transformation.split(old, "quality", SPLIT)[1]
    after = data_transformation.split(grown, "quality", SPLIT)[1]
    moved = set(before.index) ^ (set(after.index) & set(old.index))
    assert len(moved) < 20


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(project: Project) -> None:
    data = table(project)
    first, turned, other = (
        data_transformation.split(frame, "quality", settings)
        for frame, settings in (
            (data, SPLIT),
            (data.iloc[::-1], SPLIT),
            (data, SPLIT.model_copy(update={"seed": 1})),
        )
    )
    assert first[0].equals(turned[0])
    assert first[1].equals(turned[1])
    assert [list(part) for part in first[2:]] == [list(part) for part in turned[2:]]
    assert len(set(first[1].index) ^ set(other[1].index)) > 20


def scored(scores: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(float(len(scores))), "quality": scores})


@pytest.mark.parametrize(
    "scores",
    [
        [5] * 10,
        [5] * 19 + [8],
        [3, 4, 5, 6, 7, 8, 3, 4, 5, 6],
        [3] + [5] * 30 + [6] * 30 + [8],
        list(range(3, 9)) * 2,
        list(range(11)),
        [5] * 40 + [9],
    ],
)
def test_rare_scores_and_few_rows_are_split_without_loss(scores: list[int]) -> None:
    x_train, x_test, y_train, y_test = data_transformation.split(scored(scores), "quality", SPLIT)
    assert sorted([*x_train["a"], *x_test["a"]]) == list(range(len(scores)))
    assert len(x_test) == len(y_test) >= 2
    assert sorted([*y_train, *y_test]) == sorted(scores)


def test_too_few_rows_are_refused_with_their_number() -> None:
    with pytest.raises(PipelineError, match="9 distinct rows are left, at least 10"):
        data_transformation.split(scored([5] * 9), "quality", SPLIT)


def test_a_table_with_a_score_of_one_wine_goes_through_to_the_plots(project: Project) -> None:
    data = table(project)  # generated, no real wine
    data.loc[data.index[:2], "quality"] = [9, 10]
    x_train, x_test, y_train, y_test = data_transformation.split(data, "quality", SPLIT)
    model = model_trainer.train(x_train, y_train, settings("extra_trees"))
    measured = model_evaluation.evaluate(model, {"test": (x_test, y_test)})["test"]
    assert np.isfinite(list(measured.values())).all()
    figures = plots.draw(model, project.schema_.features, y_test, model.predict(x_test))
    for figure in figures.values():
        figure.canvas.draw()


def test_a_digest_is_of_the_features_whatever_their_order_and_their_way_through_a_file(
    project: Project, tmp_path: Path
) -> None:
    features = table(project, 20).drop(columns="quality")
    features.loc[features.index[0], "pH"] = -0.0
    known = parts.digests(features)
    parts.write_csv(tmp_path / "x.csv", features[features.columns[::-1]])
    again = pd.read_csv(tmp_path / "x.csv", dtype="float64")
    assert parts.digests(again) == known
    assert len(set(known)) == 20
    again["pH"] = again["pH"].mask(again.index == 1, 3.14159)
    pairs = zip(known, parts.digests(again), strict=True)
    assert [row for row, (mine, theirs) in enumerate(pairs) if mine != theirs] == [1]


KINDS = ["extra_trees", "random_forest", "decision_tree"]


def settings(kind: str) -> Model:
    return Model.model_validate(
        {
            "kind": kind,
            "n_estimators": 5,
            "max_depth": None,
            "min_samples_leaf": 2,
            "max_features": "sqrt",
            "seed": 1,
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_the_same_bytes_when_trained_again(project: Project, kind: str) -> None:
    data = table(project)
    x, y = data[project.schema_.features], data["quality"]
    first, second = (
        model_trainer.serialise(model_trainer.train(x, y, settings(kind))) for _ in range(2)
    )
    assert first == second


def test_another_seed_gives_another_model(project: Project) -> None:
    data = table(project)
    x, y = data[project.schema_.features], data["quality"]
    one = settings("extra_trees")
    two = one.model_copy(update={"seed": 2})
    first, second = (model_trainer.serialise(model_trainer.train(x, y, s)) for s in (one, two))
    assert first != second


@pytest.mark.processes
def test_a_model_loads_where_the_project_is_not(project: Project, tmp_path: Path) -> None:
    data = table(project)
    x, y = data[project.schema_.features], data["quality"]
    model = model_trainer.train(x, y, settings("extra_trees"))
    (tmp_path / "model.joblib").write_bytes(model_trainer.serialise(model))
    script = (
        "import sys, joblib; m = joblib.load('model.joblib');"
        "assert not [n for n in sys.modules if n.startswith('wine_quality')];"
        "print(type(m).__name__, *m.feature_names_in_, sep=';')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().split(";") == ["ExtraTreesRegressor", *project.schema_.features]


def test_perfect_and_constant_predictions_are_measured_as_such() -> None:
    actual = pd.Series([3, 5, 5, 8])
    assert model_evaluation.measure(actual, np.array([3.0, 5.0, 5.0, 8.0])) == {
        "rmse": 0.0,
        "mae": 0.0,
        "r2": 1.0,
        "accuracy": 1.0,
        "macro_f1": 1.0,
    }
    constant = model_evaluation.measure(actual, np.full(4, 5.25))
    assert constant["r2"] == 0.0
    assert constant["accuracy"] == 0.5
    assert constant["macro_f1"] == pytest.approx(2 / 9, abs=1e-6)
    assert constant["rmse"] == pytest.approx(np.std(actual), abs=1e-6)
    assert constant["mae"] == 1.375


def test_the_shipped_parameters_are_as_good_as_stated_in_cross_validation(
    project: Project, real_file: Path
) -> None:
    raw = data_transformation.typed(read(real_file.read_bytes(), "x"), project.schema_)
    data = raw.drop_duplicates(ignore_index=True)
    scores = cross_validate(
        model_trainer.build(project.params.model),
        data[project.schema_.features],
        data["quality"],
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        scoring=("r2", "neg_root_mean_squared_error"),
    )
    assert scores["test_r2"].mean() >= 0.39
    assert -scores["test_neg_root_mean_squared_error"].mean() <= 0.645


def test_evaluation_without_a_tracking_server_names_the_variable_and_keeps_the_metrics(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    prepare(project, sample.generate(100, 1))
    project.path("source").write_text('{"rows": 100, "data_source": "file", "name": "x.csv"}')
    for stage in (data_transformation, model_trainer):
        assert stage.main(["--project", str(project.root)]) == 0
    assert model_evaluation.main(["--project", str(project.root)]) == 1
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "MLFLOW_TRACKING_URI is not set" in sentence
    assert "make pipeline-local" in sentence
    assert project.path("metrics").exists()
