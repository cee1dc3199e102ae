"""Bring images from the engine of this machine to the engine of the task's host."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Arguments: references. Layers that several images share travel once."""

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        references = list(self._task.args["references"])
        played: dict[str, str] = {}
        self._compute_environment_string(played)
        if self._task.check_mode:
            return result | {"changed": True, "shipped": references}
        with tempfile.TemporaryDirectory(prefix="image-ship-") as local:
            archive = Path(local) / "images.tar"
            done = subprocess.run(  # noqa: S603 - references this play named
                ["docker", "save", "--output", str(archive), *references],  # noqa: S607 - from PATH
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **played},
            )
            if done.returncode:
                raise AnsibleActionFail(
                    f"docker save {' '.join(references)}: {done.stderr.strip()}"
                )
            size = archive.stat().st_size // 2**20
            Display().display(f"  shipping {len(references)} images, {size} MiB")
            host = (task_vars or {}).get("inventory_hostname")
            try:
                self._load(archive)
            except AnsibleError as error:
                self._connection._shell.tmpdir = None  # to remove it may fail too, in place of this
                raise AnsibleActionFail(
                    f"Shipping {', '.join(references)} ({size} MiB) to {host} failed: "
                    f"{error.message} Run again: what arrived whole is kept."
                ) from error
        return result | {"changed": True, "shipped": references}

    def _load(self, archive: Path) -> None:
        """Transfer an archive of images and load it."""
        self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, archive.name)
        self._transfer_file(str(archive), remote)
        environment = self._compute_environment_string()
        command = f"{environment} docker load --quiet --input {shlex.quote(remote)}"
        reply = self._low_level_execute_command(command)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        self._connection._shell.tmpdir = None
        if reply["rc"]:
            raise AnsibleActionFail(
                f"docker load ended with code {reply['rc']}: {reply['stderr'].strip()}."
            )
