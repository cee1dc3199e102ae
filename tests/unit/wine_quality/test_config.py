import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from wine_quality.config import Config, Params, Schema, load_project, without_credentials
from wine_quality.runtime import PipelineError
from wine_quality.stages import data_ingestion

from .conftest import ROOT, edit


@pytest.mark.parametrize(
    ("file", "key", "value", "allowed"),
    [
        ("params.yaml", "model__kind", "xgboost", "'extra_trees', 'random_forest'"),
        ("params.yaml", "model__n_estimators", 0, "from 1 to 2000"),
        ("params.yaml", "model__n_estimators", "100", "from 1 to 2000"),
        ("params.yaml", "model__n_estimators", True, "from 1 to 2000"),
        ("params.yaml", "model__max_depth", 0, "or null"),
        ("params.yaml", "model__max_features", 1.5, "at most 1, 'sqrt' or 'log2'"),
        ("params.yaml", "model__max_features", "auto", "at most 1, 'sqrt' or 'log2'"),
        ("params.yaml", "model__seed", -1, "from 0 to 4294967295"),
        ("params.yaml", "split__test_size", 0.9, "from 0.05 to 0.5"),
        ("params.yaml", "split__test_size", float("nan"), "from 0.05 to 0.5"),
        ("params.yaml", "split", [1], "the keys test_size, seed"),
        ("config.yaml", "data_ingestion__sha256", "abc", "64 hexadecimal digits"),
        ("config.yaml", "data_ingestion__fallback", None, "'none' or 'synthetic'"),
        ("config.yaml", "data_ingestion__timeout", 0, "more than 0"),
        ("config.yaml", "data_ingestion__source", 5, "a name under known_sources"),
        ("config.yaml", "known_sources__uci__url", "ftp://host/x", "http:// or https://"),
        ("config.yaml", "paths__model", "/tmp/model", "relative to config.yaml"),  # noqa: S108
        ("config.yaml", "paths__model", "../model", "relative to config.yaml"),
        ("config.yaml", "mlflow__experiment", "", "1 to 100 letters"),
        ("schema.yaml", "version", "1", "a whole number from 1"),
        ("schema.yaml", "columns__pH__dtype", "text", "'float' or 'integer'"),
        ("schema.yaml", "columns__pH__nullable", "no", "true or false"),
        ("schema.yaml", "columns__pH__min", 9, "at most max"),
        ("schema.yaml", "target", "colour", "one of the columns"),
        ("schema.yaml", "target", "pH", "an integer column"),
    ],
)
def test_a_wrong_value_is_refused_with_file_key_value_and_what_is_allowed(
    folder: Path, file: str, key: str, value: object, allowed: str
) -> None:
    edit(folder, file, **{key: value})
    with pytest.raises(PipelineError) as refused:
        load_project(folder)
    sentence = str(refused.value)
    assert sentence.startswith(f"{file}: ")
    assert key.rsplit("__", maxsplit=1)[-1] in sentence or key.split("__")[-2] in sentence
    assert repr(value) in sentence
    assert allowed in sentence
    assert "\n" not in sentence


def test_a_misspelt_key_is_refused_beside_the_keys_there_are(folder: Path) -> None:
    edit(folder, "params.yaml", model__n_estimator=300)
    with pytest.raises(PipelineError, match=r"unknown key model.n_estimator \(value 300\)") as seen:
        load_project(folder)
    assert "n_estimators, max_depth" in str(seen.value)


def test_a_missing_key_is_named_with_what_is_allowed(folder: Path) -> None:
    path = folder / "params.yaml"
    path.write_text(re.sub(r"(?m)^  kind:.*\n", "", path.read_text()))
    with pytest.raises(PipelineError, match=r"key model.kind is missing, allowed: 'extra_trees'"):
        load_project(folder)


@pytest.mark.parametrize("text", ["a: [", "", "- 1", "a: \tb: c", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_by_name(folder: Path, text: str) -> None:
    (folder / "schema.yaml").write_text(text)
    with pytest.raises(PipelineError, match=r"^schema.yaml: "):
        load_project(folder)


def test_a_directory_without_settings_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"config.yaml: there is no such file in .*; run from"):
        load_project(tmp_path)


def test_wrong_settings_end_a_stage_with_one_line_and_no_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "params.yaml", model__seed="x")
    assert data_ingestion.main(["--project", str(folder)]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "model.seed is 'x'" in printed


def test_a_file_that_cannot_be_written_ends_a_stage_with_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "config.yaml", data_ingestion__source="synthetic")
    (folder / "data").write_text("in the way")
    assert data_ingestion.main(["--project", str(folder)]) == 1
    assert "data/raw: Not a directory" in capsys.readouterr().err.splitlines()[-1]


def test_settings_are_frozen() -> None:
    params = load_project(ROOT).params
    with pytest.raises(ValueError, match="frozen"):
        params.split.seed = 1


def _keys(entity: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in entity.model_fields.items():
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            keys += _keys(below, f"{prefix}{name}.")
        elif [a for a in get_args(below) if isinstance(a, type) and issubclass(a, BaseModel)]:
            keys += _keys(get_args(below)[1], f"{prefix}{name}.<name>.")
        else:
            assert field.description, f"{prefix}{name} does not say what is allowed"
            keys.append(f"{prefix}{name}")
    return keys


@pytest.mark.parametrize("entity", [Config, Params])
def test_every_setting_is_in_the_docs(entity: type[BaseModel]) -> None:
    page = (ROOT / "docs/pipeline.md").read_text(encoding="utf-8")
    assert [key for key in _keys(entity) if f"`{key}`" not in page] == []


def test_every_rule_of_a_column_is_in_the_docs() -> None:
    page = (ROOT / "docs/pipeline.md").read_text(encoding="utf-8")
    words = [key.rpartition(".")[2] for key in _keys(Schema)]
    assert [word for word in words if f"`{word}`" not in page] == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:secret@host/x.csv?token=secret", "https://host/x.csv"),
        ("https://host/x.csv", "https://host/x.csv"),
        ("sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_an_address_is_shown_without_credentials(address: str, shown: str) -> None:
    assert without_credentials(address) == shown
