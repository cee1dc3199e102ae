"""Bring the results of the last run from the runner into a project, owned by its owner."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent))
# Ansible loads plugins by file, not by package
from dvc_pipeline import RunnerAction, explained, runner, told

from dvc_runner.git import RunnerError, git, try_git, without_passwords
from dvc_runner.snapshot import AS_THE_USER

# a directory in the checkout, on whose file system the last step is a rename
ASIDE = ".dvc-results"
PIECE = 128 << 20  # bytes that are on their way at once
CHUNK = 1 << 20
# what means more than itself in a rule of .gitignore
SPECIAL = re.compile(r"[\\\[\]!*#?]")
CHANGED = (
    "The results were changed while they were saved, and the checkout is as it was: save again."
)


class ActionModule(RunnerAction):
    """Arguments: projects (as the filter dvc_runner_listed returns them)."""

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        written: dict[str, list[str]] = {}
        errors: dict[str, str] = {}
        for one in self._task.args["projects"]:
            try:
                written[one["name"]] = self._save(one)
            except AnsibleActionFail as error:
                errors[one["name"]] = str(error)
            except OSError as error:
                errors[one["name"]] = f"{one['source']} can not be written: {error}."
        if errors:
            also = f" Saved: {', '.join(written)}." if written else ""
            raise AnsibleActionFail(f"{told(errors)}{also}")
        return result | {"changed": any(written.values()), "written": written}

    def _save(self, one: Mapping[str, Any]) -> list[str]:
        """Save one project's results; returns the names of files that were written."""
        project = Path(one["source"]).expanduser()
        if one.get("ref") or not project.is_dir():
            at = f" at {one['ref']}" if one.get("ref") else ""
            raise AnsibleActionFail(
                f"{one['name']} is taken from {without_passwords(one['source'])}{at}, which is no "
                "checkout here: "
                "results can be saved into a checkout only."
            )
        project = (project / str(one.get("subdirectory") or "")).absolute()
        answer = self._results(one["container"])
        found = answer["files"]
        if others := otherwise(answer.get("params", {}), project):
            Display().warning(
                f"{one['name']}: what is saved is of a run that had {', '.join(others)}. Its "
                "dvc.lock and metrics do not fit this checkout: set them so here, or run again "
                "without them and save that."
            )
        names = differing(found, project)
        # a runner of an earlier release names none
        rules = rules_for(answer.get("cached", []), found, project)
        written = [*rules, *names]
        if self._task.check_mode or not (written or (project / ASIDE).exists()):
            return written
        with aside_in(project) as aside:
            require_room(project, sum(found[name]["size"] for name in names))
            parts = {name: aside / str(number) for number, name in enumerate(names)}
            self._bring(one["container"], {name: found[name] for name in names}, parts)
            for number, (name, text) in enumerate(rules.items()):
                part = aside / f"rules{number}"
                part.write_text(text, errors="surrogateescape")
                place(part, project, name)
            # a lock never names what has not come
            for name in sorted(names, key=lambda name: Path(name).name == "dvc.lock"):
                place(parts[name], project, name)
        return written

    def _results(self, container: str) -> dict[str, Any]:
        """Return what there is to save, as the runner in a container describes it."""
        try:
            return self._ask(container, "results")
        except AnsibleActionFail as error:
            if "invalid choice: 'results'" not in str(error):
                raise
            raise AnsibleActionFail(
                f"{container} is of an earlier release of the platform: `make up`, then save."
            ) from error

    def _bring(
        self, container: str, found: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Path]
    ) -> None:
        """Write each file of `found` to its part.

        Raises:
            AnsibleActionFail: one did not come as it was described.
        """
        digests = {name: hashlib.md5(usedforsecurity=False) for name in found}
        sizes = {name: int(row["size"]) for name, row in found.items()}
        for batch in batches(sizes, PIECE):
            pieces = [(found[name]["at"], offset, size) for name, offset, size in batch]
            piece = self._fetch(container, pieces, next(iter(parts.values())).parent / "piece")
            with piece.open("rb") as source:
                for name, _, size in batch:
                    append(source, size, parts[name], digests[name])
            piece.unlink()
        for name, digest in digests.items():
            if digest.hexdigest() != found[name]["md5"]:
                raise AnsibleActionFail(f"{name}: {CHANGED}")

    def _fetch(self, container: str, pieces: list[tuple[str, int, int]], piece: Path) -> Path:
        """Have the runner write pieces of files one after the other, and bring them to a file."""
        piece.touch(mode=0o600)
        # the host's own superuser can write where this is; anyone else, and another host, can not
        direct = self._connection.transport == "local" and self._become_user() in (None, "root")
        remote = str(piece)
        if not direct:
            self._make_tmp_path()
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "piece")
        command = shlex.join([*runner(container, "-i"), "read"])
        given = f"{json.dumps({'pieces': pieces})}\n".encode()
        reply = self._on_host(f"{command} > {shlex.quote(remote)}", given)
        if reply["rc"]:
            raise AnsibleActionFail(explained(container, reply["stderr"].strip()))
        if not direct:
            self._fixup_perms2([self._connection._shell.tmpdir, remote], execute=False)
            self._connection.fetch_file(remote, str(piece))
            self._remove_tmp_path(self._connection._shell.tmpdir)
            self._connection._shell.tmpdir = None
        return piece

    def _become_user(self) -> str | None:
        """Return who commands are carried out as, None for whoever is connected."""
        become = self._connection.become
        return str(become.get_option("become_user") or "root") if become else None


def differing(found: Mapping[str, Mapping[str, Any]], project: Path) -> list[str]:
    """List the files of `found` that `project` has not, or has with another content.

    Raises:
        AnsibleActionFail: a name leads out of the project, or into git's own directory.
    """
    for name in found:
        path = PurePosixPath(name)
        if path.is_absolute() or {"..", ".git"} & {*path.parts}:
            raise AnsibleActionFail(
                f"The results hold {name!r}, which lies outside of a project: nothing "
                "was saved. See what the pipeline's outputs are."
            )
    return [name for name, row in sorted(found.items()) if not has(project / name, row)]


def has(path: Path, row: Mapping[str, Any]) -> bool:
    """Tell whether a file is as it is described; of another size it need not be read."""
    if not path.is_file() or path.stat().st_size != row["size"]:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == str(row["md5"])


def otherwise(params: Mapping[str, Any], project: Path) -> list[str]:
    """List the parameters (`file:key` to value) that a checkout has not, or with another value.

    Those of Python files are passed over: they would have to be run to be known.
    """
    found = []
    for name, value in params.items():
        file, _, key = name.rpartition(":")
        read = {".toml": tomllib.loads, ".py": None}.get(Path(file).suffix, yaml.safe_load)
        if not read:
            continue
        try:
            here: Any = read(text_of(project / file))
            for part in key.split("."):
                here = here[part]
        except (KeyError, TypeError, ValueError, yaml.YAMLError):
            here = None
        # PyYAML takes 1e-3 for text
        if here != value and str(value) not in (here, as_number(here)):
            shown = f"here {here}" if here is not None else "not here"
            said = f"{name.removeprefix('params.yaml:')}={value} ({shown})"
            found.append(without_passwords(said))
    return found


def as_number(text: object) -> str:
    """Spell a number that was written as text as Python does; empty where it is none."""
    try:
        return str(float(text)) if isinstance(text, str) else ""
    except ValueError:
        return ""


def rules_for(outputs: Iterable[str], found: Iterable[str], project: Path) -> dict[str, str]:
    """Have git leave to DVC what DVC keeps, as `dvc repro` in the checkout would.

    Args:
        outputs: files and directories of a run that DVC keeps.
        found: the files that are saved; an output that none is of needs no rule.
        project: the checkout.

    Returns:
        Each .gitignore that lacks one, with its new text.
    """
    files = {
        output: [name for name in found if name == output or name.startswith(f"{output}/")]
        for output in outputs
    }
    ignored = ignored_in(project, [name for names in files.values() for name in names])
    texts: dict[str, str] = {}
    for output, names in sorted(files.items()):
        if ignored.issuperset(names):
            continue
        path = PurePosixPath(output)
        file, rule = str(path.parent / ".gitignore"), SPECIAL.sub(r"\\\g<0>", f"/{path.name}")
        text = texts[file] if file in texts else text_of(project / file)
        if rule not in text.splitlines():
            texts[file] = "\n".join((*text.splitlines(), rule, ""))
    return texts


def ignored_in(project: Path, names: Iterable[str]) -> set[str]:
    """Return those of a project's files that git ignores, also where it has them already.

    In no repository, or where that ignores the project as a whole, a run takes all but what the
    project's own .gitignore names: none is ignored then.
    """
    if try_git("check-ignore", "--no-index", str(project), at=project):
        return set()
    words = ("check-ignore", "--no-index", "--stdin", "-z")
    try:
        said = git(*words, at=project, env=AS_THE_USER, given="".join(f"{it}\0" for it in names))
    except RunnerError:  # so git says, too, that it ignores none
        return set()
    return {*said.split("\0")}


def text_of(path: Path) -> str:
    """Read a file, empty where there is none."""
    return path.read_text(errors="surrogateescape") if path.is_file() else ""


def batches(sizes: Mapping[str, int], most: int) -> Iterator[list[tuple[str, int, int]]]:
    """Cut files into pieces, and put these together to at most `most` bytes.

    Yields:
        Pieces in the order of the files: name, where it begins, how many bytes.
    """
    batch: list[tuple[str, int, int]] = []
    room = most
    for name, size in sizes.items():
        offset = 0
        while True:
            length = min(size - offset, room)
            batch.append((name, offset, length))
            offset, room = offset + length, room - length
            if not room:
                yield batch
                batch, room = [], most
            if offset == size:
                break
    if batch:
        yield batch


def append(source: Any, size: int, part: Path, digest: Any) -> None:  # noqa: ANN401 - a file, a hash
    """Append the next `size` bytes of a file to a part, and to its hash."""
    with part.open("ab") as output:
        while size and (content := source.read(min(size, CHUNK))):
            output.write(content)
            digest.update(content)
            size -= len(content)


@contextmanager
def aside_in(project: Path) -> Iterator[Path]:
    """Hold a directory in a project that git ignores; what a killed save left there is removed.

    Raises:
        AnsibleActionFail: another save holds it.
    """
    aside = project / ASIDE
    aside.mkdir(mode=0o700, exist_ok=True)
    with (aside / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnsibleActionFail(
                f"Another save into {project} is under way: wait for its end."
            ) from None
        for old in aside.iterdir():
            if old.name != "lock":
                old.unlink()
        (aside / ".gitignore").write_text("*\n")
        try:
            yield aside
        finally:
            shutil.rmtree(aside)


def require_room(project: Path, size: int) -> None:
    """Raise AnsibleActionFail where a project's file system has not so many bytes, and a piece."""
    wanted, free = size + min(size, PIECE), shutil.disk_usage(project).free
    if wanted > free:
        raise AnsibleActionFail(
            f"Saving needs {wanted / 1e6:.0f} MB at {project}, which has {free / 1e6:.0f} MB free: "
            "make room, and save again."
        )


def place(part: Path, project: Path, name: str) -> None:
    """Move one file into the project, it and new directories owned by the project's owner."""
    owner = project.stat()
    target = project / name
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    if part.stat().st_dev != target.parent.stat().st_dev:
        part = Path(shutil.copyfile(part, target.with_name(f".{target.name}.part")))
    part.chmod(0o644)
    for path in (part, *missing):
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
    part.rename(target)
