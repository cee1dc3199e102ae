"""params.yaml as one typed, frozen object; a key that is wrong in any way is named."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE = Path("params.yaml")
_SEED_MAX = 2**32 - 1  # what scikit-learn takes


class SettingsError(Exception):
    """A fault in the settings; its text is one sentence with file, key and value."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Part):
    """Where the table comes from."""

    source: str = Field(min_length=1)
    sha256: str = Field(pattern="^([0-9a-f]{64})?$")
    fallback: Literal["synthetic", "none"]
    rows: int = Field(ge=1000, le=10_000_000)
    seed: int = Field(ge=0, le=_SEED_MAX)


class Split(_Part):
    """How the table is divided."""

    test_size: float = Field(ge=0.05, le=0.5)
    seed: int = Field(ge=0, le=_SEED_MAX)


class LogisticRegression(_Part):
    """As scikit-learn names them."""

    C: float = Field(gt=0)
    max_iter: int = Field(ge=1, le=100_000)


class RandomForest(_Part):
    """As scikit-learn names them; max_samples is a tree's share of the rows."""

    n_estimators: int = Field(ge=1, le=2000)
    max_depth: int = Field(ge=1, le=100)
    max_samples: float = Field(gt=0, le=1)


class GradientBoosting(_Part):
    """As scikit-learn names them."""

    max_iter: int = Field(ge=1, le=10_000)
    learning_rate: float = Field(gt=0, le=1)
    max_leaf_nodes: int = Field(ge=2, le=1000)


class Train(_Part):
    """The three models and how they are judged."""

    experiment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$")
    alert_rate: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0, le=_SEED_MAX)
    logistic_regression: LogisticRegression
    random_forest: RandomForest
    gradient_boosting: GradientBoosting


class Settings(_Part):
    """All of params.yaml."""

    data: Data
    split: Split
    train: Train


def load(path: Path = FILE) -> Settings:
    """Read and check the settings.

    Raises:
        SettingsError: the file is missing, is no YAML mapping, or a key is unknown or wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: there is no such file in {Path.cwd()}; run from the project's directory"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    key, seen = ".".join(str(part) for part in first["loc"]), first["input"]
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {key} (value {seen!r}): correct its name, or take it out"
        case "missing":
            return f"key {key} is missing: add it"
        case _ if key:
            return f"{key} is {seen!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
        case _:
            return f"holds {seen!r}: give it the keys {', '.join(Settings.model_fields)}"
