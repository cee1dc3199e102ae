"""What the last run left for a checkout: which files there are, and their bytes piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from dvc_runner.git import RunnerError
from dvc_runner.installed import LOCK, own_lock
from dvc_runner.lock import is_running
from dvc_runner.objects import MD5, key_of
from dvc_runner.outputs import is_inside, opened
from dvc_runner.overrides import names_of
from dvc_runner.parameters import values
from dvc_runner.settings import Settings
from dvc_runner.state import locks, read_json

CHUNK = 1 << 20


def require_ended(at: Settings) -> None:
    """Raise RunnerError where what lies in the workspace is not a run that ended well."""
    state = read_json(at.state)
    if state.get("done"):
        return
    if is_running(at):
        raise RunnerError(
            f"A run of project {at.name} is under way: wait for its end (`make status` tells), "
            "then save."
        )
    if state.get("good") or at.unfinished.exists():
        raise RunnerError(
            f"The last run of project {at.name} is unfinished, so nothing was saved: "
            "`make pipeline`, or a request to the API without `stage`, ends it."
        )
    raise RunnerError("There is no run to save yet: run the pipeline first.")


def results(at: Settings) -> dict[str, Any]:
    """Describe each dvc.lock, every output inside the project and the logs of the last run.

    A lock of the environment that was made here is among them too: a project that keeps it has the
    same packages on every machine.

    Returns:
        `files`: for each name below the project `size` in bytes, `md5`, and `at`, where `read`
        finds it. `cached`: the outputs that DVC keeps, which git is to ignore. `params`: what
        the run was given of the project's parameters, `file:key` to value.

    Raises:
        RunnerError: no run has ended well here, or one is under way or unfinished.
    """
    require_ended(at)
    if not (names := locks(at)):
        raise RunnerError("There is no run to save yet: run the pipeline first.")
    with opened(at.project) as repo:
        outs = outputs_inside(repo)
        cached = sorted(name for name, out in outs.items() if out.use_cache)
        found = dict(outputs_of_run(at, outs))
    found |= {name: (path, "") for name, path in below(at.project / "logs", "logs")}
    found |= {name: (at.project / name, "") for name in names}
    if own_lock(at):
        found[LOCK] = (at.image / LOCK, "")
    files = {
        name: {"size": path.stat().st_size, "md5": md5 or md5_of(path), "at": str(path)}
        for name, (path, md5) in sorted(found.items())
    }
    state = read_json(at.state)
    given = [*(state.get("params") or {}), *names_of(state.get("set") or ())]
    return {"files": files, "cached": cached, "params": values(at.project, given)}


def outputs_inside(repo: Any) -> dict[str, Any]:  # noqa: ANN401 - DVC ships no types
    """Map its name below the project to each output of an opened one that lies inside."""
    root = Path(repo.root_dir)
    outs = [out for out in repo.index.outs if out.protocol == "local" and is_inside(out, root)]
    return {str(Path(out.fs_path).relative_to(root)): out for out in outs}


def outputs_of_run(at: Settings, outs: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Path, str]]]:
    """List the files of the outputs: where one lies, and its md5 where it is in the cache."""
    from dvc.cachemgr import LEGACY_HASH_NAMES  # noqa: PLC0415 - takes a second

    for name, out in outs.items():
        lying = {where: (path, "") for where, path in below(Path(out.fs_path), name)}
        if out.use_cache and out.hash_info and out.hash_name not in LEGACY_HASH_NAMES:
            lying |= {
                where: (at.cache / key_of(md5, MD5), md5)
                for where, md5 in hashed(out, name)
                if (at.cache / key_of(md5, MD5)).is_file()
            }
        yield from lying.items()


def hashed(out: Any, name: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - DVC ships no types
    """List the files of an output, each with its md5, those of a directory by its list."""
    if not out.hash_info.isdir:
        yield name, str(out.hash_info.value)
        return
    for key, _, entry in out.get_obj() or ():
        yield "/".join((name, *key)), str(entry.value)


def below(place: Path, name: str) -> Iterator[tuple[str, Path]]:
    """List a file, or those of a directory, by their names; a link may lead out of the project."""
    paths = sorted(place.rglob("*")) if place.is_dir() and not place.is_symlink() else [place]
    for path in paths:
        if path.is_file() and not path.is_symlink():
            yield str(Path(name, path.relative_to(place))), path


def md5_of(path: Path) -> str:
    """Return the md5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def read(pieces: Iterable[tuple[str, int, int]], output: BinaryIO) -> None:
    """Write pieces of files one after the other: a path, where to begin, how many bytes.

    Raises:
        RunnerError: a file is gone, or shorter than it was.
    """
    for path, offset, length in pieces:
        left = length
        try:
            with Path(path).open("rb") as file:
                file.seek(offset)
                while left and (part := file.read(min(left, CHUNK))):
                    output.write(part)
                    left -= len(part)
        except FileNotFoundError:
            left = -1
        if left:
            raise RunnerError(f"{path} has changed since it was looked at: save again.")
    output.flush()
