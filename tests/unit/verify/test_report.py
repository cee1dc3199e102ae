"""The verdict's record and table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from platform_verify import report

PASSED = report.Check("Data is there", True, "9 objects", 1.25, "")
FAILED = report.Check("A clone can pull", False, "data/raw.csv did not come", 2.0, "run it again")
LEFT_OUT = report.Check("MLflow answers", None, "mlflow is no part of this platform", 0.0, "")
GOOD = report.Report(
    ok=True,
    error="",
    platform="lab",
    data_source="file",
    data_name="winequality-red.csv",
    metrics={"test": {"rmse": 0.62919, "r2": 0.4}, "rows": {"raw": 1599}},
    seconds=8.4,
    checks=(PASSED, LEFT_OUT),
)
BAD = replace(GOOD, ok=False, checks=(PASSED, FAILED))
NONE = replace(GOOD, ok=False, error="far cannot be reached", data_source="", checks=())


@pytest.mark.parametrize(("found", "code"), [(GOOD, 0), (BAD, 1), (NONE, 2)])
def test_the_exit_code_tells_holds_from_fails_from_no_verdict(
    found: report.Report, code: int
) -> None:
    assert found.code == code


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "verify.json"
    report.write(BAD, path)
    assert report.read(path) == BAD
    assert list(path.parent.iterdir()) == [path]


def test_the_json_holds_for_each_check_what_programs_ask_for(tmp_path: Path) -> None:
    report.write(BAD, tmp_path / "verify.json")
    found = json.loads((tmp_path / "verify.json").read_text())
    assert found["ok"] is False
    assert set(found["checks"][0]) == {"name", "ok", "detail", "seconds", "hint"}
    assert (found["data_source"], found["metrics"]["test"]["r2"]) == ("file", 0.4)
    assert found["data_name"] == "winequality-red.csv"


@pytest.mark.parametrize("content", ["", "{}", '{"ok": true}', "[]", '{"checks": [{"a": 1}]}'])
def test_what_is_no_report_is_read_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "verify.json").write_text(content)
    assert report.read(tmp_path / "verify.json") is None
    assert report.read(tmp_path / "absent.json") is None


def test_the_table_has_a_row_per_check_the_data_the_metrics_and_the_verdict() -> None:
    lines = report.table(GOOD).splitlines()
    assert lines[0].split() == ["\u2714", "Data", "is", "there", "9", "objects", "1.2", "s"]
    assert lines[1].startswith("-  MLflow answers")
    assert lines[-3:] == [
        "data: file winequality-red.csv",
        "test rmse 0.629, r2 0.400",
        "OK: all 1 checks passed on platform lab in 8 s",
    ]


def test_a_failed_check_is_followed_by_its_next_step_and_counted() -> None:
    text = report.table(BAD)
    assert "\u2718  A clone can pull" in text
    assert "-> run it again" in text
    assert "FAILED: 1 of 2 checks failed on platform lab" in text


def test_synthetic_data_is_called_that_with_the_way_to_real_data() -> None:
    assert "data: synthetic (a generated" in report.table(replace(GOOD, data_source="synthetic"))
    assert "make up DATA=" in report.table(replace(GOOD, data_source="synthetic"))
    assert "synthetic" not in report.table(GOOD)


def test_data_of_a_project_that_tells_no_name_are_told_by_their_source() -> None:
    assert "\ndata: file\n" in report.table(replace(GOOD, data_name=""))


def test_without_a_verdict_there_is_one_sentence_and_nothing_else() -> None:
    assert report.table(NONE) == "No verdict: far cannot be reached"


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = replace(FAILED, name="name " * 30, detail="detail " * 200, hint="hint " * 60)
    lines = report.table(replace(BAD, checks=(PASSED, long)), width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines == [line.rstrip() for line in lines]


def test_a_terminal_that_is_too_narrow_gets_the_narrowest_table() -> None:
    assert report.table(BAD, 10) == report.table(BAD, 80)


def test_a_stream_without_unicode_gets_ascii_only() -> None:
    strange = replace(FAILED, detail="caf\u00e9")
    text = report.table(replace(BAD, checks=(PASSED, strange)), unicode=False)
    assert text.isascii()
    assert text.startswith("ok Data is there")
    assert "\nNO A clone" in text


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"test": {"rmse": 0.5}}, "test rmse 0.500"),
        ({"accuracy": 0.9}, "test accuracy 0.900"),
        ({"rows": {"raw": 3}}, ""),
        ({}, ""),
    ],
)
def test_metrics_of_any_project_are_named_where_there_are_numbers(
    metrics: dict[str, object], said: str
) -> None:
    assert report.scores(metrics) == said
