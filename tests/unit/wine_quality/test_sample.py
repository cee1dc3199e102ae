import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_score

from wine_quality import sample

from .conftest import ROOT


def frame(content: bytes, folder: Path) -> pd.DataFrame:
    path = folder / "x.csv"
    path.write_bytes(content)
    return pd.read_csv(path, sep=";")


@pytest.fixture(scope="module")
def real(real_file: Path) -> pd.DataFrame:
    return pd.read_csv(real_file, sep=";")


@pytest.fixture
def made(tmp_path: Path) -> pd.DataFrame:
    return frame(sample.generate(1599, 42), tmp_path)


def test_a_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    subprocess.run(
        [sys.executable, "-m", "wine_quality.sample", "--rows", "50", "--out", str(out)],
        env={"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": "7"},
        check=True,
    )
    assert out.read_bytes() == sample.generate(50, 42)


def test_another_seed_gives_other_rows() -> None:
    assert sample.generate(50, 1) != sample.generate(50, 2)


def test_no_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        sample.main(["--rows", "0", "--out", str(tmp_path / "x.csv")])
    assert "--rows is 0" in capsys.readouterr().err


def test_a_model_of_the_sample_finds_something(made: pd.DataFrame) -> None:
    model = ExtraTreesRegressor(30, min_samples_leaf=2, max_features=0.6, random_state=0)
    assert cross_val_score(model, made[made.columns[:-1]], made["quality"], cv=3).mean() > 0.2


def test_columns_types_and_decimals_are_those_of_the_real_table(
    made: pd.DataFrame, real: pd.DataFrame
) -> None:
    assert list(made.columns) == list(real.columns)
    assert made["quality"].dtype == real["quality"].dtype
    for name in real.columns.drop("alcohol"):  # six real values of it are thirds and sixths
        step = 10.0 ** -decimals(real[name])
        assert decimals(made[name]) <= decimals(real[name]), (name, step)


def decimals(values: pd.Series) -> int:
    """Decimals that all but 2 % of the values keep to."""
    return next(n for n in range(10) if (values - values.round(n)).abs().lt(1e-9).mean() > 0.98)


def test_ranges_and_shapes_are_those_of_the_real_table(
    made: pd.DataFrame, real: pd.DataFrame
) -> None:
    assert (made.min() >= real.min() - 1e-9).all()
    assert (made.max() <= real.max() + 1e-9).all()
    assert ((made.mean() - real.mean()).abs() < 0.1 * real.std()).all()
    assert (made.std() / real.std()).between(0.8, 1.25).all()


def test_rank_correlations_are_those_of_the_real_table(
    made: pd.DataFrame, real: pd.DataFrame
) -> None:
    difference = spearmanr(made).statistic - spearmanr(real).statistic
    assert np.abs(difference).max() < 0.1


def test_no_row_is_a_real_one(made: pd.DataFrame, real: pd.DataFrame) -> None:
    features = list(real.columns[:-1])
    rows = [set(part[features].astype(float).itertuples(index=False)) for part in (made, real)]
    assert not rows[0] & rows[1]
