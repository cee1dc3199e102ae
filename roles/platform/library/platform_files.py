#!/usr/bin/python
# Ansible reads the documentation blocks first, so they stand before the imports.
# ruff: noqa: E402
"""Write every file of a project in one call, and remove those that are no longer wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: platform_files
short_description: Make a directory hold exactly these files
description:
  - Writes each file that differs, with its mode and owner, by a rename, so none is ever half.
  - Removes files below O(owned) that are not listed.
options:
  directory:
    description: Directory that every path is relative to.
    type: path
    required: true
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
  owned:
    description: Directories below O(directory) in which nothing but the listed files may stay.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    description: The content of secrets is hidden.
"""

EXAMPLES = r"""
- name: Write the project
  platform_files:
    directory: /opt/mlops
    files:
      - {path: compose.yaml, content: "name: mlops", mode: "0644", owner: 0}
    owned: [services]
"""

RETURN = r"""
written:
  description: Paths that were written or whose mode or owner was set.
  returned: always
  type: list
removed:
  description: Paths that were removed.
  returned: always
  type: list
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

HIDDEN = "(secret, {} characters)\n"


def state_of(path: Path) -> tuple[str, int, int] | None:
    """Return content, mode and owner of a file, or None where there is none."""
    try:
        content, status = path.read_bytes().decode(errors="replace"), path.stat()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return content, status.st_mode & 0o7777, status.st_uid


def wanted_state(entry: dict[str, Any]) -> tuple[str, int, int]:
    """Return content, mode and owner that `entry` asks for."""
    return entry["content"], int(entry["mode"], 8), int(entry["owner"])


def write(path: Path, content: str, mode: int, owner: int) -> None:
    """Put a file in place by a rename: its content is never readable by another than `owner`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    for killed in path.parent.glob(f".{path.name}.*"):
        killed.unlink()  # what a run that was killed here left
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as output:
            output.write(content)
            output.flush()
            os.fsync(output.fileno())
        os.chown(temporary, owner, owner)
        Path(temporary).chmod(mode)
        Path(temporary).rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def describe(state: tuple[str, int, int] | None, secret: bool) -> str:
    """Return what a diff shows of a file."""
    if state is None:
        return ""
    content, mode, owner = state
    shown = HIDDEN.format(len(content)) if secret else content
    return f"# mode {mode:04o}, owner {owner}\n{shown}"


def difference(
    path: str, before: tuple[str, int, int] | None, after: tuple[str, int, int] | None, secret: bool
) -> dict[str, str]:
    """Return one file's part of the diff; a secret's content is never in it."""
    left, right = describe(before, secret), describe(after, secret)
    if secret and before and after and before[0] != after[0]:
        right += "(the content differs)\n"
    return {"before_header": path, "after_header": path, "before": left, "after": right}


def unlisted(directory: Path, owned: list[str], listed: set[str]) -> list[str]:
    """List the files below the owned directories that are not `listed`."""
    return sorted(
        str(path.relative_to(directory))
        for name in owned
        for path in (directory / name).rglob("*")
        if not path.is_dir() and str(path.relative_to(directory)) not in listed
    )


def remove_empty(directory: Path, owned: list[str]) -> None:
    """Remove directories that hold nothing any more."""
    for name in owned:
        for path in sorted((directory / name).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "default": []},
            # no_log here would hide every value in it from every message, file names included;
            # the task is under no_log where it holds any
            "secrets": {"type": "list", "elements": "dict", "default": [], "no_log": False},
            "owned": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    directory, owned = Path(module.params["directory"]), module.params["owned"]
    secrets = module.params["secrets"]
    for entry in secrets:
        module.no_log_values.add(entry["content"])
    written, removed, diff = [], [], []
    entries = [(entry, False) for entry in module.params["files"]]
    entries += [(entry, True) for entry in secrets]
    for entry, secret in entries:
        path = directory / entry["path"]
        before, after = state_of(path), wanted_state(entry)
        if before == after:
            continue
        written.append(entry["path"])
        diff.append(difference(str(path), before, after, secret))
        if not module.check_mode:
            try:
                write(path, *after)
            except OSError as error:
                module.fail_json(
                    msg=f"{path} cannot be written ({error.strerror}, errno {error.errno}): "
                    "free the disk or mend its permissions and run again; "
                    "the files before it are in place."
                )
    listed = {entry["path"] for entry, _ in entries}
    for name in unlisted(directory, owned, listed):
        secret = "/secrets/" in name
        removed.append(name)
        diff.append(difference(str(directory / name), state_of(directory / name), None, secret))
        if not module.check_mode:
            (directory / name).unlink()
    if removed and not module.check_mode:
        remove_empty(directory, owned)
    module.exit_json(changed=bool(written or removed), written=written, removed=removed, diff=diff)


if __name__ == "__main__":
    main()
