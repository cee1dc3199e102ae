"""Room: what the cache holds that no run needs which is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dvc_runner.git import git
from dvc_runner.history import REFS, runs
from dvc_runner.lock import only_run
from dvc_runner.outputs import REMOTE, opened
from dvc_runner.remote import as_remote
from dvc_runner.settings import Settings
from dvc_runner.state import read_json, write_json

MD5 = re.compile(r"md5: ([0-9a-f]{32}(?:\.dir)?)")


def prune(at: Settings, keep: int | None, remote: bool, remove: bool) -> dict[str, Any]:
    """List what no kept run needs, and remove it where that is asked for.

    Args:
        at: the settings.
        keep: how many of the last runs stay; all where it is None. The run in force stays always,
            and so does what lies in the workspace and what a run that failed had finished.
        remote: also what the remote has of the runs that do not stay.
        remove: do it; else it is only listed.

    Raises:
        RunnerError: what a kept run needs is not known.
    """
    known, state = runs(at), read_json(at.state)
    if not known:
        none = {"kept": [], "dropped": [], "cache": sizes([]), "removed": False}
        return {**none, "text": "No run has ended well here yet: nothing is removed."}
    with only_run(at), opened(at.project) as repo, as_remote(at):
        last = known if keep is None else known[max(0, len(known) - keep) :]
        kept = [run for run in known if run in last or run["run"] == state.get("run")]
        dropped = [run for run in known if run not in kept]
        stores = {id(store): store for _, store in repo.cache.by_scheme() if store}.values()
        used = needed(repo, commits(kept)) | unfinished(at, repo)
        found = {store: unused(store, used) for store in stores}
        answer: dict[str, Any] = {
            "kept": [run["number"] for run in kept],
            "dropped": [run["number"] for run in dropped],
            "cache": sizes(path for paths in found.values() for path in paths),
            "removed": remove,
        }
        far, gone = repo.cloud.get_remote(REMOTE).odb if remote else None, []
        if far:
            lost = needed(repo, commits(dropped), skip_failed=True) - used if dropped else set()
            gone = [far.oid_to_path(oid) for oid in sorted(lost) if far.exists(oid)]
            answer["remote"] = sizes(gone, far.fs)
        if remove:
            # what a broken off removal leaves is found again: runs are forgotten last
            for store, paths in [*found.items(), *([(far, gone)] if far else [])]:
                if paths:
                    store.fs.remove(paths)
            for run in dropped:
                git("update-ref", "-d", f"{REFS}/{run['number']}", at=at.project)
            write_json(at.history, {"runs": kept})
    return {**answer, "text": in_words(answer)}


def commits(kept: Iterable[dict[str, Any]]) -> list[str]:
    """Return the commits of runs."""
    return [run["commit"] for run in kept]


def needed(repo: Any, kept: list[str], skip_failed: bool = False) -> set[str]:  # noqa: ANN401 - as above
    """Name every object that the workspace and commits need, files of directories included.

    A list of a directory that the cache lost is brought from the remote; where that has it no more
    DVC refuses, unless such a commit is to be skipped.
    """
    used = {
        info.value
        for objects in repo.used_objs(revs=kept or None, skip_failed=skip_failed).values()
        for info in objects
        if info.value
    }
    for _ in repo.brancher(revs=kept or None):
        used |= {name for out in repo.index.outs if out.use_cache for name in imported(out)}
    return used


def imported(out: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    """Name the objects of what came from another repository, which DVC counts as that one's."""
    if out.stage.is_repo_import and out.hash_info:
        yield out.hash_info.value
        if out.hash_info.isdir:
            yield from (entry.value for _, _, entry in out.get_obj() or ())


def unfinished(at: Settings, repo: Any) -> set[str]:  # noqa: ANN401 - as above
    """Name the objects of stages that a run finished which did not end well."""
    found = set(MD5.findall("\n".join(read_json(at.unfinished).get("locks", {}).values())))
    for name in [name for name in found if name.endswith(".dir")]:
        path = Path(repo.cache.local.oid_to_path(name))
        if path.is_file():
            found |= set(re.findall(r'"md5": "([0-9a-f]{32})"', path.read_text()))
    return found


def unused(store: Any, used: set[str]) -> list[str]:  # noqa: ANN401 - as above
    """List the files of a cache that are not used, lists of directories first."""
    if not Path(store.path).is_dir():
        return []
    names = [name for name in store.all() if name not in used]
    return [store.oid_to_path(name) for name in sorted(names, key=lambda name: ".dir" not in name)]


def sizes(paths: Iterable[str], fs: Any = None) -> dict[str, int]:  # noqa: ANN401 - as above
    """Count files and their bytes."""
    every = [fs.size(path) if fs else Path(path).stat().st_size for path in paths]
    return {"objects": len(every), "bytes": sum(every)}


def in_words(answer: dict[str, Any]) -> str:
    """Say what goes and what stays."""
    did = "Removed" if answer["removed"] else "Would remove"
    kept = ", ".join(map(str, answer["kept"])) or "none"
    dropped = ", ".join(map(str, answer["dropped"]))
    lines = [
        f"{did} {found['objects']} objects, {found['bytes'] / 1e6:.1f} MB, of the {place}."
        for place, found in (("cache", answer["cache"]), ("remote", answer.get("remote")))
        if found
    ]
    lines += [f"{did} the commits of the runs {dropped}."] if dropped else []
    return "\n".join([*lines, f"What lies in the workspace stays, and all of the runs {kept}."])
