"""What one pipeline of a repository depends on, as far as the machine that runs Ansible sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvc_runner.reach import files_needed

KEPT = ("data/raw.csv.dvc", "data/images.dvc", "other/large.csv.dvc", "churn/own.csv.dvc")
MAKES = "stages: {make: {cmd: make, deps: [../data/images], outs: [clean.csv]}}"


def needed(at: Path, *stages: str, **pipelines: str) -> set[str]:
    """Which files of a repository a pipeline needs, beside its own dvc.yaml."""
    texts = {f"{name}/dvc.yaml": text for name, text in pipelines.items()}
    texts["churn/dvc.yaml"] = "\n".join(["stages:", *(f"  {stage}" for stage in stages)])
    for name in KEPT:
        texts[name] = f"outs:\n- md5: {'a' * 32}\n  path: {Path(name).stem}\n"
    for name, text in texts.items():
        (at / name).parent.mkdir(exist_ok=True)
        (at / name).write_text(text)
    return {*files_needed(at, "churn/dvc.yaml", texts)} - {"churn/dvc.yaml", "churn/own.csv.dvc"}


@pytest.mark.parametrize(
    ("stage", "files"),
    [
        ("a: {cmd: x, deps: [own.csv]}", set()),
        ("a: {cmd: x, deps: [../data/raw.csv]}", {"data/raw.csv.dvc"}),
        ("a: {cmd: x, deps: [../data/images/one.png]}", {"data/images.dvc"}),
        ("a: {cmd: x, deps: [../data]}", {"data/raw.csv.dvc", "data/images.dvc"}),
        ("a: {cmd: x, wdir: ../data, deps: [raw.csv]}", {"data/raw.csv.dvc"}),
        ("a: {cmd: x, params: [../data/raw.csv: [lr]]}", {"data/raw.csv.dvc"}),
        ("a: {foreach: [1, 2], do: {cmd: x, deps: [../data/raw.csv]}}", {"data/raw.csv.dvc"}),
        ("a: {matrix: {n: [1]}, cmd: x, deps: ['../data/${item.n}.csv']}", {*KEPT[:2]}),
        ("a: {cmd: x, deps: ['../data/r${x}']}", {"data/raw.csv.dvc"}),
        ("a: {cmd: x, deps: ['${where}/raw.csv']}", {*KEPT[:3]}),
        ("a: {cmd: x, wdir: '${where}', deps: [raw.csv]}", {*KEPT[:3]}),
        ("a: {cmd: x, deps: ['../data/${x}/../../other/large.csv']}", {*KEPT[:3]}),
        ("<<<<<<< HEAD", {*KEPT[:3]}),
    ],
)
def test_the_data_of_a_pipeline_are_those_that_its_stages_may_read(
    stage: str, files: set[str], tmp_path: Path
) -> None:
    assert needed(tmp_path, stage) == files


def test_what_another_pipeline_makes_brings_what_that_reads(tmp_path: Path) -> None:
    stage = "a: {cmd: x, deps: [../made/clean.csv]}"
    found = needed(tmp_path, stage, made=MAKES, other="stages: {b: {cmd: x, deps: [large.csv]}}")
    assert found == {"made/dvc.yaml", "data/images.dvc"}


def test_who_reads_the_same_is_not_needed(tmp_path: Path) -> None:
    reads = "stages: {b: {cmd: x, deps: [large.csv, ../data/raw.csv], outs: [made.csv]}}"
    found = needed(tmp_path, "a: {cmd: x, deps: [../data/raw.csv]}", other=reads)
    assert found == {"data/raw.csv.dvc"}


def test_the_directory_of_a_dvc_file_counts(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.dvc").write_text("wdir: data\nouts:\n- path: 'more.csv'\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    found = files_needed(tmp_path, "dvc.yaml", ["elsewhere.dvc", "dvc.yaml", "x.py"])
    assert found == ["dvc.yaml", "elsewhere.dvc"]
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn/dvc.yaml").write_text("stages: {a: {cmd: x, deps: [../data/more.csv]}}\n")
    found = files_needed(
        tmp_path, "churn/dvc.yaml", ["elsewhere.dvc", "dvc.yaml", "churn/dvc.yaml"]
    )
    assert found == ["churn/dvc.yaml", "elsewhere.dvc"]
