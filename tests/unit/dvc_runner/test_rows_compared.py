"""Which model the verdict compares with the pipeline's, and in how many rows."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tests.unit.conftest import load

evidence = load("dvc_runner/verify/evidence.py")


@pytest.mark.parametrize(("columns", "kept"), [(11, 200), (100, 25), (3_000, 1)])
def test_rows_are_as_many_as_a_command_line_takes(columns: int, kept: int) -> None:
    rows = pd.DataFrame([[0.12345678901234567] * columns] * 200)
    found = evidence.fitting(rows)
    assert len(found) == kept
    assert kept == 1 or len(json.dumps(found.to_dict("split"))) <= evidence.ROWS_BYTES


@pytest.mark.parametrize(
    ("run_id", "tags", "ours"),
    [("a1", [], True), ("b2", [{"key": "reproduces", "value": "x"}], True), ("c3", [], False)],
)
def test_a_candidate_of_a_grid_or_of_a_repeated_run_is_of_this_workspace_and_no_other_is(
    run_id: str,
    tags: list[dict[str, str]],
    ours: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "runs.json").write_text('{"runs": [{"mlflow_runs": ["a1"]}]}')
    answers = {
        "model-versions/get": {"model_version": {"run_id": run_id}},
        "runs/get": {"run": {"data": {"tags": tags}}},
    }
    monkeypatch.setattr(evidence, "WORKSPACE", tmp_path)
    monkeypatch.setattr(evidence, "tracking", lambda path, _: answers[path])
    assert evidence.is_ours("wine", "7") is ours
