from collections.abc import Callable
from pathlib import Path

import pytest

from wine_quality import sample
from wine_quality.config import Project
from wine_quality.dataset import read
from wine_quality.stages import data_validation

HEADER, *ROWS = sample.generate(30, 1).decode().splitlines()


def judged(project: Project, lines: list[str]) -> list[str]:
    table = read("\n".join(lines).encode(), "wine.csv")
    return data_validation.violations(table, project.schema_)


def cell(row: str, column: str, value: str) -> str:
    cells = row.split(";")
    cells[sample.COLUMNS.index(column)] = value
    return ";".join(cells)


def test_the_real_file_passes(project: Project, real_file: Path) -> None:
    table = read(real_file.read_bytes(), real_file.name)
    assert data_validation.violations(table, project.schema_) == []


def test_the_sample_passes(project: Project) -> None:
    assert judged(project, [HEADER, *ROWS]) == []


# least and greatest value of each column in the UCI archive's white table, as published
WHITE = {
    "fixed acidity": ("3.8", "14.2"),
    "volatile acidity": ("0.08", "1.1"),
    "citric acid": ("0", "1.66"),
    "residual sugar": ("0.6", "65.8"),
    "chlorides": ("0.009", "0.346"),
    "free sulfur dioxide": ("2", "289"),
    "total sulfur dioxide": ("9", "440"),
    "density": ("0.98711", "1.03898"),
    "pH": ("2.72", "3.82"),
    "sulphates": ("0.22", "1.08"),
    "alcohol": ("8", "14.2"),
    "quality": ("3", "9"),
}


def test_what_white_wine_can_be_passes(project: Project) -> None:
    extremes = [";".join(WHITE[name][end] for name in sample.COLUMNS) for end in (0, 1)]
    assert judged(project, [HEADER, *ROWS, *extremes]) == []


@pytest.mark.parametrize("score", ["0", "10"])
def test_every_score_there_is_passes(project: Project, score: str) -> None:
    assert judged(project, [HEADER, *ROWS, cell(ROWS[0], "quality", score)]) == []


def test_another_order_of_columns_passes(project: Project) -> None:
    turned = [";".join(reversed(line.split(";"))) for line in (HEADER, *ROWS)]
    assert judged(project, turned) == []


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("pH", "", "'' is no value"),
        ("pH", "NA", "'NA' is no value"),
        ("pH", "nan", "'nan' is no value"),
        ("pH", "sour", "'sour' is not a number"),
        ("pH", "3,5", "'3,5' is not a number"),
        ("pH", "inf", "'inf' is not a number"),
        ("pH", "0x3", "'0x3' is not a number"),
        ("pH", "14", "'14' is not from 2.4 to 4.6"),
        ("density", "996", "'996' is not from 0.98 to 1.05"),
        ("density", "1e999", "'1e999' is not from 0.98 to 1.05"),
        ("alcohol", "-1", "'-1' is not from 5 to 20"),
        ("quality", "5.5", "'5.5' is not a whole number"),
        ("quality", "1e999", "'1e999' is not a whole number"),
        ("quality", "11", "'11' is not from 0 to 10"),
        ("quality", "-1", "'-1' is not from 0 to 10"),
    ],
)
def test_a_wrong_value_is_one_line_with_column_value_and_rows(
    project: Project, column: str, value: str, said: str
) -> None:
    rows = [cell(row, column, value) if i in (3, 7) else row for i, row in enumerate(ROWS)]
    assert judged(project, [HEADER, *rows]) == [
        f"column '{column}': {said} (rows: 2, first in line 5)"
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line, _: line.rpartition(";")[0], ["column 'quality': missing"]),
        (lambda line, first: line + (';"colour"' if first else ";1"), ["column 'colour': not in"]),
        (
            lambda line, _: line.replace("alcohol", "alcohool"),
            ["column 'alcohol': missing (is 'alcohool' meant?)", "column 'alcohool': not in"],
        ),
    ],
)
def test_a_missing_additional_or_misspelt_column_is_named(
    project: Project, change: Callable[[str, bool], str], said: list[str]
) -> None:
    found = judged(project, [change(HEADER, True), *(change(row, False) for row in ROWS)])
    assert len(found) == len(said)
    assert all(line.startswith(text) for line, text in zip(found, said, strict=True))


def test_a_null_passes_where_the_schema_allows_it(project: Project) -> None:
    rule = project.schema_.columns["pH"].model_copy(update={"nullable": True})
    schema = project.schema_.model_copy(update={"columns": {**project.schema_.columns, "pH": rule}})
    table = read("\n".join([HEADER, cell(ROWS[0], "pH", "")]).encode(), "wine.csv")
    assert data_validation.violations(table, schema) == []


def test_a_failed_validation_fails_the_stage_and_leaves_the_reasons(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = project.path("raw")
    raw.parent.mkdir(parents=True)
    raw.write_text("\n".join([HEADER, cell(ROWS[0], "pH", "14"), cell(ROWS[1], "alcohol", "x")]))
    assert data_validation.main(["--project", str(project.root)]) == 1
    first, *reasons = project.path("status").read_text().splitlines()
    assert first == "Validation status: False"
    assert len(reasons) == 2
    printed = capsys.readouterr().err
    assert all(reason in printed for reason in reasons)
    assert "breaks schema.yaml in 2 way(s)" in printed.splitlines()[-1]


def test_a_passed_validation_says_so(project: Project) -> None:
    raw = project.path("raw")
    raw.parent.mkdir(parents=True)
    raw.write_text("\n".join([HEADER, *ROWS]))
    assert data_validation.main(["--project", str(project.root)]) == 0
    assert project.path("status").read_text() == "Validation status: True\n"
