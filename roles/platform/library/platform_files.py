"""Write every file of a project in one call, and remove those that are no longer wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_files
short_description: Make a directory hold exactly these files
description:
  - Writes each file that differs, with its mode and owner, by a rename, so none is ever half.
  - Every directory on the way to one may be entered by all, whatever the umask.
  - Removes files below O(owned) that are not listed.
  - Makes the folders that are absent; one that is there stays as it is, whoever's it is.
options:
  directory: {description: Directory that every path is relative to., type: path, required: true}
  files:
    description: Files that a diff may show, each with C(path), C(content), C(mode), C(owner) (uid).
    type: list
    elements: dict
    default: []
  secrets:
    description: The same, with content that is never shown.
    type: list
    elements: dict
    default: []
  marked:
    description: >-
      Paths of files whose first line says who wrote them. One that is there with another first line
      is somebody else's, and refused.
    type: list
    elements: str
    default: []
  owned:
    description: Directories below O(directory) in which nothing but the listed files may stay.
    type: list
    elements: str
    default: []
  folders:
    description: >-
      Folders anywhere, each with C(path) and C(owner) (uid): an absent one is made with mode 0750.
    type: list
    elements: dict
    default: []
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.docker_module import QuietModule

OPEN = 0o755
FOLDER = 0o750
Diff = dict[str, str]
State = tuple[str, int, int]  # content, mode and owner of a file
HIDDEN = "(secret, {} characters)\n"


def state_of(path: Path) -> State | None:
    """Return how a file is, or None where there is none."""
    try:
        content, status = path.read_bytes().decode(errors="replace"), path.stat()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return content, status.st_mode & 0o7777, status.st_uid


def wanted_state(entry: dict[str, Any]) -> State:
    """Return how `entry` asks a file to be."""
    return entry["content"], int(entry["mode"], 8), int(entry["owner"])


def is_foreign(before: State | None, after: State) -> bool:
    """Tell whether a file that is there does not begin with the line that ours begins with."""
    return before is not None and before[0].partition("\n")[0] != after[0].partition("\n")[0]


def write(path: Path, content: str, mode: int, owner: int) -> None:
    """Put a file in place by a rename: its content is never readable by another than `owner`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for killed in path.parent.glob(f".{path.name}.*"):
        killed.unlink()  # what a run that was killed here left
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as output:
            output.write(content)
            output.flush()
            os.fsync(output.fileno())
        os.chown(temporary, owner, owner)
        temporary.chmod(mode)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_ways(directory: Path, paths: Iterable[str], check_mode: bool) -> list[str]:
    """Let everybody enter the directories on the way to `paths`; list those that some could not."""
    ways = {directory, *(parent for path in paths for parent in (directory / path).parents)}
    within = sorted(way for way in ways if way.is_relative_to(directory) and way.is_dir())
    closed = [way for way in within if way.stat().st_mode & OPEN != OPEN]
    for way in closed if not check_mode else []:
        way.chmod(OPEN)
    return [str(way.relative_to(directory)) for way in closed]


def describe(state: State | None, secret: bool) -> str:
    """Return what a diff shows of a file."""
    if state is None:
        return ""
    content, mode, owner = state
    shown = HIDDEN.format(len(content)) if secret else content
    return f"# mode {mode:04o}, owner {owner}\n{shown}"


def difference(path: Path, before: State | None, after: State | None, secret: bool) -> Diff:
    """Return one file's part of the diff; a secret's content is never in it."""
    left, right = describe(before, secret), describe(after, secret)
    if secret and before and after and before[0] != after[0]:
        right += "(the content differs)\n"
    return {"before_header": str(path), "after_header": str(path), "before": left, "after": right}


def unlisted(directory: Path, owned: list[str], listed: Iterable[str]) -> list[str]:
    """List the files below the owned directories that are not `listed`."""
    below = [path for name in owned for path in (directory / name).rglob("*") if not path.is_dir()]
    return sorted({str(path.relative_to(directory)) for path in below} - {*listed})


def remove(directory: Path, owned: list[str], names: list[str]) -> None:
    """Remove files, and directories that hold nothing any more."""
    for name in names:
        (directory / name).unlink()
    for name in owned:
        for path in sorted((directory / name).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def make(folder: Path, owner: int) -> None:
    """Make a folder by a rename, so none of another owner than `owner` is ever left there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.made")
    temporary.mkdir(mode=0o700, exist_ok=True)  # a run that was killed here left it
    temporary.chmod(FOLDER)
    os.chown(temporary, owner, owner)
    temporary.rename(folder)


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "default": []},
            # no_log here would hide every value in it from every message, file names included;
            # the task is under no_log where it holds any
            "secrets": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "marked": {"type": "list", "elements": "str", "default": []},
            "owned": {"type": "list", "elements": "str", "default": []},
            "folders": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    params, check_mode = module.params, module.check_mode
    directory, owned = Path(params["directory"]), params["owned"]
    hidden = {entry["path"]: entry["content"] for entry in params["secrets"]}
    module.no_log_values.update(hidden.values())
    wanted = {entry["path"]: wanted_state(entry) for entry in params["files"] + params["secrets"]}
    os.umask(0o777 - OPEN)
    written = open_ways(directory, wanted, check_mode)
    # first, for a file may have become a directory of files, or the reverse
    removed = unlisted(directory, owned, wanted)
    left = [(directory / name, "/secrets/" in name) for name in removed]
    diff = [difference(path, state_of(path), None, secret) for path, secret in left]
    if removed and not check_mode:
        remove(directory, owned, removed)
    for name, after in wanted.items():
        path = directory / name
        before = state_of(path)
        if before == after:
            continue
        if name in params["marked"] and is_foreign(before, after):
            module.fail_json(
                msg=f"{path} was not written by this platform: move it away, or give this platform "
                "another name with `make new NAME=...`."
            )
        written.append(name)
        diff.append(difference(path, before, after, name in hidden))
        if check_mode:
            continue
        try:
            write(path, *after)
        except OSError as error:
            module.fail_json(
                msg=f"{path} cannot be written ({error.strerror}, errno {error.errno}): free the "
                "disk or mend its permissions and run again; the files before it are in place."
            )
    absent = {Path(each["path"]): int(each["owner"]) for each in params["folders"]}
    absent = {folder: owner for folder, owner in absent.items() if not folder.exists()}
    for folder, owner in absent.items():
        made = f"# a folder, mode {FOLDER:04o}, owner {owner}\n"
        header = {"before_header": str(folder), "after_header": str(folder)}
        diff.append({**header, "before": "", "after": made})
        if check_mode:
            continue
        try:
            make(folder, owner)
        except OSError as error:
            module.fail_json(
                msg=f"{folder} cannot be made ({error.strerror}, errno {error.errno}): make it "
                f"yourself, so that uid {owner} may write to it, or name another, and run again."
            )
    changed = bool(written or removed or absent)
    made_folders = [str(folder) for folder in absent]
    module.exit_json(
        changed=changed, written=written, removed=removed, made=made_folders, diff=diff
    )


if __name__ == "__main__":
    main()
