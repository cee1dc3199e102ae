"""Recall at a fixed alert rate, and what else a model is judged by."""

import numpy as np
import pytest

from fraud.measure import curve, measure, threshold
from fraud.sample import generate
from fraud.settings import Split
from fraud.stage import StageError
from train import parts


def test_the_highest_hundredth_raises_an_alert() -> None:
    scores = np.arange(1000) / 1000
    actual = np.zeros(1000, dtype="int64")
    actual[[995, 500]] = 1  # one among the ten highest
    figures = measure(actual, scores, 0.01)
    assert (figures.alerts, figures.true_positives, figures.false_negatives) == (10, 1, 1)
    assert figures.metrics["recall_at_alert_rate"] == 0.5
    assert figures.metrics["precision_at_alert_rate"] == 0.1
    assert figures.true_negatives == 989


def test_rows_that_tie_are_never_more_alerts_than_people_can_look_at() -> None:
    scores = np.zeros(1000)
    scores[:5] = 0.9
    assert threshold(scores, 0.01) == 0.9
    assert measure(np.eye(1, 1000, dtype="int64")[0], scores, 0.01).alerts == 5


def test_a_model_that_says_the_same_of_every_row_finds_nothing() -> None:
    actual = np.eye(1, 1000, dtype="int64")[0]
    figures = measure(actual, np.full(1000, 0.5), 0.01)
    assert (figures.alerts, figures.metrics["recall_at_alert_rate"]) == (0, 0.0)
    assert figures.metrics["precision_at_alert_rate"] == 0.0
    assert figures.roc_auc == 0.5


def test_a_perfect_model_has_recall_one_and_one_that_is_upside_down_none() -> None:
    rng = np.random.default_rng(1)
    actual = (np.arange(10_000) < 17).astype("int64")
    scores = actual + rng.uniform(0, 0.5, 10_000)
    assert measure(actual, scores, 0.01).metrics["recall_at_alert_rate"] == 1.0
    assert measure(actual, -scores, 0.01).metrics["recall_at_alert_rate"] == 0.0


def test_the_curve_ends_where_every_fraud_is_found() -> None:
    actual = np.array([1, 0, 1, 0])
    points = curve(actual, np.array([0.9, 0.8, 0.7, 0.1]))
    assert list(points["recall"]) == [1.0, 0.5]
    assert list(points["precision"]) == [0.666667, 1.0]


def test_both_parts_have_their_share_of_frauds_and_no_row_is_in_both() -> None:
    table = generate(20_000, 1)
    found = parts(table, Split(test_size=0.2, seed=1))
    (train, of_train), (test, of_test) = found["train"], found["test"]
    assert (len(train), len(test)) == (16_000, 4_000)
    assert (of_train.sum(), of_test.sum()) == (28, 7)
    assert train.merge(test).empty


def test_a_table_with_hardly_a_fraud_is_refused_with_what_is_needed() -> None:
    with pytest.raises(StageError, match="2 of 1000 distinct transactions are frauds, at least 10"):
        parts(generate(1000, 1), Split(test_size=0.2, seed=1))
