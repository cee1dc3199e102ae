"""config/config.yaml as one typed, frozen object; a key that is wrong in any way is named."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

FILE = Path("config/config.yaml")


class SettingsError(Exception):
    """A fault in the settings; its text is one sentence with file, key and value."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _inside_project(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError("a path inside the project, without '..', is allowed")
    return text


_Path = Annotated[str, AfterValidator(_inside_project)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$")]


class Paths(_Part):
    """Where each file of the pipeline is, relative to the project."""

    raw: _Path
    train: _Path
    test: _Path
    model: _Path
    metrics: _Path


class Split(_Part):
    """How the flowers are divided."""

    test_size: float = Field(ge=0.05, le=0.5)
    seed: int = Field(ge=0, le=2**32 - 1)


class Model(_Part):
    """Hyper-parameters, named as scikit-learn's LogisticRegression names them."""

    C: float = Field(gt=0)
    max_iter: int = Field(ge=1, le=100_000)
    solver: Literal["lbfgs", "newton-cg", "saga"]


class Mlflow(_Part):
    """What the run and the model are called in MLflow."""

    experiment: _Name
    registered_model: _Name


class Remote(_Part):
    """Where DVC stores outputs: a bucket, and what the names of all objects begin with."""

    url: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*$")

    @property
    def bucket(self) -> str:
        """The bucket in the address."""
        return self.url.split("/")[2]


class Settings(_Part):
    """All of config/config.yaml."""

    paths: Paths
    split: Split
    model: Model
    mlflow: Mlflow
    remote: Remote


def load(path: Path = FILE) -> Settings:
    """Read and check the settings file.

    Raises:
        SettingsError: it is missing, is no YAML mapping, or a key is unknown, missing or wrong.
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
        case "value_error":
            return f"{key} is {seen!r}: {first['ctx']['error']}"
        case _ if key:
            return f"{key} is {seen!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
        case _:
            return f"holds {seen!r}: give it the keys {', '.join(Settings.model_fields)}"
