"""Data of a project: what .dvc files, imports and frozen stages name, brought to the workspace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError, without_passwords
from dvc_runner.handover import put_in
from dvc_runner.objects import key_of
from dvc_runner.outputs import REMOTE, make_places, opened
from dvc_runner.remote import as_remote
from dvc_runner.settings import Settings
from dvc_runner.ssh import NOT_TRUSTED, pin
from dvc_runner.transfer import bring, is_direct


def bring_data(
    at: Settings,
    handed: str,
    dvc: Callable[..., int],
    last_words: Callable[[], str],
    pipeline: str = "",
) -> None:
    """Bring what no stage makes here into the work tree, from wherever it is.

    That is the workspace's cache, what was handed in from the checkout's cache, the platform's
    remote, and then what the project itself names: its remotes, and where its imports come from.

    Args:
        at: the settings.
        handed: the input file of objects that were handed in, if any.
        dvc: runs DVC, which says what it does.
        last_words: what it said last.
        pipeline: the dvc.yaml that is run; empty for all of them.

    Raises:
        RunnerError: something is nowhere.
    """
    require_key(at)
    put_in(at, handed)
    with opened(at.project) as repo:
        make_places(repo)
        wanted = data_in(repo, pipeline)
        pull(at, repo, wanted)
        absent = [relative(out, at) for out in wanted if lacking([out])]
    if absent:
        dvc("fetch", *absent)
        # the answers of one that is open are kept
        with opened(at.project) as repo:
            wanted = data_in(repo, pipeline)
            for out in wanted:
                if lacking([out]) and out.stage.is_import and not out.stage.is_repo_import:
                    download(out)
            if still := [out for out in wanted if lacking([out])]:
                raise RunnerError(nowhere(at, still, last_words()))
    if wanted:
        with opened(at.project) as repo:
            repo.checkout(targets=[out.fs_path for out in wanted], force=True)


def require_key(at: Settings) -> None:
    """Have this process's DVC use the keys that were given for SSH.

    Raises:
        RunnerError: they are none.
    """
    try:
        pin(at.secrets)
    except ValueError as error:
        raise RunnerError(str(error)) from error


def data_in(repo: Any, pipeline: str = "") -> list[Any]:  # noqa: ANN401 - DVC ships no types
    """List the outputs of an opened project that DVC keeps and no stage will make.

    Of a pipeline that is named it is what it depends on, and what is in its directory: others of
    the repository may have data that can not be had.
    """
    path = Path(repo.root_dir) / pipeline
    needed = repo.stage.collect(str(path), with_deps=True) if pipeline else ()
    return [
        out
        for out in repo.index.outs
        if (not pipeline or out.stage in needed or Path(out.stage.path).is_relative_to(path.parent))
        and out.protocol == "local"
        and out.use_cache
        and (out.hash_info or out.stage.is_partial_import)
        and (out.stage.frozen or not out.stage.cmd)
    ]


def relative(out: Any, at: Settings) -> str:  # noqa: ANN401 - as above
    """Name an output as DVC's command line takes it."""
    return os.path.relpath(out.fs_path, at.project)


def lacking(outs: Iterable[Any]) -> list[Any]:
    """List the hashes of what the cache has not of some outputs."""
    from dvc_data.hashfile.hash_info import HashInfo  # noqa: PLC0415 - takes a second

    absent = []
    for out in outs:
        if not out.hash_info or not out.cache.exists(out.hash_info.value):
            absent.append(out.hash_info)
        elif out.hash_info.isdir:
            names = {entry.value for _, _, entry in out.get_obj() or ()}
            gone = names - set(out.cache.oids_exist(sorted(names)))
            absent += [HashInfo(out.hash_info.name, name) for name in sorted(gone)]
    return absent


def pull(at: Settings, repo: Any, outs: list[Any]) -> None:  # noqa: ANN401 - as above
    """Bring into the cache what it lacks and the platform's remote has.

    Raises:
        RunnerError: that refuses, or does not answer, or one of its objects is another one's.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - takes a second

    for _ in range(2):  # a directory's list, then what of its files was there before and is gone
        absent = {each for each in lacking(outs) if each}
        direct = {each for each in absent if each.name == "md5"} if is_direct(at) else set()
        cache = repo.cache.local
        bring(at, {key_of(it.value): Path(cache.oid_to_path(it.value)) for it in direct})
        if absent := absent - direct:
            try:
                with as_remote(at):
                    repo.cloud.pull(absent, remote=REMOTE)
            except (DvcException, FileNotFoundError):
                return


def download(out: Any) -> None:  # noqa: ANN401 - as above
    """Bring what was imported from an address, unless something else is there by now.

    `dvc fetch` asks for it at the remote alone.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - as above

    wanted = out.hash_info
    try:
        out.stage.deps[0].download(out)
        if wanted and out.get_hash() == wanted:
            out.save()
            out.commit()
    except (DvcException, OSError):
        return  # it is said to be missing, with the address


def nowhere(at: Settings, outs: list[Any], said: str) -> str:
    """Say what is missing, and where it was looked for."""
    out = outs[0]
    more = f" and {len(outs) - 1} more of the project's data" if len(outs) > 1 else ""
    absent = [each.value for each in lacking([out]) if each]
    file = os.path.relpath(out.stage.path, at.project)
    # so it says, too, of an import from a repository that can not be reached
    told = "" if said.startswith("Everything is up to date") else f"DVC says: {said} "
    mend = "Push it with `dvc push`, or give what that place asks for as the project's dvc_config."
    if NOT_TRUSTED.search(said):
        mend = (
            "Compare `ssh-keyscan` of that host with what its owner publishes, and set the "
            "project's remote_host_key."
        )
    return without_passwords(
        f"{relative(out, at)}{more} is not to be had: {file} names md5 {(absent or ['none'])[0]}, "
        f"which neither the checkout's cache has, nor {at.remote_url}, nor {theirs(out)}. "
        f"{told}{mend}"
    )


def theirs(out: Any) -> str:  # noqa: ANN401 - as above
    """Say where the project itself says that an output is."""
    if out.stage.is_import:
        return str(out.stage.deps[0])
    config = out.repo.config
    name = out.remote or config["core"].get("remote", REMOTE)
    if name == REMOTE:
        return "a remote of the project's own, for it has none"
    return f"its remote {name} ({config['remote'].get(name, {}).get('url', 'without a url')})"
