"""Parameters of a project, which a run sets in its files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError

YAML = (".yaml", ".yml")
OTHERS = (".json", ".toml", ".py")
POINTLESS = re.compile(r"(?<=[\s\[,])(-?\d+)e([-+]?\d+)(?=[\s,\]}]|$)")
ASKED = "dvc_runner_params or dvc_runner_data_params"


class NoParameterError(RunnerError):
    """A project has not the parameter, or not the file that it is to be in."""


def round_trip_yaml() -> Any:  # noqa: ANN401 - comes with DVC, and is not there where snapshots are made
    """Return a reader and writer of YAML that keeps comments and quotes."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - no other subcommand needs it

    yaml = YAML()
    yaml.preserve_quotes = True
    return yaml


def file_of(name: str) -> str:
    """Return the file of a parameter, which is named as in `override`."""
    return name.rpartition(":")[0] or "params.yaml"


def same_name(name: str) -> str:
    """Spell a parameter out, so that two names of one are equal."""
    return f"{file_of(name)}:{name.rpartition(':')[2]}"


def content_of(path: Path, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read the file of the parameter `name`; of YAML and TOML all that a person wrote is kept."""
    from dvc.utils.serialize import LOADERS, ParseError  # noqa: PLC0415 - comes with DVC
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - as above

    suffix = path.suffix.lower()
    if suffix not in (*YAML, *OTHERS):
        raise RunnerError(
            f"{ASKED} names {name}, and only parameters in {', '.join((*YAML, *OTHERS))} files "
            "can be set: correct it."
        )
    try:
        if suffix in YAML:
            return round_trip_yaml().load(path.read_text())
        return LOADERS[suffix](str(path))
    except (YAMLError, ParseError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise RunnerError(
            f"The project's {path.name} is not readable ({said}): mend it."
        ) from error


def parameter(project: Path, name: str) -> tuple[Path, Any, Any, str]:
    """Find `file:dotted.key`: its file, that as a document, the mapping it is in and its key.

    Raises:
        RunnerError: the file or the key does not exist, or can not be read.
    """
    dotted = name.rpartition(":")[2]
    path = project / file_of(name)
    if not path.is_file():
        raise NoParameterError(
            f"{ASKED} names {name}, and the project has no {path.name}: correct it."
        )
    document = content_of(path, name)
    above, key = place_of(document, path.name, name, dotted)
    return path, document, above, key


def place_of(document: Any, file: str, name: str, dotted: str) -> tuple[Any, str]:  # noqa: ANN401 - as read
    """Return the mapping that a dotted key is in, and the last part of that key."""
    above = place = document
    for key in dotted.split("."):
        if not isinstance(place, dict) or key not in place:
            known = ", ".join(map(str, place)) if isinstance(place, dict) else "no keys"
            raise NoParameterError(
                f"{ASKED} names {name}, and {file} has no {key!r} there (it has {known}): "
                "correct it."
            )
        above, place = place, place[key]
    return above, dotted.rpartition(".")[2]


def override(project: Path, params: Mapping[str, Any]) -> None:
    """Set `file:dotted.key` in the project's files, keeping comments.

    Raises:
        RunnerError: the file or the key does not exist, or DVC can not write the value there.
    """
    for name, value in params.items():
        path, document, above, key = parameter(project, name)
        if above[key] == value:
            continue
        if path.suffix.lower() in YAML:
            above[key] = value
            text = io.StringIO()
            round_trip_yaml().dump(document, text)
            path.write_text(with_points(path.read_text(), text.getvalue()))
        else:
            modify(path, name, value)


def with_points(before: str, after: str) -> str:
    """Spell numbers of changed lines so that readers of YAML 1.1, as PyYAML, take them for numbers.

    To them 1e-05 is text, and 1.0e-05 a number.
    """
    known = set(before.splitlines())
    return "".join(
        line if line.rstrip("\n") in known else POINTLESS.sub(r"\1.0e\2", line)
        for line in after.splitlines(keepends=True)
    )


def modify(path: Path, name: str, value: Any) -> None:  # noqa: ANN401 - a parameter's
    """Set a parameter in a file of another kind, as DVC does for its experiments."""
    from dvc.utils.serialize import MODIFIERS, ParseError  # noqa: PLC0415 - comes with DVC

    before, dotted = path.read_text(), name.rpartition(":")[2]
    try:
        with MODIFIERS[path.suffix.lower()](str(path)) as document:
            above, key = place_of(document, path.name, name, dotted)
            above[key] = value
    except ParseError:
        path.write_text(before)
    _, _, above, key = parameter(path.parent, f"{path.name}:{dotted}")
    if above[key] != value:
        path.write_text(before)
        raise RunnerError(
            f"{ASKED} sets {name} to {value!r}, and DVC can not write that into {path.name}, where "
            f"it is {above[key]!r}: set it in the project."
        )


def values(project: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return what a project's parameters are set to, of those it has; named as in `override`."""
    found = {}
    for name in names:
        with contextlib.suppress(RunnerError):
            _, _, above, key = parameter(project, name)
            found[name] = above[key]
    return found


def require_takes_data(at: Path, project: str, keys: Iterable[str]) -> None:
    """Raise RunnerError where the project at `at` has not the parameters that data are named by."""
    for name in keys:
        try:
            parameter(at, name)
        except NoParameterError:
            raise RunnerError(
                f"Project {project} takes no DATA, for it has not the parameter {name} that would "
                "name them: leave DATA out, or give its entry in dvc_runner_projects data_params, "
                "the two parameters by which its pipeline reads a file and its sha256."
            ) from None


def has_params(project: Path, names: Collection[str]) -> bool:
    """Tell whether a project has every parameter, named as `override` takes them."""
    return set(names) == set(values(project, names))


def data_of(request: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the data: those given now, or else those that were given before.

    Data handed to an earlier run stays the project's data until other data is named, so that a
    later run does not fall back to a default source by surprise. A parameter given now that is one
    of the data's names other data.
    """
    if request.get("data"):
        return dict(request["data"])
    remembered: dict[str, Any] = state.get("data") or {}
    given = {same_name(name) for name in request.get("params", {})}
    return {} if given & {same_name(name) for name in remembered} else remembered


def effective_params(request: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the data over the request's parameters."""
    return {**request.get("params", {}), **data_of(request, state)}


def input_of(path: Path) -> dict[str, str]:
    """Hash a data file, and name it below inputs/ so that another of that name leaves it there."""
    with path.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    return {"name": f"{sha256[:16]}/{path.name}", "sha256": sha256}


def data_request(data: str, keys: Mapping[str, str], received: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that make a project read `data`.

    Args:
        data: what the user named.
        keys: `source` and `sha256`, the parameters (`file:key`) that hold them in this project.
        received: name and sha256 of the file handed in, or empty for a URL or a known source.
    """
    source = f"../inputs/{received['name']}" if received else data
    return {keys["source"]: source, keys["sha256"]: received.get("sha256", "")}
