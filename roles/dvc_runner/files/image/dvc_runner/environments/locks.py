"""Locks: made by uv where a project has none, and kept by what they were made of."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc_runner.environments.find import UV, Found, build_requirements, look_beside
from dvc_runner.environments.requirement_files import (
    ARCHIVES,
    Requirements,
    beside,
    joined,
    logical_lines,
    read_lines,
    without_extras,
)
from dvc_runner.environments.target import Target
from dvc_runner.environments.uv import uv
from dvc_runner.git import RunnerError, try_git
from dvc_runner.snapshot import TAKE_ALL, listed
from dvc_runner.state import digest

# another number where the same files would give another lock
RULES = "3"
SYSTEM_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
# of uv, where it could not ask: what has hashes needs no answer
UNANSWERED = re.compile(
    r"[Ff]ailed to fetch|error sending request|dns error|[Cc]onnection|network was disabled"
)
NOT_COPIED = ("__pycache__", ".dvc", ".git", ".tox", ".venv", "node_modules", "venv")
# packages of the project, in what uv writes
OWN = re.compile(r"-e |file:|[./]|\S+ @ file:")


@dataclass(frozen=True)
class Environment:
    """The environment of a project, ready to be built."""

    folder: Path
    digest: str
    """Hash of what stages find installed."""
    source: str
    python: str
    local: tuple[str, ...]
    new: bool
    """It was locked now."""

    @property
    def files(self) -> dict[str, str]:
        """What the image is built from: name in its context, and path here."""
        return {path.name: str(path) for path in sorted(self.folder.iterdir())}

    @property
    def sentence(self) -> str:
        """What a person wants to know of it."""
        if not self.source:
            return f"It names no packages: Python {self.python} and its standard library."
        own = ", ".join("the project itself" if path == "." else path for path in self.local)
        return f"{self.source} for Python {self.python}{f', and {own}' if own else ''}."


def environment_of(  # noqa: PLR0913 - what an entry may say
    project: Path,
    cache: Path,
    target: Target | None = None,
    named: str = "",
    system: Sequence[str] = (),
    *,
    pipeline: str = "",
) -> Environment:
    """Find and lock the environment of a project; a second time costs milliseconds and no network.

    Args:
        project: its folder, which is not written to.
        cache: where locks are kept, the same as for snapshots.
        target: the Python of the image.
        named: the file that says it; empty for the most trusted of the project's.
        system: Debian packages that it needs.
        pipeline: the dvc.yaml that is run, whose folder comes first; empty for all.

    Raises:
        RunnerError: it can not be had, in one sentence.
    """
    target = target or Target()
    wrong = next((name for name in system if not SYSTEM_PACKAGE.fullmatch(str(name))), None)
    if wrong is not None:
        raise RunnerError(
            f"system_packages names {wrong!r}: a Debian package is lower-case letters, digits and "
            "+ . - (`apt-cache search` finds it)."
        )
    found = look_beside(project, target, named, pipeline)
    place, source = project / found.below, source_of(found)
    key = digest(
        *(RULES, target.python, target.machine, source, *sorted(set(system))),
        *(part for name in found.files for part in (name, content(place / name))),
    )
    folder = cache / "environments" / key
    new = not folder.exists()
    if new:
        make(place, found, target, sorted(set(system)), folder)
    return environment_at(folder, new)


def environment_at(folder: Path, new: bool = False) -> Environment:
    """Read an environment that was locked."""
    said = json.loads((folder / "environment.json").read_text())
    return Environment(
        folder=folder,
        digest=said["digest"],
        source=said["source"],
        python=said["python"],
        local=tuple(said["local"]),
        new=new,
    )


def environment_asked(
    given: Mapping[str, Any], folder: Path, cache: Path, target: Target
) -> Environment:
    """Find and lock the environment that a project's entry asks for, of its files in `folder`.

    Raises:
        RunnerError: it can not be had, in one sentence.
    """
    named, pipeline = (str(given.get(key) or "") for key in ("requirements", "pipeline"))
    system = tuple(given.get("system_packages") or ())
    made = environment_of(folder, cache, target, named, system, pipeline=pipeline)
    if left := next((path for path in made.local if path.startswith("..")), ""):
        raise RunnerError(f"{made.source} of {folder} asks for the package {left}, {TAKE_ALL}")
    return made


def content(path: Path) -> str:
    """Hash a file; empty where it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def source_of(found: Found) -> str:
    """Return the file that says what is to be installed, from the project."""
    return beside(found.below, found.source) if found.source else ""


def make(place: Path, found: Found, target: Target, system: list[str], folder: Path) -> None:
    """Lock what was found in a place of the project, and keep what an image is built from."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as part:
        work = Path(part)
        lines = lock(place, found, target, work)
        build = build_requirements(place, found.local)
        tools = Requirements()
        if build:
            tools = compiled(work, build, target, Found(source=f"What builds {found.source}"), work)
        texts = {
            "project-requirements.txt": joined([*lines.options, *sorted(lines.packages)]),
            "git-requirements.txt": joined(sorted(lines.git)),
            "system-packages.txt": joined(system),
        }
        installed = [*texts.values()]
        texts |= {
            "build-requirements.txt": joined(sorted(tools.packages)),
            "requirements-lock.txt": kept(found, lines, target),
        }
        made = work / "made"
        made.mkdir()
        for name, text in texts.items():
            (made / name).write_text(text)
        local = [beside(found.below, without_extras(path)) for path in found.local]
        told = {
            "digest": digest(target.python, target.machine, *installed, *local),
            "local": local,
            "python": target.python,
            "source": source_of(found),
        }
        (made / "environment.json").write_text(json.dumps(told, indent=1, sort_keys=True))
        if not folder.exists():
            made.rename(folder)


def kept(found: Found, lines: Requirements, target: Target) -> str:
    """Return a lock for the project to keep, where its requirements.txt had none."""
    if found.locked or source_of(found) != "requirements.txt":
        return ""
    local = [f"-e {path}" for path in found.local]
    title = f"# of requirements.txt, for Python {target.python} on Linux {target.machine}"
    return joined([title, *lines.options, *lines.packages, *lines.git, *local])


def lock(project: Path, found: Found, target: Target, work: Path) -> Requirements:
    """Return everything that is to be installed, with hashes."""
    said = found.requirements
    if found.compiled == UV:
        words = ("export", "--frozen", "--no-header", "--no-annotate")
        exported = parsed(uv(*words, at=project, about=UV), said.options)
        return checked(exported, target, work, UV)
    if found.locked:
        return checked(said, target, work, found.source)
    if not (found.compiled or found.local or said.packages or said.git):
        return said
    # what builds a package writes beside its sources
    place = copied(project, found, work / "copy") if found.local or found.compiled else work
    wanted = [*said.options, *said.packages, *said.git]
    for path in found.local:
        plain = without_extras(path)
        address = f"{(place / plain).resolve().as_uri()}{path.removeprefix(plain)}"
        wanted.append(address if plain.endswith(ARCHIVES) else f"-e {address}")
    return compiled(work, wanted, target, found, place)


def compiled(
    work: Path, wanted: Iterable[str], target: Target, found: Found, place: Path
) -> Requirements:
    """Have uv choose versions for the target, with the hashes of every file."""
    asked, limits = work / "wanted.in", work / "constraints.in"
    asked.write_text("".join(f"{line}\n" for line in wanted))
    limits.write_text("".join(f"{line}\n" for line in found.requirements.constraints))
    # a lock that is kept is to say whether it has the extras that are asked for
    extras = "--no-strip-extras"
    words = ("pip", "compile", "--no-header", "--no-annotate", "--generate-hashes", extras)
    file = str(place / found.compiled if found.compiled else asked)
    about = found.source
    try:
        text = uv(*words, "-c", str(limits), *words_for(target), file, at=place, about=about)
    except RunnerError as error:
        # the name of a file that only this call had tells nobody anything
        said = str(error).replace(file, about).replace(asked.name, about)
        raise RunnerError(said) from error
    return parsed(text, found.requirements.options)


def parsed(text: str, options: Iterable[str]) -> Requirements:
    """Read what uv writes, but for the packages of the project."""
    found = Requirements(options=list(options))
    lines = [line for line in logical_lines(text) if not OWN.match(line)]
    read_lines(found, Path(), "uv", lines)
    found.local = []
    return found


def checked(found: Requirements, target: Target, work: Path, about: str) -> Requirements:
    """Have uv tell whether a lock is whole and for the target; it may be out of its reach.

    Raises:
        RunnerError: it is not.
    """
    asked = work / "lock.txt"
    asked.write_text(joined([*found.options, *found.packages]))
    words = ("pip", "install", "--dry-run", "--require-hashes", "--target", str(work / "none"))
    try:
        if found.packages:
            uv(*words, *words_for(target), "--requirements", str(asked), at=work, about=about)
    except RunnerError as error:
        if not UNANSWERED.search(str(error)):
            raise
    return found


def words_for(target: Target) -> tuple[str, ...]:
    """Return the words that tell uv of the target."""
    return ("--python-version", target.python, "--python-platform", target.platform)


def copied(project: Path, found: Found, to: Path) -> Path:
    """Copy what git would commit of a project, and of those beside it that it names.

    Returns:
        The project in the copy.
    """
    beside = any(path.startswith("..") for path in found.local)
    inside = try_git("rev-parse", "--show-toplevel", at=project)
    top = Path(inside) if beside and inside else project
    names = listed(top) if inside else []
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(top / name, to / name, follow_symlinks=False)
    if not names:
        shutil.copytree(top, to, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return to / project.resolve().relative_to(top.resolve())
