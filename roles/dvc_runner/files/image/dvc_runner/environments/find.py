"""Where a project says what it needs, in the order of trust."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from dvc_runner.environments import conda, poetry
from dvc_runner.environments.requirement_files import (
    ARCHIVES,
    PIN,
    Requirements,
    beside,
    name_of,
    read,
    read_lines,
    text_of,
    without_extras,
)
from dvc_runner.environments.target import Target
from dvc_runner.git import RunnerError

UV, POETRY, PYPROJECT = "uv.lock", "poetry.lock", "pyproject.toml"
PYPI = "https://pypi.org/simple"
SETUP = ("setup.py", "setup.cfg")
# what a package's own folder has that decides what it needs
PROJECT_FILES = (PYPROJECT, *SETUP)
# for people and not for stages
ASIDE = re.compile(r"(^|[-_.])(dev|devel|docs?|tests?|testing|lint|ci|build|constraints?)([-_.]|$)")
DEFAULT_BUILD = ("setuptools>=40.8.0", "wheel")
# what these ask for beside, once they are to build a package that stays where it is
EDITABLE = {
    "hatchling": ("editables",),
    "meson-python": ("ninja",),
    "pdm-backend": ("editables",),
    "scikit-build-core": ("cmake", "ninja"),
}
# what is nothing without the folder that it is in
OF_A_FOLDER = (UV, POETRY, PYPROJECT, "setup.py")
NOT_READ = ("Pipfile.lock", "Pipfile", "pdm.lock", "pylock.toml", "conda-lock.yml")


@dataclass
class Found:
    """What a project asks for."""

    source: str = ""
    """The file that says it; empty where none does."""
    locked: bool = False
    """All of it has hashes, or uv's own lock has them."""
    requirements: Requirements = field(default_factory=Requirements)
    """What is to be installed, once it is locked."""
    compiled: str = ""
    """The file that uv itself reads in place of `requirements`."""
    local: list[str] = field(default_factory=list)
    """Folders and archives of the project that are installed in the workspace."""
    files: list[str] = field(default_factory=list)
    """All that was read."""
    below: str = "."
    """The folder of the project that all of these paths are from."""


def look_beside(project: Path, target: Target, named: str = "", pipeline: str = "") -> Found:
    """Find the environment of a project, or of one pipeline of it.

    Args:
        project: its folder.
        target: the Python that it is for.
        named: as `look` takes it.
        pipeline: the dvc.yaml that is run; what is in its folder, or in the nearest above it,
            comes first. Empty for all of them.

    Raises:
        RunnerError: as `look` does.
    """
    path = Path(named)
    if path.name in OF_A_FOLDER and not path.is_absolute():
        found = look(project / path.parent, target, path.name)
        found.below = str(path.parent)
        return found
    for place in () if named else Path(pipeline).parents:
        found = look(project / place, target)
        if found.source:
            found.below = str(place)
            return found
    return look(project, target, named)


def look(project: Path, target: Target, named: str = "") -> Found:
    """Find the environment of a project.

    Args:
        project: its folder.
        target: the Python that it is for.
        named: the file to take, from the project or absolute; empty for the most trusted.

    Raises:
        RunnerError: a file can not be read, asks for another Python or for what is not to be had.
    """
    # in another checkout the same file is the same: no image tells where it was
    if Path(named).is_absolute() and Path(named).is_relative_to(project.absolute()):
        named = str(Path(named).relative_to(project.absolute()))
    for name in (named,) if named else candidates(project, target):
        if named and not (project / named).is_file():
            raise RunnerError(f"requirements {named} is no file of {project}: correct its path.")
        if found := read_one(project, name, target):
            found.source = Path(name).name if Path(name).is_absolute() else name
            found.files = list(dict.fromkeys([name, *found.files]))
            return found
    if named:
        raise RunnerError(f"{named} names no packages: give another file.")
    unread = [name for name in NOT_READ if (project / name).is_file()]
    if unread:
        raise RunnerError(
            f"{unread[0]} of {project} is not read here: add a requirements.txt (`pip freeze`), or "
            "name a file that is (`requirements` of its entry in dvc_runner_projects)."
        )
    return Found()


def candidates(project: Path, target: Target) -> Iterator[str]:
    """Name the files that may say what a project needs, the most trusted first."""
    yield from (UV, POETRY)
    if best := best_requirements(project, target):
        yield best
    yield from (PYPROJECT, "setup.py", *conda.NAMES)
    if not any((project / name).is_file() for name in NOT_READ):
        yield from only_one_below(project)


def only_one_below(project: Path) -> Iterator[str]:
    """Name the requirements.txt in a folder of the project, such as src, where it is alone."""
    there = [
        path for path in project.glob("*/requirements.txt") if not ASIDE.search(path.parent.name)
    ]
    if len(there) == 1:
        yield str(there[0].relative_to(project))


def read_one(  # noqa: PLR0911 - one for each kind
    project: Path, name: str, target: Target
) -> Found | None:
    """Read one of them; None where it is not there or says nothing of packages."""
    path = project / name
    if not path.is_file():
        return None
    match path.name:
        case "uv.lock":
            return of_uv(project, target)
        case "poetry.lock":
            return of_poetry(project, target)
        case "pyproject.toml":
            return of_pyproject(project, target)
        case "setup.py":
            return of_packages(project, ["."])
        case kind if kind in conda.NAMES:
            lines, python = conda.read(path)
            target.require(python, name)
            return of_requirements(project, of_lines(project, name, lines))
        case _:
            return of_requirements(project, read(project, name))


def best_requirements(project: Path, target: Target) -> str:
    """Choose among requirements*.txt.

    Another file stands in for requirements.txt where it is that one's lock: it has all of its
    packages with their extras, of versions that it and its constraints take, and pins them or has
    hashes where the other does not. What that asks git for, it has word for word.
    """
    plain = "requirements.txt"
    there: dict[str, Requirements] = {}
    for path in sorted(project.glob("requirements*.txt")):
        if path.name == plain:
            there[plain] = read(project, plain)
        elif not ASIDE.search(path.stem):
            with suppress(RunnerError):  # nobody asked for this one
                there[path.name] = read(project, path.name)
    wanted = there.get(plain, Requirements())
    able = [
        name
        for name, found in there.items()
        if name == plain
        or (
            set(wanted.git) <= set(found.git)
            and is_lock(found, wanted, target)
            and set(wanted.local) <= set(found.local)
        )
    ]
    return max(able, key=lambda name: (trust(there[name]), name == plain), default="")


def is_lock(found: Requirements, wanted: Requirements, target: Target) -> bool:
    """Tell whether requirements pin everything that is wanted, to versions that fit."""
    pins = {name_of(line): line for line in found.packages if PIN.search(line)}
    limits = [line for line in wanted.constraints if name_of(line) in pins]
    return all(fits(pins.get(name_of(line), ""), line, target) for line in wanted.packages) and all(
        fits(pins[name_of(line)], line, target, limit=True) for line in limits
    )


def fits(pin: str, line: str, target: Target, limit: bool = False) -> bool:
    """Tell whether a pinned requirement is what a line asks for, or a constraint allows."""
    try:
        asked = Requirement(line.partition(" --hash")[0])
        given = Requirement(pin.partition(" --hash")[0])
    except InvalidRequirement:
        return False
    if limit and not target.takes(str(asked.marker or "")):
        return True
    version = PIN.search(pin)
    return (
        bool(version and asked.specifier.contains(version[1], prereleases=True))
        and asked.extras <= given.extras
    )


def trust(found: Requirements) -> int:
    """Rate requirements: 2 with hashes, 1 pinned, 0 neither."""
    return 2 if found.hashed else int(bool(found.packages) and found.pinned)


def toml(project: Path, name: str) -> dict[str, Any]:
    """Read a TOML file of a project, or nothing where it is not there."""
    path = project / name
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(text_of(path))
    except tomllib.TOMLDecodeError as error:
        raise RunnerError(f"{name} of {project} is not readable ({error}): mend it.") from error


def of_requirements(project: Path, requirements: Requirements) -> Found:
    """Take what a requirements file says."""
    found = of_packages(project, requirements.local, requirements)
    found.locked = requirements.hashed
    return found


def of_lines(project: Path, file: str, lines: list[str]) -> Requirements:
    """Read the lines of a file that are those of a requirements file."""
    found = Requirements()
    read_lines(found, project, file, lines)
    return found


def of_packages(project: Path, local: list[str], requirements: Requirements | None = None) -> Found:
    """Take requirements with packages of the project among them."""
    requirements = requirements or Requirements()
    files = list(requirements.files)
    for each in local:
        path = without_extras(each)
        if path.endswith(ARCHIVES):
            files.append(path)
        # a build may read requirements from files beside its own
        files += [
            beside(path, str(file.relative_to(project / path)))
            for name in (*PROJECT_FILES, "requirements*.txt", "requirements/*.txt")
            for file in sorted((project / path).glob(name))
        ]
        if not (project / path).exists():
            raise RunnerError(f"{path} is asked for as a package and is not in {project}: add it.")
    return Found(requirements=requirements, local=local, files=files)


def of_uv(project: Path, target: Target) -> Found | None:
    """Take a lock of uv's, which is nothing without its project."""
    if not (project / PYPROJECT).is_file():
        return None
    lock = toml(project, UV)
    target.require(lock.get("requires-python", ""), UV)
    local = []
    for entry in lock.get("package", ()):
        source = entry.get("source", {})
        local += [source[kind] for kind in ("editable", "directory") if kind in source]
    found = of_packages(project, local)
    found.locked, found.compiled = True, UV
    found.files.append(PYPROJECT)
    found.requirements.options += [f"--extra-index-url {url}" for url in registries(lock)]
    return found


def registries(lock: Mapping[str, Any]) -> list[str]:
    """List the indexes that uv's lock names, but for the one that everybody has."""
    urls = {entry.get("source", {}).get("registry", PYPI) for entry in lock.get("package", ())}
    return sorted(url for url in urls - {PYPI} if "://" in url)


def of_poetry(project: Path, target: Target) -> Found:
    """Take a lock of poetry's."""
    pyproject, lock = toml(project, PYPROJECT), toml(project, POETRY)
    target.require(poetry.python_of(pyproject), PYPROJECT)
    requirements = poetry.locked(lock, pyproject, target)
    local = [*(["."] if poetry.is_package(project, pyproject) else []), *requirements.local]
    found = of_packages(project, local, requirements)
    found.locked = True
    found.files.append(PYPROJECT)
    return found


def of_pyproject(project: Path, target: Target) -> Found | None:
    """Take what pyproject.toml says, where it says more than how tools are set."""
    content = toml(project, PYPROJECT)
    tools = content.get("tool", {})
    if "project" not in content and "poetry" not in tools:
        return None
    target.require(poetry.python_of(content), PYPROJECT)
    if "poetry" in tools and "dependencies" not in content.get("project", {}):
        lines = [
            poetry.requirement_of(wish)
            for wish in poetry.asked_for(content)
            if poetry.applies(wish, target) and not wish.path
        ]
        paths = [wish.path for wish in poetry.asked_for(content) if wish.path]
        found = of_lines(project, PYPROJECT, lines)
        found.local += paths
        own = ["."] if poetry.is_package(project, content) else []
        return of_packages(project, [*own, *found.local], found)
    if is_package(content):
        return of_packages(project, ["."])
    return Found(compiled=PYPROJECT)


def is_package(content: Mapping[str, Any]) -> bool:
    """Tell whether a project is to be installed itself: it says how, or says that it is."""
    told = content.get("tool", {}).get("uv", {}).get("package")
    return bool(told) if told is not None else "build-system" in content


def build_requirements(project: Path, local: list[str]) -> list[str]:
    """List what it takes to build the packages of a project."""
    wanted: dict[str, None] = {}
    for path in map(without_extras, local):
        if not path.endswith(".whl"):
            said = toml(project / path, PYPROJECT).get("build-system", {}).get("requires")
            lines = DEFAULT_BUILD if said is None else said
            wanted |= dict.fromkeys(lines)
            for line in lines:
                wanted |= dict.fromkeys(EDITABLE.get(name_of(line), ()))
    return list(wanted)
