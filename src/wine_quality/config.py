"""The three settings files as typed, frozen entities.

A key that is unknown, missing, mistyped or out of range is refused with the file, the key,
the value seen and what is allowed; the last is each field's description.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator

from wine_quality.runtime import PipelineError

_SEED_MAX = 2**32 - 1  # what scikit-learn takes


class _Entity(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _inside_project(path: str) -> str:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts:
        raise ValueError
    return path


_Path = Annotated[
    str,
    AfterValidator(_inside_project),
    Field(description="a path relative to config.yaml, without '..'"),
]
_Sha256 = Field(pattern="^[0-9a-f]{64}$", description="64 hexadecimal digits in lower case")
_Seed = Field(ge=0, le=_SEED_MAX, description=f"a whole number from 0 to {_SEED_MAX}")
_Name = Field(
    pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$",
    description="1 to 100 letters, digits, blanks, '.', '_' or '-'",
)


class Paths(_Entity):
    """Where each file of the pipeline is, relative to config.yaml."""

    raw: _Path
    source: _Path
    status: _Path
    x_train: _Path
    x_test: _Path
    y_train: _Path
    y_test: _Path
    model: _Path
    metrics: _Path
    log: _Path
    last_run: _Path


class Synthetic(_Entity):
    """Size and seed of the generated sample."""

    rows: int = Field(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")
    seed: int = _Seed


class DataIngestion(_Entity):
    """Where the raw table comes from."""

    source: str = Field(
        min_length=1,
        description="a name under known_sources, an http(s) URL, a file, or 'synthetic'",
    )
    sha256: str = Field(
        pattern="^([0-9a-f]{64})?$", description="64 hexadecimal digits in lower case, or empty"
    )
    fallback: Literal["none", "synthetic"] = Field(description="'none' or 'synthetic'")
    timeout: float = Field(gt=0, le=3600, description="seconds, more than 0 and at most 3600")
    synthetic: Synthetic


class KnownSource(_Entity):
    """An address whose bytes are known."""

    url: str = Field(pattern="^https?://[^/]+", description="an http:// or https:// address")
    sha256: str = _Sha256


class Mlflow(_Entity):
    """How the pipeline names itself in MLflow."""

    experiment: str = _Name
    registered_model: str = _Name


class Config(_Entity):
    """config.yaml."""

    paths: Paths
    data_ingestion: DataIngestion
    known_sources: dict[str, KnownSource]
    mlflow: Mlflow


class Split(_Entity):
    """How the table is divided."""

    test_size: float = Field(ge=0.05, le=0.5, description="a number from 0.05 to 0.5")
    seed: int = _Seed


class Model(_Entity):
    """Hyper-parameters of the regressor."""

    kind: Literal["extra_trees", "random_forest", "decision_tree"] = Field(
        description="'extra_trees', 'random_forest' or 'decision_tree'"
    )
    n_estimators: int = Field(ge=1, le=2000, description="a whole number from 1 to 2000")
    max_depth: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        description="a whole number from 1 to 1000, or null for no limit"
    )
    min_samples_leaf: int = Field(ge=1, le=10_000, description="a whole number from 1 to 10000")
    max_features: Annotated[float, Field(gt=0, le=1)] | Literal["sqrt", "log2"] = Field(
        description="a number above 0 and at most 1, 'sqrt' or 'log2'"
    )
    seed: int = _Seed


class Params(_Entity):
    """params.yaml."""

    split: Split
    model: Model


class Column(_Entity):
    """What one column may hold."""

    dtype: Literal["float", "integer"] = Field(description="'float' or 'integer'")
    min: float = Field(description="a number")
    max: float = Field(description="a number")
    nullable: bool = Field(description="true or false")

    @model_validator(mode="after")
    def _ordered(self) -> "Column":
        if self.min > self.max:
            raise ValueError(f"min is {self.min:g}, allowed: at most max, which is {self.max:g}")
        return self


class Schema(_Entity):
    """schema.yaml."""

    version: int = Field(ge=1, description="a whole number from 1")
    target: str = Field(min_length=1, description="the name of a column")
    columns: dict[str, Column] = Field(min_length=2, description="two columns or more")

    @model_validator(mode="after")
    def _target_is_an_integer_column(self) -> "Schema":
        rule = self.columns.get(self.target)
        if rule is None:
            names = ", ".join(self.columns)
            raise ValueError(f"target is {self.target!r}, allowed: one of the columns {names}")
        if rule.dtype != "integer" or rule.nullable:
            raise ValueError(
                f"target is {self.target!r}, allowed: an integer column that is not nullable"
            )
        return self

    @property
    def features(self) -> list[str]:
        """Every column but the target, in order."""
        return [name for name in self.columns if name != self.target]


class Project(BaseModel):
    """A project directory and its settings."""

    model_config = ConfigDict(frozen=True)

    root: Path
    config: Config
    params: Params
    schema_: Schema

    def path(self, name: str) -> Path:
        """Where the file with this name under `paths` in config.yaml is."""
        return self.root / str(getattr(self.config.paths, name))


def load_project(root: Path) -> Project:
    """Read and check all three settings files, so that no stage starts on a wrong one.

    Raises:
        PipelineError: a file is missing, is not YAML, or breaks its rules.
    """
    return Project(
        root=root,
        config=load(root / "config.yaml", Config),
        params=load(root / "params.yaml", Params),
        schema_=load(root / "schema.yaml", Schema),
    )


_E = TypeVar("_E", bound=_Entity)


def load(path: Path, entity: type[_E]) -> _E:
    """Read one settings file into its entity.

    Raises:
        PipelineError: as for `load_project`.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(
            f"{path.name}: there is no such file in {path.parent.resolve()}; run from the project's"
            " directory or bring the file back with git"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        where = " ".join(str(error).split())
        raise PipelineError(f"{path.name}: not a YAML file: {where}") from None
    if not isinstance(content, dict):
        raise PipelineError(
            f"{path.name}: holds {content!r}, allowed: the keys {', '.join(entity.model_fields)}"
        )
    try:
        return entity.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise PipelineError(
            f"{path.name}: "
            + _sentence(entity, first["type"], first["loc"], first["input"], first["msg"])
        ) from None


def _sentence(
    entity: type[BaseModel], kind: str, loc: tuple[int | str, ...], seen: object, message: str
) -> str:
    keys, allowed, siblings = _describe(entity, loc)
    key = ".".join(keys)
    match kind:
        case "extra_forbidden":
            return f"unknown key {key} (value {seen!r}), allowed here: {', '.join(siblings)}"
        case "missing":
            return f"key {key} is missing, allowed: {allowed}"
        case "value_error" if message != "Value error, ":
            text = message.removeprefix("Value error, ")
            return f"{key}.{text}" if key else text
        case _:
            return f"{key} is {seen!r}, allowed: {allowed}"


def _describe(
    entity: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[list[str], str, list[str]]:
    """Follow an error's location: its keys, what is allowed there, and the keys beside it."""
    keys: list[str] = []
    here: Any = entity
    allowed = "a mapping"
    siblings: list[str] = []
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            siblings = list(here.model_fields)
            field = here.model_fields.get(str(part))
            keys.append(str(part))
            if field is None:
                break
            here = field.annotation
            allowed = field.description or _allowed_below(here)
        elif get_origin(here) is dict:
            keys.append(str(part))
            here = get_args(here)[1]
            allowed = _allowed_below(here)
        else:
            break  # the rest names a branch of a union, which is no key
    return keys, allowed, siblings


def _allowed_below(annotation: object) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"the keys {', '.join(annotation.model_fields)}"
    return "a mapping of names"


def without_credentials(address: str) -> str:
    """An address as it may be shown: no user, no password, no query."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/@]*@", r"\1", address.partition("?")[0])
