"""Do once in the process of a run what the process of each task would do anew."""

from __future__ import annotations

import gc
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader, test_loader

DOCUMENTATION = """
name: loaded_once
type: aggregate
short_description: Do once for all tasks what each would do anew
description:
  - Each task of a run is a process that is forked from it. What a template of the task uses is
    loaded there, is gone with it, and takes longer than what most tasks here do. So it is loaded
    before. And what is there by then stays, so no task looks through it for garbage.
"""

# those that inventories use for every task and every service; a role's is found once it is loaded
LOOKUPS = ("ansible.builtin.env", "ansible.builtin.file", "ansible.builtin.pipe", "platform_secret")


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible ships no types
    """Say nothing of a run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "loaded_once"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ANN401, ARG002
        """Load what is not loaded, which is nothing unless a role came with more."""
        for loader in (filter_loader, test_loader):
            list(loader.all())
        for name in LOOKUPS:
            lookup_loader.get(name, class_only=True)
        gc.freeze()
