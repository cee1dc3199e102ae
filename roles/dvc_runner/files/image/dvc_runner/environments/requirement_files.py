"""Requirements files, as people write them."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dvc_runner.git import RunnerError

# where packages are looked for, and what kinds of them
KEPT_OPTIONS = (
    *("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index"),
    *("--pre", "--no-binary", "--only-binary", "--trusted-host"),
)
ARCHIVES = (".whl", ".zip", ".tar.gz", ".tar.bz2")
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
COMMENT = re.compile(r"(^|\s+)#.*$")
PIN = re.compile(r"===?\s*([^\s,;*]+)\s*(;|--|$)")
OPTION = re.compile(r"(-[a-z]|--[a-z-]+)[\s=]*(.*)")
COMMIT = re.compile(r"@[0-9a-f]{40}(#|\s|$)")
CONDA = re.compile(r"[\w.-]+=[^=]")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# of Debian's own pip, which freezes a package that does not exist
NO_PACKAGES = ("pkg-resources", "pkg_resources")
# names on PyPI that only ever stood for another package, and refuse to be installed now
STANDS_FOR = {"sklearn": "scikit-learn"}


@dataclass
class Requirements:
    """What one requirements file, and those that it includes, ask for."""

    packages: list[str] = field(default_factory=list)
    """From an index or a URL, each with its hashes."""
    git: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    """Folders, wheels and archives, from the project."""
    options: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """What was read, from the project."""

    @property
    def hashed(self) -> bool:
        """Every package has a hash, or a commit."""
        exact = all(COMMIT.search(line) for line in self.git)
        return bool(self.packages) and exact and all("--hash" in each for each in self.packages)

    @property
    def pinned(self) -> bool:
        """Every package is of one version."""
        return bool(self.packages) and all(is_pinned(line) for line in self.packages)


def name_of(line: str) -> str:
    """Return the name that a requirement begins with, as indexes spell it."""
    found = NAME.match(line)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def is_pinned(line: str) -> bool:
    """Tell whether a requirement takes one version alone."""
    return " @ " in line or bool(PIN.search(line))


def text_of(path: Path) -> str:
    """Read a text file in whichever encoding it was written: PowerShell writes UTF-16.

    Raises:
        RunnerError: it is no text, or is not there.
    """
    try:
        content = path.read_bytes()
        coding = next((name for bom, name in BOMS.items() if content.startswith(bom)), "utf-8")
        return content.decode(coding)
    except FileNotFoundError as error:
        raise RunnerError(f"{path} is not there: add it, or take its name out.") from error
    except UnicodeDecodeError as error:
        raise RunnerError(f"{path} is no text ({error}): save it as UTF-8.") from error


def logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of a requirements file, joined where one goes on, without comments."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if said := " ".join(COMMENT.sub("", line).split()):
            yield said


def read(project: Path, name: str) -> Requirements:
    """Read a requirements file of a project, and what it includes.

    Raises:
        RunnerError: a file is missing, or names what only another machine has.
    """
    found = Requirements()
    read_into(found, project, name)
    return found


def read_into(found: Requirements, project: Path, name: str) -> None:
    """Add what a requirements file asks for."""
    if name not in found.files:
        found.files.append(name)
        folder = os.path.dirname(name)  # noqa: PTH120 - a Path has "." for none
        read_lines(found, project, name, logical_lines(text_of(project / name)), folder)


def read_lines(
    found: Requirements, project: Path, file: str, lines: Iterable[str], folder: str = ""
) -> None:
    """Add what lines of `file` ask for, their paths being from `folder`."""
    for line in lines:
        words = OPTION.match(line)
        option, value = words.groups() if words else ("", "")
        if option in ("-r", "--requirement"):
            read_into(found, project, beside(folder, value))
        elif option in ("-c", "--constraint"):
            constraint = beside(folder, value)
            found.files.append(constraint)
            found.constraints += logical_lines(text_of(project / constraint))
        elif option in ("-e", "--editable"):
            add(found, folder, value, file)
        elif option in KEPT_OPTIONS:
            found.options.append(line)
        elif not option and name_of(line) not in NO_PACKAGES:
            add(found, folder, line, file)


def beside(folder: str, name: str) -> str:
    """Return a name that a file of a folder says, from the project."""
    return os.path.normpath(os.path.join(folder, name.strip()))  # noqa: PTH118 - as above


def add(found: Requirements, folder: str, line: str, file: str) -> None:
    """Add one requirement to those of its kind."""
    name, _, address = line.partition(" @ ")
    where = (address or line).strip()
    if where.startswith("git+"):
        found.git.append(line)
    elif where.startswith("file:///"):
        raise RunnerError(
            f"{file} asks for {name.strip()} at {where}, which only the machine has that wrote it "
            "(pip freeze does so in a conda environment): write it again with `pip list "
            "--format=freeze`."
        )
    elif CONDA.match(line):
        raise RunnerError(
            f"{file} has {line!r}, which is of conda's own list of packages: write it again with "
            "`pip list --format=freeze`."
        )
    elif is_local(where):
        path = where.removeprefix("file:").partition(";")[0].strip()
        found.local.append(beside(folder, path))
    elif name_of(line) in STANDS_FOR:
        _, marked, marker = line.partition(";")
        found.packages.append(f"{STANDS_FOR[name_of(line)]}{marked}{marker}")
    else:
        found.packages.append(line)


def is_local(where: str) -> bool:
    """Tell whether a requirement is a path of the project."""
    plain = where.partition("[")[0].partition(";")[0].strip()
    if "://" in plain or " @ " in plain:
        return False
    return (
        plain in (os.curdir, os.pardir)
        or plain.startswith("file:")
        or ("/" in plain and not plain.startswith("git+"))
        or plain.endswith(ARCHIVES)
    )


def without_extras(path: str) -> str:
    """Return the path of a local package, without the extras asked for."""
    return path.partition("[")[0]


def joined(lines: Iterable[str]) -> str:
    """Write lines as a file has them, each hash on a line of its own."""
    return "".join(f"{line}\n".replace(" --hash", " \\\n    --hash") for line in lines)
