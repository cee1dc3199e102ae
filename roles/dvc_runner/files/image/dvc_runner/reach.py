"""Which files of a repository one of its pipelines depends on, as their texts say it.

DVC, which knows it, is not on the machine that runs Ansible. What a text leaves open is taken for
all that it may mean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MADE = ("outs", "metrics", "plots")
READ = ("deps", "vars", "params")
OPEN = "*"
# as .dvc files have them
PATH = re.compile(r"^[ -]*path:\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)
WDIR = re.compile(r"^wdir:\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Stage:
    """What a stage, or several by one template, reads and makes: paths below the repository.

    One that ends with OPEN is any that begins so.
    """

    file: str
    reads: frozenset[str]
    makes: frozenset[str]


def stages_of(content: object) -> Iterator[Mapping[str, Any]]:
    """List the stages of a dvc.yaml that was read, templates as one, and its own variables first.

    Raises:
        TypeError: it is no dvc.yaml.
    """
    if not isinstance(content, dict) or not isinstance(content.get("stages") or {}, dict):
        raise TypeError("no stages")
    for stage in [{"vars": content.get("vars")}, *(content.get("stages") or {}).values()]:
        body = stage.get("do", stage) if isinstance(stage, dict) else None
        if not isinstance(body, dict):
            raise TypeError("no stage")
        yield body


def entries_of(stage: Mapping[str, Any], keys: Iterable[str]) -> Iterator[str]:
    """List the files that a stage of a dvc.yaml names, from its directory."""
    for key in keys:
        said = stage.get(key)
        for entry in said if isinstance(said, list) else [said] if isinstance(said, str) else ():
            names = entry if isinstance(entry, dict) else [] if key == "params" else [entry]
            yield from (str(name).partition(":")[0] for name in names)


def files_needed(project: Path, pipeline: str, names: Iterable[str]) -> list[str]:
    """List those .dvc and dvc.yaml files of `names` that a pipeline has, or depends on.

    What is in its directory is its own.
    """
    known = [name for name in names if name.endswith(".dvc") or of_pipelines(name)]
    own = PurePosixPath(pipeline).parent
    needed = {name for name in known if PurePosixPath(name).is_relative_to(own)}
    stages = [stage for name in known if of_pipelines(name) for stage in read(project, name)]
    reached = [stage for stage in stages if stage.file == pipeline]
    others = [stage for stage in stages if stage.file != pipeline]
    wanted = set[str]()
    while reached:
        wanted.update(*(stage.reads for stage in reached))
        needed.update(stage.file for stage in reached)
        reached = [stage for stage in others if touch(stage.makes, wanted)]
        others = [stage for stage in others if stage not in reached]
    for name in known:
        if name.endswith(".dvc") and name not in needed and touch(outs_of(project, name), wanted):
            needed.add(name)
    return sorted(needed)


def of_pipelines(name: str) -> bool:
    """Tell whether a file is a dvc.yaml."""
    return PurePosixPath(name).name == "dvc.yaml"


def read(project: Path, name: str) -> list[Stage]:
    """Read the stages of a dvc.yaml; one that can not be read may read and make anything."""
    import yaml  # noqa: PLC0415 - of Ansible's own packages and of DVC's; few projects need it

    anything = frozenset((OPEN,))
    try:
        bodies = [*stages_of(yaml.safe_load((project / name).read_text()))]
    except (yaml.YAMLError, OSError, ValueError, TypeError):
        return [Stage(name, anything, anything)]
    return [Stage(name, paths(name, body, READ), paths(name, body, MADE)) for body in bodies]


def paths(name: str, stage: Mapping[str, Any], keys: Iterable[str]) -> frozenset[str]:
    """Spell what a stage names below the repository."""
    place = f"{PurePosixPath(name).parent}/{stage.get('wdir') or '.'}"
    return frozenset(spelled(place, entry) for entry in entries_of(stage, keys))


def spelled(place: str, entry: str) -> str:
    """Spell a path in one way; with what is only known later it is any that begins as it does."""
    fixed, later, rest = entry.partition("${")
    if "${" in place or (later and (not fixed.strip("./") or ".." in rest.split("/"))):
        return OPEN
    return os.path.normpath(f"{place}/{fixed}{OPEN if later else ''}")


def outs_of(project: Path, name: str) -> list[str]:
    """Spell what a .dvc file names below the repository."""
    try:
        text = (project / name).read_text()
    except (OSError, ValueError):
        return []
    found = WDIR.search(text)
    place = PurePosixPath(name).parent / (found[1] if found else ".")
    return [os.path.normpath(place / path) for path in PATH.findall(text)]


def touch(some: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether one of some paths may be, or be in, or have in it, one of the others."""
    pairs = ((one, other) for one in some for other in others)
    return any(meet(one, other) or meet(other, one) for one, other in pairs)


def meet(one: str, other: str) -> bool:
    """Tell whether one path may be another, or in it."""
    if OPEN not in one + other:
        return one == other or one.startswith(f"{other}/")
    return one.rstrip(OPEN).startswith(other.rstrip(OPEN))
