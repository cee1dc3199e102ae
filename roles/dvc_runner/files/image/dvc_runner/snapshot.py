"""A snapshot of a project: made where the project is, used where it runs.

Only the standard library is needed: the machine that runs Ansible makes snapshots too."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dvc_runner.git import RunnerError, forget_dead_git_locks, git, try_git
from dvc_runner.reach import MADE, READ, entries_of, of_pipelines, stages_of

# the same tree must give the same snapshot at any time
EPOCH = {"GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z"}
SNAPSHOT = "refs/heads/snapshot"
# a checkout is judged by its user's settings: line endings and filters are often set system-wide
AS_THE_USER = {"GIT_CONFIG_NOSYSTEM": "0", "GIT_OPTIONAL_LOCKS": "0"}
# an index that is kept here concerns no hook and no shared index of the checkout
PRIVATELY = tuple(
    word
    for setting in ("core.hooksPath=/dev/null", "core.splitIndex=false")
    for word in ("-c", setting)
)
# where attributes say that Git LFS keeps files; and how its pointers are written
LARGE = ("grep", "--untracked", "-l", "-e", "filter=lfs", "--", ":(top)*.gitattributes")
LARGEST_POINTER = 1024
POINTER = re.compile(
    r"^(?P<blob>[0-9a-f]{40}) blob (?P<size>\d+)\n(?P<text>version https://[^\n]+/spec/v1\n"
    r"(?:[\w.-]+ [^\n]*\n)*?oid sha256:(?P<oid>[0-9a-f]{64})\nsize \d+\n?)$",
    re.MULTILINE,
)
# what to do where a project in a directory of a repository needs what lies beside that
TAKE_ALL = (
    "which lies outside of the project's directory: name the repository as its source, and its "
    "dvc.yaml, from there, as its pipeline."
)
# filters that make files, and what says that a clone is partial
SETTINGS = r"^(filter\..*\.(smudge|process)|extensions\.partialclone|remote\..*\.promisor)$"


@dataclass(frozen=True)
class Checkout:
    """What git says of a project; names of files start at `top`."""

    project: Path
    top: Path
    objects: Path
    head: str  # empty before the first commit
    tree: str  # of the project in that commit; empty where it is not in it
    changed: list[str]
    gone: list[str]
    dirty: bool
    makers: list[str]
    lends: bool
    large: bool  # files of it are kept by Git LFS


def make_snapshot(project: Path, cache: Path, pipeline: str = "") -> dict[str, Any]:
    """Record what git would commit of `project`, as a commit without history.

    Git itself says what that is, by the settings and attributes of the checkout: a text that ends
    its lines in CRLF on this machine alone ends them in LF, a notebook has no outputs where a
    filter takes them off. With one exception: what a filter puts into a file on checkout (Git LFS,
    git-crypt) is what the snapshot holds of it, and not what git stores, for the runner has no
    filters. So the runner has the files of a fresh clone on Linux that has the filters. Attributes
    from outside of `project` count for what is taken, not for how the runner checks it out.

    A submodule is taken as it is checked out, like any directory. A pointer of Git LFS is not taken
    where its content is not: that content is.

    A directory that is in no repository, or that its repository ignores, is taken whole, but for
    what its own .gitignore names. Nothing is written to `project`; the snapshot is kept in a
    repository below `cache`, where only what changed is read again. The same files at the same
    commit give the same id.

    Where the directory of the `pipeline` that is to be run has DVC's own directory, that becomes
    the one of the whole: to DVC it is the border of what a pipeline can use.

    Returns:
        `id` of the snapshot, `repository` that holds it, `source_commit` (or "none"), and `dirty`:
        whether `git status` names a file of the project, changed or new.

    Raises:
        RunnerError: `project` is no directory or has no dvc.yaml, or one that needs files beside
            the directory, a submodule of it is not checked out, or the content of a Git LFS pointer
            is not here.
    """
    project = project.absolute()
    if not (project / "dvc.yaml").is_file() and not any(project.glob("**/dvc.yaml")):
        raise RunnerError(
            f"dvc_runner_project {project} has no dvc.yaml: name the directory of a DVC "
            "project, its git URL, or a name in dvc_runner_projects."
        )
    with kept(project, cache) as repository:
        tree, checkout = take(project, repository, cache)
        if checkout and checkout.top != project:
            require_whole(checkout, tree, repository)
        tree = with_dvc_of(pipeline, tree, repository)
        origin = {
            "source_commit": (checkout.head if checkout else "") or "none",
            "dirty": checkout.dirty if checkout else True,
        }
        commit = record(repository, tree, json.dumps(origin, sort_keys=True))
    return {"id": commit, "repository": str(repository), **origin}


def require_whole(checkout: Checkout, tree: str, repository: Path) -> None:
    """Refuse a directory of a repository whose pipelines need files beside it.

    Raises:
        RunnerError: the first of these.
    """
    project, top = checkout.project.resolve(), checkout.top.resolve()
    words = ("ls-tree", "-r", "-z", "--name-only", tree)
    for name in git("--git-dir", str(repository), *words).split("\0"):
        if not of_pipelines(name):
            continue
        for path in paths_in(project / name):
            place = Path(os.path.normpath((project / name).parent / path))
            if place.is_relative_to(top) and not place.is_relative_to(project):
                raise RunnerError(f"{name} of {checkout.project} names {path}, {TAKE_ALL}")


def paths_in(pipeline: Path) -> Iterator[str]:
    """List the paths that a dvc.yaml names, from where it is, but for what is only known later."""
    import yaml  # noqa: PLC0415 - of Ansible's own packages and of DVC's; few projects need it

    try:
        stages = [*stages_of(yaml.safe_load(pipeline.read_text()))]
    except (yaml.YAMLError, OSError, ValueError, TypeError):
        return  # DVC says it better
    for stage in stages:
        place = str(stage.get("wdir") or ".")
        for entry in () if "$" in place else entries_of(stage, (*READ, *MADE)):
            if "$" not in entry.partition("/")[0]:
                yield os.path.normpath(f"{place}/{entry}")


@contextmanager
def kept(project: Path, cache: Path) -> Iterator[Path]:
    """Hold the repository below `cache` that the snapshots of a directory are in."""
    name = hashlib.sha256(str(project.resolve()).encode()).hexdigest()[:16]
    repository = cache.resolve() / f"{name}.git"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        forget_dead_git_locks(repository)
        if not (repository / "HEAD").exists():
            git("init", "--quiet", "--bare", str(repository))
        yield repository


def take(project: Path, repository: Path, cache: Path) -> tuple[str, Checkout | None]:
    """Bring what git would commit of a directory into `repository`, its submodules' files too.

    Returns:
        The tree, and what git says of the directory.
    """
    checkout = look_at(project)
    lent, inside = [], dict[str, str]()
    for name in submodules(checkout) if checkout else ():
        with kept(project / name, cache) as other:
            inside[name], _ = take(project / name, other, cache)
        lent.append(other / "objects")
    if checkout and checkout.lends:
        lent.append(checkout.objects)
    borrowed = repository / "objects" / "info" / "alternates"
    borrowed.parent.mkdir(exist_ok=True)
    borrowed.write_text("".join(f"{place}\n" for place in lent))
    if checkout and checkout.lends:
        tree = would_commit(checkout, repository)
    else:
        tree = stage(project, repository, listed(project) if checkout else [])
    if not checkout or checkout.large:
        tree = with_content(tree, repository, project, checkout)
    return with_submodules(tree, repository, inside), checkout


def submodules(checkout: Checkout) -> list[str]:
    """Name the submodules of a project.

    Raises:
        RunnerError: one is not checked out, and its settings do not say that it need not be.
    """
    settings = checkout.top / ".gitmodules"
    if not settings.is_file():
        return []
    rows = git("ls-files", "-z", "--stage", at=checkout.project, env=AS_THE_USER).split("\0")
    names = [row.partition("\t")[2] for row in rows if row.startswith("160000 ")]
    there = [name for name in names if (checkout.project / name / ".git").exists()]
    for name in sorted({*names} - {*there}):
        words = (
            "config",
            "--file",
            str(settings),
            "--get-regexp",
            r"^submodule\..*\.update$",
            "none",
        )
        if not try_git(*words, at=checkout.project):
            raise RunnerError(
                f"Submodule {name} of {checkout.project} is not checked out: run "
                "`git submodule update --init --recursive` there."
            )
    return there


def with_submodules(tree: str, repository: Path, inside: Mapping[str, str]) -> str:
    """Return a tree with other trees at their places in it."""
    rows = []
    for name, part in inside.items():
        listed_there = git("--git-dir", str(repository), "ls-tree", "-r", "-z", part).split("\0")
        rows.append(f"0 {'0' * 40}\t{name}")
        rows += [row.replace("\t", f"\t{name}/", 1) for row in listed_there if row]
    return with_entries(tree, repository, rows)


def with_entries(tree: str, repository: Path, rows: Sequence[str]) -> str:
    """Return a tree with other entries, written as an index has them."""
    if not rows:
        return tree
    here, index = ("--git-dir", str(repository)), private_index(repository, "changed")
    git(*here, "read-tree", tree, env=index)
    git(*here, "update-index", "-z", "--index-info", env=index, given=zeros(rows))
    return git(*here, "write-tree", env=index)


def dvc_place(pipeline: str, has: Callable[[str], bool]) -> str:
    """Return the directory whose DVC settings a pipeline has; empty where that is the whole's."""
    places = [str(place) for place in PurePosixPath(pipeline).parents if str(place) != "."]
    return next((place for place in places if has(f"{place}/.dvc")), "")


def with_dvc_of(pipeline: str, tree: str, repository: Path) -> str:
    """Return a tree whose DVC settings are those of a pipeline's directory, where it has some."""
    here = ("--git-dir", str(repository))
    own = dvc_place(pipeline, lambda name: bool(git(*here, "ls-tree", tree, "--", name)))
    if not own:
        return tree
    gone, moved = [], []
    listing = ("ls-tree", "-r", "-z", tree, "--", ".dvc", f"{own}/.dvc")
    for row in git(*here, *listing).split("\0"):
        about, _, name = row.partition("\t")
        gone += [f"0 {'0' * 40}\t{name}"] if name else []
        if name.startswith(f"{own}/"):
            mode, _, blob = about.split(" ")
            moved.append(f"{mode} {blob}\t{name.removeprefix(f'{own}/')}")
    return with_entries(tree, repository, [*gone, *moved])


def with_content(tree: str, repository: Path, project: Path, checkout: Checkout | None) -> str:
    """Return a tree with what Git LFS keeps in place of its pointers.

    Raises:
        RunnerError: the content of one is not on this machine.
    """
    here = ("--git-dir", str(repository))
    store = checkout.objects.parent / "lfs" / "objects" if checkout else project / ".git"
    entries, missing = [], []
    for name, (mode, oid) in pointers(tree, repository).items():
        content = store / oid[:2] / oid[2:4] / oid
        if content.is_file():
            blob = git(*here, "hash-object", "-w", "--no-filters", str(content))
            entries.append(f"{mode} {blob}\t{name}")
        else:
            missing.append(name)
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        first = "" if shutil.which("git-lfs") else "install git-lfs (Debian: git-lfs), then "
        raise RunnerError(
            f"{missing[0]}{more} of {project} are pointers of Git LFS, and their content is not on "
            f"this machine: {first}run `git lfs pull` there, or name its git URL as the source."
        )
    return with_entries(tree, repository, entries)


def pointers(tree: str, repository: Path) -> dict[str, tuple[str, str]]:
    """Map the files of a tree that are pointers of Git LFS to their mode and what they point at."""
    here = ("--git-dir", str(repository))
    small = dict[str, list[tuple[str, str]]]()
    for row in git(*here, "ls-tree", "-r", "-l", "-z", tree).split("\0"):
        about, _, name = row.partition("\t")
        fields = about.split()
        if fields and fields[1] == "blob" and int(fields[3]) < LARGEST_POINTER:
            small.setdefault(fields[2], []).append((name, fields[0]))
    said = git(*here, "cat-file", "--batch", given="".join(f"{blob}\n" for blob in small))
    return {
        name: (mode, found["oid"])
        for found in POINTER.finditer(said)
        if int(found["size"]) - len(found["text"]) in (0, 1)  # git's last line end is not kept
        for name, mode in small[found["blob"]]
    }


def record(repository: Path, tree: str, note: str) -> str:
    """Commit the tree and name it SNAPSHOT; returns the commit, which is the same for the same."""
    last = repository / "last"
    made_of = f"{tree}\n{note}\n"
    known = last.read_text() if last.exists() else ""
    if known.startswith(made_of):
        return known.removeprefix(made_of)
    commit = git("--git-dir", str(repository), "commit-tree", tree, "-m", note, env=EPOCH)
    git("--git-dir", str(repository), "update-ref", SNAPSHOT, commit)
    part = last.with_suffix(".part")
    part.write_text(f"{made_of}{commit}")
    part.replace(last)
    return commit


def look_at(project: Path) -> Checkout | None:
    """Ask git about `project`; None where it is in no repository, or is ignored there."""
    layout = ("--show-object-format", "--show-cdup", "--git-path", "objects")
    with ThreadPoolExecutor() as side:  # three questions of one length, and none waits for another
        status = side.submit(
            git,
            *("status", "--porcelain=v2", "--branch", "-z", "--no-renames"),
            *("--untracked-files=all", "--", "."),
            at=project,
            env=AS_THE_USER,
        )
        asked = side.submit(user_settings, project)
        large = side.submit(try_git, *LARGE, at=project)
        answer = try_git("rev-parse", *layout, "--revs-only", "HEAD:./", at=project).split("\n")
    if len(answer) == 1:
        return None
    kind, up, objects, *tree = answer
    said, settings = status.result().split("\0"), asked.result()
    head = next((row.split(" ")[2] for row in said if row.startswith("# branch.oid ")), "")
    head = "" if head == "(initial)" else head
    entries = [row for row in said if row and not row.startswith("# ")]
    if not tree and not entries:
        return None
    changed, gone = differing(entries)
    return Checkout(
        project=project,
        top=project / up,
        objects=(project / objects).resolve(),
        head=head,
        tree="".join(tree),
        changed=changed,
        gone=gone,
        dirty=bool(entries),
        makers=makers(settings),
        # a partial clone would ask its remote for what is missing
        lends=kind == "sha1" and all(key.startswith("filter.") for key in settings),
        large=bool(large.result()),
    )


def differing(entries: Iterable[str]) -> tuple[list[str], list[str]]:
    """Read `git status`: the files that differ from the commit, and those that are not in it now.

    A submodule, and a repository that is no submodule, is no file.
    """
    changed, gone = [], set[str]()
    for entry in entries:
        mark, _, rest = entry.partition(" ")
        if mark == "?":
            if not rest.endswith("/"):
                changed.append(rest)
            continue
        fields = rest.split(" ", 7 if mark == "1" else 9)
        if fields[1].startswith("S"):
            continue
        if mark == "1" and "D" in fields[0]:
            gone.add(fields[-1])
        else:
            changed.append(fields[-1])
    return changed, sorted(gone - set(changed))  # untracked, yet still there


def user_settings(at: Path) -> dict[str, str]:
    """Return the settings of git that decide how a checkout is read."""
    try:
        said = git("config", "-z", "--get-regexp", SETTINGS, at=at, env=AS_THE_USER)
    except RunnerError:  # there are none
        return {}
    return dict(row.partition("\n")[::2] for row in said.split("\0") if row)


def makers(settings: Mapping[str, str]) -> list[str]:
    """Name the filters that put something into a file on checkout."""
    made = {
        key.removeprefix("filter.").rpartition(".")[0]
        for key, command in settings.items()
        if key.startswith("filter.") and command not in ("", "cat")
    }
    return sorted(name for name in made if re.fullmatch(r"[\w-]+", name))


def without(filters: Iterable[str]) -> list[str]:
    """Return the words that let git read files as they are, whatever these filters would do."""
    off = ("clean=", "process=", "required=false")
    return [word for name in filters for key in off for word in ("-c", f"filter.{name}.{key}")]


def would_commit(checkout: Checkout, repository: Path) -> str:
    """Return the tree that git would commit, with what filters made as it is here.

    What git finds unchanged is not read again, but borrowed from the checkout's own objects.
    """
    made = made_by_filters(checkout, repository)
    if checkout.tree and not checkout.dirty and not made:
        return checkout.tree
    base = repository / f"base-{checkout.head or 'none'}"
    if not base.exists():
        for old in repository.glob("base-*"):
            old.unlink()
        words = ("read-tree", checkout.head or "--empty")
        git(*PRIVATELY, *words, at=checkout.top, env=private_index(repository, base.name))
    index = private_index(repository, "checkout")
    shutil.copyfile(base, repository / "checkout")
    update(checkout, index, changed=checkout.changed, gone=checkout.gone)
    if made:
        entries = (*PRIVATELY, "update-index", "-z", "--index-info")
        git(*entries, at=checkout.top, env=index, given=made)
    tree = git(*PRIVATELY, "write-tree", "--missing-ok", at=checkout.top, env=index)
    if checkout.top == checkout.project:
        return tree
    return git("rev-parse", f"{tree}:./", at=checkout.project, env=index)


def made_by_filters(checkout: Checkout, repository: Path) -> str:
    """Return entries of an index: the files that a filter made, with the content they have here."""
    if not checkout.makers:
        return ""
    which = [f":(attr:filter={name})" for name in checkout.makers]
    listing = ("ls-files", "-z", "--full-name", "--", *which)
    names = set(git(*listing, at=checkout.project, env=AS_THE_USER).split("\0")) - {""}
    index = private_index(repository, "filtered")
    if names:
        update(checkout, index, changed=sorted(names), gone=())
    elif not Path(index["GIT_INDEX_FILE"]).exists():
        return ""
    staged = git("ls-files", "-z", "--stage", at=checkout.top, env=index).split("\0")
    return zeros(row for row in staged if row.partition("\t")[2] in names)


def private_index(repository: Path, name: str) -> dict[str, str]:
    """Return the environment in which git works in a checkout and writes to `repository`."""
    return {
        **AS_THE_USER,
        "GIT_INDEX_FILE": str(repository / name),
        "GIT_OBJECT_DIRECTORY": str(repository / "objects"),
    }


def update(
    checkout: Checkout, index: Mapping[str, str], changed: Sequence[str], gone: Sequence[str]
) -> None:
    """Bring an index to what is in the work tree."""
    for names, words in (
        (gone, ("--force-remove",)),
        (changed, ("--add", "--remove", "--replace")),
    ):
        if names:
            asked = (*PRIVATELY, *without(checkout.makers), "update-index", "-z", *words, "--stdin")
            git(*asked, at=checkout.top, env=index, given=zeros(names))


def listed(project: Path) -> list[str]:
    """List what git would commit of `project`."""
    kinds = ("--cached", "--others", "--exclude-standard")
    names = git("ls-files", "-z", *kinds, at=project, env=AS_THE_USER).split("\0")
    return [name for name in names if (project / name).is_file() or (project / name).is_symlink()]


def stage(project: Path, repository: Path, paths: list[str]) -> str:
    """Put `paths`, or all where there are none, as they are into the index; returns the tree."""
    filters = without(makers(user_settings(project)))
    here = (*filters, "--git-dir", str(repository), "--work-tree", str(project))
    if paths:
        gone = set(git(*here, "ls-files", "-z", at=project).split("\0")) - {"", *paths}
        git(*here, "update-index", "-z", "--force-remove", "--stdin", at=project, given=zeros(gone))
        git(*here, "update-index", "-z", "--add", "--stdin", at=project, given=zeros(paths))
    else:
        git(*here, "add", "--all", ".", at=project)
    return git(*here, "write-tree", at=project)


def zeros(names: Iterable[str]) -> str:
    """Join names as git reads them with -z."""
    return "".join(f"{name}\0" for name in names)


def write_bundle(snapshot: Mapping[str, Any], target: Path) -> None:
    """Write the snapshot `id` of a `repository` as one file that git can fetch from."""
    repository = Path(snapshot["repository"])
    here = ("--git-dir", str(repository))
    with repository.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # another one may have been made since
        git(*here, "update-ref", SNAPSHOT, snapshot["id"])
        git(*here, "bundle", "create", "--quiet", str(target), SNAPSHOT)
