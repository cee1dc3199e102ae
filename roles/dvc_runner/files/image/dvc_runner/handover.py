"""Data that the checkout's own cache has and the platform lacks: taken there, put in here.

Only the standard library is needed to take them, as for snapshots.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dvc_runner.git import RunnerError, git
from dvc_runner.objects import LIST, MD5, MODE, key_of
from dvc_runner.reach import files_needed, of_pipelines
from dvc_runner.remote import missing_in_remote
from dvc_runner.settings import Settings
from dvc_runner.snapshot import dvc_place

# as .dvc files and dvc.lock have them, whatever else they say
NAMED = re.compile(r"\bmd5:\s*['\"]?([0-9a-f]{32}(?:\.dir)?)\b")
FROZEN = re.compile(r"^\s+frozen:\s*true", re.MULTILINE | re.IGNORECASE)
KEY = re.compile(r"(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")


def read_config(path: Path) -> configparser.ConfigParser:
    """Read a file of DVC's settings, empty where there is none.

    Raises:
        RunnerError: it is none.
    """
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(path)
    except (configparser.Error, UnicodeDecodeError) as error:
        # what it holds may be a password
        raise RunnerError(
            f"{path} is no file of DVC's settings: write it as `dvc config` does."
        ) from error
    return config


def cache_of(project: Path) -> Path:
    """Return where the DVC of a checkout keeps its cache."""
    above = (place for place in (project, *project.parents) if (place / ".dvc").is_dir())
    own = next(above, project) / ".dvc"
    for name in ("config.local", "config"):
        place = read_config(own / name).get("cache", "dir", fallback="")
        if place:
            return own / Path(place).expanduser()
    return own / "cache"


def names_of_data(project: Path, snapshot: Mapping[str, str], pipeline: str = "") -> set[str]:
    """Return the md5s that a snapshot's .dvc files name, and those of its frozen stages.

    Of one pipeline those that it depends on: others of the repository may have much more.
    """
    here = ("--git-dir", snapshot["repository"])
    tree = git(*here, "ls-tree", "-r", "-z", "--name-only", snapshot["id"]).split("\0")
    tree = files_needed(project, pipeline, tree) if pipeline else tree
    files = [project / name for name in tree if name.endswith(".dvc")]
    pipelines = [project / name for name in tree if of_pipelines(name)]
    files += [path.with_name("dvc.lock") for path in pipelines if FROZEN.search(text_of(path))]
    return {name for path in files for name in NAMED.findall(text_of(path))}


def text_of(path: Path) -> str:
    """Read a text, empty where there is none."""
    return path.read_text(errors="replace") if path.is_file() else ""


def objects_here(project: Path, snapshot: Mapping[str, str], pipeline: str = "") -> dict[str, Path]:
    """Map what a checkout's cache has of its data, by its key in a remote, to its file."""
    names, found = names_of_data(project, snapshot, pipeline), dict[str, Path]()
    own = dvc_place(pipeline, lambda name: (project / name).is_dir())
    cache = cache_of(project / own) if names else project
    while names:
        name = names.pop()
        for key in (key_of(name), key_of(name, "")):
            if key in found or not (cache / key).is_file():
                continue
            found[key] = cache / key
            if name.endswith(LIST):
                names |= set(files_in(cache / key))
    return found


def files_in(listing: Path) -> Iterator[str]:
    """Name the objects of a directory that DVC keeps."""
    try:
        for entry in json.loads(listing.read_text()):
            yield str(entry["md5"])
    except (ValueError, KeyError, TypeError):
        return  # DVC, too, can do nothing with it


def write_objects(objects: Mapping[str, Path], target: Path) -> None:
    """Write objects as one file."""
    with tarfile.open(target, "w", dereference=True) as archive:
        for key, path in sorted(objects.items()):
            archive.add(path, key)


def lacks(at: Settings, keys: Iterable[str]) -> list[str]:
    """List those of `keys` that neither the workspace's cache nor the platform's remote has."""
    wanted = [key for key in keys if not (at.cache / key).is_file()]
    return missing_in_remote(at, wanted) if wanted else []


def put_in(at: Settings, name: str) -> None:
    """Put objects that were handed in as an input file into the workspace's cache.

    One that is not what its name says, for somebody wrote to the checkout's cache, stays out.
    """
    archive = at.inputs / name
    if not name or not archive.is_file():
        return
    with tarfile.open(archive) as objects:
        for member in objects:
            content = objects.extractfile(member) if KEY.fullmatch(member.name) else None
            target = at.cache / member.name
            if content is None or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            with content, part.open("wb") as output:
                shutil.copyfileobj(content, output)
            with part.open("rb") as written:
                md5 = hashlib.file_digest(written, "md5").hexdigest()
            # an older DVC hashed a text without its carriage returns
            if md5 in target.parent.name + target.name or not member.name.startswith(MD5):
                part.chmod(MODE)
                part.rename(target)
            else:
                part.unlink()
    archive.unlink()
