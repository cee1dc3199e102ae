"""Bring the results of the last run from the runner into a project, owned by its owner."""

from __future__ import annotations

import filecmp
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).parent))
from dvc_pipeline import explained, told  # Ansible loads plugins by file, not by package

from dvc_runner.git import without_passwords


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Arguments: projects (as the filter dvc_runner_listed returns them)."""

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
        project = project / str(one.get("subdirectory") or "")
        with tempfile.TemporaryDirectory(prefix="dvc-results-") as local:
            archive = Path(local) / "results.tar"
            self._fetch(one["container"], archive)
            unpack(archive, Path(local) / "new")
            written = differing(Path(local) / "new", project)
            if not self._task.check_mode:
                for name in written:
                    place(Path(local) / "new" / name, project, name)
        return written

    def _fetch(self, container: str, archive: Path) -> None:
        """Have the runner write its results on the host, and bring that file here."""
        self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "results.tar")
        words = shlex.join(["docker", "exec", container, "dvc_runner", "export"])
        command = f"{self._compute_environment_string()} {words}"
        reply = self._low_level_execute_command(f"{command} > {shlex.quote(remote)}", in_data=b"\n")
        if reply["rc"]:
            raise AnsibleActionFail(explained(container, reply["stderr"].strip()))
        self._fixup_perms2([self._connection._shell.tmpdir, remote], execute=False)
        self._connection.fetch_file(remote, str(archive))
        self._remove_tmp_path(self._connection._shell.tmpdir)
        self._connection._shell.tmpdir = None


def unpack(archive: Path, target: Path) -> None:
    """Put the files of a tar archive below `target`, and nothing of it anywhere else.

    A pipeline wrote the archive. tarfile's own filter for such is younger than Debian 12's Python.

    Raises:
        AnsibleActionFail: a name in the archive leads out of it.
    """
    with tarfile.open(archive) as results:
        for member in results:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise AnsibleActionFail(
                    f"The results hold {member.name!r}, which lies outside of a project: nothing "
                    "was saved. See what the pipeline's outputs are."
                )
            content = results.extractfile(member) if member.isfile() or member.islnk() else None
            if content is not None:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                with content, (target / name).open("wb") as output:
                    shutil.copyfileobj(content, output)


def differing(new: Path, project: Path) -> list[str]:
    """List the files below `new` that `project` has not, or has with another content."""
    names = sorted(str(path.relative_to(new)) for path in new.rglob("*") if path.is_file())
    return [
        name
        for name in names
        if not (project / name).is_file()
        or not filecmp.cmp(project / name, new / name, shallow=False)
    ]


def place(source: Path, project: Path, name: str) -> None:
    """Put one file into the project, it and new directories owned by the project's owner."""
    owner = project.stat()
    target = project / name
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.chmod(0o644)
    for path in (part, *missing):
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
    part.rename(target)
