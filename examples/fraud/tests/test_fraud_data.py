"""What is taken as a table of card transactions, and how the generated one is like the real one."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fraud import get_data
from fraud.sample import generate
from fraud.settings import Data, SettingsError, load
from fraud.stage import StageError, run
from fraud.table import COLUMNS, FEATURES, distinct

ROOT = Path(__file__).parents[1]
# the first rows of the real table
REAL = Path(os.environ.get("FRAUD_DATA", ROOT.parents[2] / "shared/data/creditcard-head.csv"))
GIVEN = Data(source="synthetic", sha256="", fallback="synthetic", rows=1000, seed=1)


def given(**changes: object) -> Data:
    return GIVEN.model_copy(update=changes)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "creditcard.csv"
    generate(1000, 3).to_csv(path, index=False)
    return path


def test_the_generated_table_has_the_columns_size_and_imbalance_of_the_real_one() -> None:
    table = generate(284_807, 42)
    assert tuple(table) == COLUMNS
    assert (len(table), table["Class"].sum()) == (284_807, 492)
    assert table["Time"].is_monotonic_increasing
    assert table["Time"].max() <= 172_792
    assert (table["Amount"] >= 0).all()
    assert 15 < table["Amount"].median() < 30
    assert table[list(FEATURES)].std()["V1"] == pytest.approx(2.0, abs=0.1)


def test_a_seed_gives_the_same_table_and_another_one_another() -> None:
    assert generate(2000, 1).equals(generate(2000, 1))
    assert not generate(2000, 1).equals(generate(2000, 2))


def test_a_generated_fraud_can_be_told_often_and_not_always() -> None:
    table = generate(100_000, 5)
    lies = table.loc[table["Class"] == 1, "V14"] < table["V14"].quantile(0.01)
    assert 0.3 < lies.mean() < 0.95


@pytest.mark.skipif(
    not REAL.is_file(), reason=f"no real rows at {REAL}; FRAUD_DATA=<path> names them"
)
def test_rows_of_the_real_table_are_taken_and_are_not_called_synthetic() -> None:
    received = get_data.receive(given(source=str(REAL)))
    assert received.data_source == "file"
    assert tuple(received.table) == COLUMNS
    assert len(received.table) == 3026


def test_a_table_by_path_is_kept_byte_for_byte_and_noted(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["data"] |= {"source": str(small), "sha256": get_data.digest(small)}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    assert run(get_data.work) == 0
    assert (tmp_path / "data/creditcard.csv").read_bytes() == small.read_bytes()
    assert json.loads((tmp_path / "data/source.json").read_text()) == {
        "data_source": "file",
        "rows": 1000,
        "frauds": 2,
    }
    assert capsys.readouterr().out.startswith("data_source=file: read from creditcard.csv\n")


def test_a_file_that_hashes_to_something_else_is_refused_with_both(small: Path) -> None:
    seen = hashlib.sha256(small.read_bytes()).hexdigest()
    with pytest.raises(StageError, match=f"hashes to {seen}, data.sha256 says 0000"):
        get_data.receive(given(source=str(small), sha256="0" * 64))


def test_a_file_that_is_not_there_is_refused_with_what_may_be_named() -> None:
    with pytest.raises(StageError, match=r"no such file; name a creditcard.csv, openml or synth"):
        get_data.receive(given(source="nowhere.csv"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="V7"), "lacks column V7"),
        (lambda table: table.assign(V7="x"), "1000 rows where V7 is no number"),
        (lambda table: table.assign(Amount=np.nan), "1000 rows where Amount is no number"),
        (lambda table: table.assign(Class=2), "has Class 2: 0 is a good transaction"),
        (lambda table: table.rename(columns=str.lower), "lacks column V1, V2"),
    ],
)
def test_a_table_of_something_else_is_refused_by_column(
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    said: str,
) -> None:
    path = tmp_path / "creditcard.csv"
    change(generate(1000, 1)).to_csv(path, index=False)
    with pytest.raises(StageError, match=said) as refused:
        get_data.receive(given(source=str(path)))
    assert str(refused.value).startswith("creditcard.csv ")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"<html>\nlog in\n</html>"])
def test_a_file_that_is_no_table_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "creditcard.csv"
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"^creditcard.csv ") as refused:
        get_data.receive(given(source=str(path)))
    assert "\n" not in str(refused.value)


def unreachable() -> pd.DataFrame:
    raise ConnectionError("no route")


def test_where_openml_cannot_be_reached_the_table_is_generated_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(get_data, "from_openml", unreachable)
    received = get_data.receive(given(source="openml"))
    assert received.data_source == "synthetic"
    assert "OpenML did not give the data (no route)" in received.why
    with pytest.raises(StageError, match=r"or set data\.fallback to synthetic"):
        get_data.receive(given(source="openml", fallback="none"))


def test_the_table_of_openml_which_has_no_time_is_taken_for_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = generate(1000, 1).drop(columns="Time").astype({"Class": "str"})
    monkeypatch.setattr(get_data, "from_openml", lambda: table)
    received = get_data.receive(given(source="openml"))
    assert received.data_source == "openml"
    assert received.table["Class"].sum() == 2


def test_rows_that_no_model_can_tell_apart_are_one() -> None:
    table = generate(1000, 1)
    later = table.head(10).assign(Time=lambda rows: rows["Time"] + 60)
    assert len(distinct(pd.concat([table, later]))) == 1000


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("data", "rows", 10, "data.rows is 10: "),
        ("data", "fallback", "random", "data.fallback is 'random': "),
        ("train", "alert_rate", 1.0, "train.alert_rate is 1.0: "),
        ("train", "alertrate", 0.1, r"unknown key train.alertrate \(value 0.1\)"),
        ("split", "seed", "42", "split.seed is '42': "),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(
    tmp_path: Path, part: str, key: str, value: object, said: str
) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content[part][key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=said):
        load(tmp_path / "params.yaml")
