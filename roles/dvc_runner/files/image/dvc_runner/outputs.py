"""What the stages of a project make, as DVC itself says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError
from dvc_runner.objects import LIST, MD5, key_of, name_of

REMOTE = "platform"
PIPELINE = "dvc.yaml"
MARKER = re.compile("^(<{7}|={7}|>{7})", re.MULTILINE)


@dataclass(frozen=True)
class Output:
    """One output of a stage, or what a .dvc file tracks."""

    file: str
    """The dvc.yaml or .dvc file that names it, below the project."""
    stage: str
    """The stage as dvc.lock calls it; empty for a .dvc file."""
    path: str
    """Below the project, or absolute where it lies elsewhere."""
    inside: bool
    """It lies in the project, and no link on the way leads out of it."""
    cached: bool
    stored: bool
    """It is in the platform's remote after a run."""
    pulled: bool
    """`dvc pull` asks that remote for it, and not where it was imported from or what it names."""
    persist: bool
    md5: str
    objects: tuple[str, ...] = ()
    """Keys of what the remote holds of it where it is stored, a directory's files included."""
    metric: bool = False

    @property
    def record(self) -> str:
        """The file that holds its md5."""
        return self.file if self.file.endswith(".dvc") else str(Path(self.file).parent / "dvc.lock")


@contextmanager
def opened(project: Path) -> Iterator[Any]:
    """Open a project with DVC; what DVC says against it is a RunnerError."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 - takes a second, and not all need it
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(project)) as repo:
            yield repo
    except (DvcException, OSError) as error:
        # it names files from where this process was started
        why = " ".join(str(error).split()).replace(f"{os.path.relpath(project)}/", "")
        raise RunnerError(f"DVC at {project}: {why}{where(error)}") from error


def where(error: BaseException) -> str:
    """Say in which line a file is wrong, which DVC tells on a terminal alone."""
    mark = getattr(error.__cause__, "problem_mark", None)
    if mark is None:
        return ""
    left = MARKER.search(mark.buffer or "")
    line = mark.buffer.count("\n", 0, left.start()) if left else mark.line
    what = "a conflict that git left" if left else error.__cause__.problem  # type: ignore[union-attr]
    return f", line {line + 1}: {what}. Correct it."


def outputs_in(repo: Any) -> list[Output]:  # noqa: ANN401 - DVC ships no types
    """List the outputs of an opened project that are files, in DVC's order."""
    root = Path(repo.root_dir)
    return [output_of(out, root) for out in repo.index.outs if out.protocol == "local"]


def outputs_at(repo: Any, commit: str) -> list[Output]:  # noqa: ANN401 - as above
    """List the same of an opened project as a commit has it."""
    with repo.switch(commit):
        return outputs_in(repo)


def stages_in(repo: Any) -> set[tuple[str, str]]:  # noqa: ANN401 - as above
    """Name the stages of an opened project, each with the dvc.lock that has it."""
    root = Path(repo.root_dir)
    return {
        (str(Path(stage.path).relative_to(root).with_name("dvc.lock")), stage.name)
        for stage in repo.index.stages
        if getattr(stage, "name", "")
    }


def output_of(out: Any, root: Path) -> Output:  # noqa: ANN401 - as above
    """Describe an output of DVC's."""
    file = str(Path(out.stage.path).relative_to(root))
    place = Path(out.fs_path)
    below = bool(out.is_in_repo) and place.is_relative_to(root)
    stored = is_stored(out)
    return Output(
        file=file,
        stage=getattr(out.stage, "name", None) or "",
        path=str(place.relative_to(root) if below else place),
        inside=is_inside(out, root),
        cached=bool(out.use_cache),
        stored=stored,
        pulled=stored and out.remote in (None, REMOTE) and not out.stage.is_import,
        persist=bool(out.persist),
        md5=out.hash_info.value or "",
        objects=tuple(objects_of(out)) if stored else (),
        metric=bool(out.metric),
    )


def is_inside(out: Any, root: Path) -> bool:  # noqa: ANN401 - as above
    """Tell whether an output is in the project, and not beyond a link that leads out of it."""
    place = Path(out.fs_path)
    below = bool(out.is_in_repo) and place.is_relative_to(root)
    return below and place.parent.resolve().is_relative_to(root.resolve())


def is_stored(out: Any) -> bool:  # noqa: ANN401 - as above
    """Tell whether an output belongs in the platform's remote.

    What no stage makes here, and nothing brought here, can not be.
    """
    made = bool(out.stage.cmd) and out.exists
    return bool(
        out.use_cache
        and out.can_push
        and out.hash_info
        and ((made and not out.stage.frozen) or out.cache.exists(out.hash_info.value))
    )


def objects_of(out: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    """Name the objects of an output by their keys below the remote, as DVC lays them out."""
    from dvc.cachemgr import LEGACY_HASH_NAMES  # noqa: PLC0415 - takes a second

    place = "" if out.hash_name in LEGACY_HASH_NAMES else MD5
    names = [out.hash_info.value]
    if out.hash_info.isdir:
        names += [entry.value for _, _, entry in out.get_obj() or ()]
    yield from (key_of(name, place) for name in names)


def push_objects(project: Path, keys: Iterable[str]) -> None:
    """Store what the cache has of `keys` in the platform's remote.

    `dvc push` takes it that every file of a directory is there where the directory's list is, and
    leaves out what was imported, or is of another remote.
    """
    wanted = list(keys)
    with opened(project) as repo:
        remote = repo.cloud.get_remote(REMOTE)
        for current in (True, False):
            store = remote.odb if current else remote.legacy_odb
            cache = repo.cache.local if current else repo.cache.legacy
            named = [key for key in wanted if key.startswith(MD5) is current]
            names = [name_of(key) for key in named]
            for lists in (False, True):  # a directory's list comes after its files
                there = [
                    name for name in names if name.endswith(LIST) is lists and cache.exists(name)
                ]
                paths = [cache.oid_to_path(name) for name in there]
                if there:
                    store.add(paths, cache.fs, there, check_exists=False)


def outputs_of(project: Path) -> list[Output]:
    """List the outputs of a project, in DVC's order."""
    with opened(project) as repo:
        return outputs_in(repo)


def make_places(repo: Any) -> None:  # noqa: ANN401 - DVC ships no types
    """Make the directories that outputs of an opened project lie in.

    `dvc stage add` and an earlier run left them in a checkout; git, where they are ignored, did not
    take them along.
    """
    for out in repo.index.outs:
        if out.protocol == "local" and is_inside(out, Path(repo.root_dir)):
            with suppress(OSError):  # a stage says better what is in its way
                Path(out.fs_path).parent.mkdir(parents=True, exist_ok=True)


def ignore_in_git(project: Path) -> list[Output]:
    """Have .gitignore name every output that DVC keeps; lists the outputs.

    DVC does so when it runs a stage, and not for one that it skips after the project's own
    .gitignore came back.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - takes a second

    with opened(project) as repo:
        for out in repo.index.outs:
            if out.protocol == "local" and Path(out.fs_path).exists():
                try:
                    out.ignore()
                except DvcException:
                    continue  # the project keeps it in git itself, and says so at its next run
        return outputs_in(repo)


def left_to_git(repo: Any) -> list[Any]:  # noqa: ANN401 - DVC ships no types
    """List the outputs of an opened project that are there, and that DVC does not keep."""
    root = Path(repo.root_dir)
    local = [out for out in repo.index.outs if out.protocol == "local" and not out.use_cache]
    return [out for out in local if is_inside(out, root) and Path(out.fs_path).exists()]


def stage_named(repo: Any, name: str) -> Any:  # noqa: ANN401 - DVC ships no types
    """Return the stage of an opened project that DVC_STAGE names, wherever this is asked from.

    Raises:
        RunnerError: there is none.
    """
    file, _, short = name.rpartition(":")
    path = Path(repo.root_dir) / (file or PIPELINE)
    for stage in repo.index.stages:
        if Path(stage.path) == path and getattr(stage, "name", None) == short:
            return stage
    raise RunnerError(f"The project has no stage {name}: name one of `dvc stage list`.")


def address_of(repo: Any, stage: Any) -> str:  # noqa: ANN401 - as above
    """Return how DVC calls a stage at the top of its project, wherever this is asked from."""
    file = str(Path(stage.path).relative_to(repo.root_dir))
    return str(stage.name) if file == PIPELINE else f"{file}:{stage.name}"


def stages_called(repo: Any, name: str, pipeline: str = "") -> dict[str, Any]:  # noqa: ANN401 - as above
    """Map how DVC calls it to each stage that a request names: one, or those of a template.

    Args:
        repo: the opened project.
        name: `train`, `train@a`, or with its file, `churn/dvc.yaml:train`.
        pipeline: the dvc.yaml of a name without one.

    Raises:
        RunnerError: there is none.
    """
    stages = [stage for stage in repo.index.stages if stage.cmd and getattr(stage, "name", "")]
    known = {address_of(repo, stage): stage for stage in stages}
    wanted = name if ":" in name or pipeline in ("", PIPELINE) else f"{pipeline}:{name}"
    found = {one: stage for one, stage in known.items() if wanted in (one, one.partition("@")[0])}
    if not found:
        raise RunnerError(
            f"The project has no stage {wanted} (it has {', '.join(known) or 'none'}): name one of "
            "these, or none to run all."
        )
    return found


def behind(repo: Any, stage: Any) -> str:  # noqa: ANN401 - as above
    """Name what another stage makes for this one and would have to make anew first, or nothing.

    A stage that runs every time never is up to date.
    """
    for one in repo.stage.collect(f"{stage.path}:{stage.name}", with_deps=True):
        with repo.lock:
            why = [each for found in one.status().values() for each in found]
        if one != stage and one.cmd and why not in ([], ["always changed"]):
            return address_of(repo, one)
    return ""


def inputs_of(project: Path, stage: str) -> dict[str, str]:
    """Map each dependency of a stage, as DVC_STAGE names it, to its md5 as it lies here now."""
    with opened(project) as repo:
        return {
            below(dep, repo): dep.get_hash().value or ""
            for dep in stage_named(repo, stage).deps
            if dep.protocol == "local" and not hasattr(dep, "params") and dep.exists
        }


def below(entry: Any, repo: Any) -> str:  # noqa: ANN401 - as above
    """Spell the path of a dependency or an output below the project, or as it is elsewhere."""
    place, root = Path(entry.fs_path), Path(repo.root_dir)
    inside = entry.protocol == "local" and place.is_relative_to(root)
    return str(place.relative_to(root)) if inside else entry.fs_path


def inputs_in(repo: Any) -> dict[str, str]:  # noqa: ANN401 - DVC ships no types
    """Map what stages of an opened project read and none makes to its md5, as the lock has it."""
    made = {below(out, repo) for out in repo.index.outs}
    return {
        below(dep, repo): dep.hash_info.value
        for stage in repo.index.stages
        for dep in stage.deps
        if below(dep, repo) not in made and isinstance(dep.hash_info.value, str)
    }


def plots_in(repo: Any) -> list[str]:  # noqa: ANN401 - as above
    """Name the files and directories that an opened project's plots are drawn from."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 - as above

    names = [out.fs_path for out in repo.index.outs if out.plot and out.protocol == "local"]
    with suppress(DvcException):  # a definition that it can not read is said where plots are shown
        names += [str(Path(repo.root_dir) / name) for name in repo.index._plot_sources]
    root = Path(repo.root_dir).resolve()
    below = (Path(name).resolve() for name in names)
    return sorted({str(path.relative_to(root)) for path in below if path.is_relative_to(root)})


def shown(project: Path, kind: str) -> dict[str, Any]:
    """Return a project's files of `params` or `metrics` as DVC reads them, path to content."""
    with opened(project) as repo:
        return shown_in(repo, kind)


def shown_in(repo: Any, kind: str, commit: str = "") -> dict[str, Any]:  # noqa: ANN401 - as above
    """Return the same of an opened project as it lies here, or as a commit has it."""
    found: dict[str, Any] = getattr(repo, kind).show(revs=[commit] if commit else None)
    # asked for a commit, DVC may tell of what lies here too
    files: dict[str, Any] = found.get(commit, {}).get("data", {})
    return {path: entry["data"] for path, entry in files.items() if "data" in entry}


def always_run(project: Path) -> list[str]:
    """Name the stages that DVC runs every time: they say so, or have neither inputs nor outputs."""
    with opened(project) as repo:
        return [
            stage.addressing
            for stage in repo.index.stages
            if stage.cmd and not stage.frozen and (stage.always_changed or stage.is_callback)
        ]
