"""Ansible's usual output, but a failure is told once: at the end, as sentences to act on."""

from __future__ import annotations

import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
name: told_once
type: stdout
short_description: Ansible's usual output, with each failure told once, at the end
description:
  - Where a task fails a marker says so; host, task and what went wrong follow the recap.
  - What a task says as C(if_it_fails_later) follows them; a later one of its host replaces it.
  - A failure that a rescue takes care of is no failure. With C(-v) details are shown as usual, too.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

MARGIN = 2
LINES = 15
UNRESOLVED = ("is undefined", "Error while ", "Syntax error in ")
WHERE = (
    "This is a fault of the code or of a variable: run again with -v (make: ARGS=-v) to see where."
)
# a plug-in of this project refuses in whole sentences; those of Ansible have a dot in their names
REFUSED = re.compile(r".*The \w+ plugin '[a-z0-9_]+' failed: (?P<said>.*\.)", re.DOTALL)
PREFIXES = ("Task failed: ", "Action failed: ", "Module failed: ")


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Say what went wrong, from the result of a task or of one item of its loop."""
    if result.get("censored"):
        return ["What it says is hidden, for it may hold a secret (no_log)."]
    if errors := result.get("argument_errors"):
        return [str(error) for error in errors]
    said = str(result.get("msg") or result.get("reason") or "It says nothing.").strip()
    while prefix := next((each for each in PREFIXES if said.startswith(each)), ""):
        said = said.removeprefix(prefix)
    if crash := result.get("module_stderr") or result.get("module_stdout"):
        return [f"{said}: {str(crash).strip().splitlines()[-1]}", WHERE]
    if refused := REFUSED.fullmatch(said):
        return [refused["said"]]
    if any(each in said for each in UNRESOLVED):
        return [said, WHERE]
    output = str(result.get("stderr") or result.get("stdout") or "").strip()
    shown = output.splitlines()[-LINES:] if "rc" in result and output not in said else []
    return [said, *(f"| {line}" for line in shown)]


def failures(task: Any, result: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:  # noqa: ANN401 - Ansible ships no types
    """Give what failed of a task, by the label of its item, which is empty without a loop."""
    rows = result.get("results") if task.loop else None
    failed = [row for row in rows or [] if row.get("failed") or row.get("unreachable")]
    for row in failed:
        yield str(row.get("_ansible_item_label", row.get("item", ""))), sentences(row)
    if not failed:
        yield "", sentences(result)


def is_rescued(task: Any) -> bool:  # noqa: ANN401 - Ansible ships no types
    """Tell whether a block around a task goes on with its rescue when the task fails."""
    below, above = task, task._parent
    while above is not None:
        tasks = getattr(above, "block", None) or []
        if getattr(above, "rescue", None) and any(each._uuid == below._uuid for each in tasks):
            return True
        below, above = above, above._parent
    return False


def folded(text: str, width: int) -> str:
    """Fold each line at a width, between words only: a path or an address stays whole.

    So does a line indented by four, which is to be copied.
    """
    indent = " " * MARGIN
    return "\n".join(
        f"{indent}{line}"
        if line.startswith("    ")
        else textwrap.fill(
            line,
            width,
            initial_indent=indent,
            subsequent_indent=indent + " " * (len(line) - len(line.lstrip(" |"))),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
        if line.strip()
    )


class CallbackModule(Default):  # type: ignore[misc]  # Ansible ships no types
    """Remember failures while a run goes on, and tell them when it has ended."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "told_once"

    def __init__(self) -> None:
        """Begin with no failure."""
        super().__init__()
        # through a pipe or into a file Python would hold back what long tasks say of their progress
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        # task, item and what was said -> the hosts that said so
        self._told: dict[tuple[str, str, str], list[str]] = {}
        # host -> what stays there where the run fails
        self._left: dict[str, str] = {}

    def v2_playbook_on_include(self, included_file: Any) -> None:  # noqa: ANN401
        """Show what is included where what went well is shown."""
        if self.get_option("display_ok_hosts"):
            super().v2_playbook_on_include(included_file)

    def _remember(self, result: Any) -> None:  # noqa: ANN401
        """Keep what failed for the end."""
        task = result.task.get_name().strip()
        for item, said in failures(result.task, result.result):
            hosts = self._told.setdefault((task, item, "\n".join(said)), [])
            hosts.append(self.host_label(result))

    def _mark(self, result: Any, word: str, color: str) -> None:  # noqa: ANN401
        """Show where something went wrong, and the warnings that came with it."""
        if self._last_task_banner != result.task._uuid:
            self._print_task_banner(result.task)
        self._handle_warnings(result.result)
        self._display.display(f"{word}: [{self.host_label(result)}]", color=color)

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401
        """Keep what a task says of a failure to come."""
        super().v2_runner_on_ok(result)
        if (left := result.result.get("if_it_fails_later")) is not None:
            self._left[self.host_label(result)] = str(left)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ANN401
        """Mark a failed task and remember it, where nothing takes care of it."""
        counts = not ignore_errors and not is_rescued(result.task)
        if counts:
            self._remember(result)
        if self._display.verbosity:
            super().v2_runner_on_failed(result, ignore_errors)
        elif counts:
            self._mark(result, "failed", constants.COLOR_ERROR)
        else:
            taken = "ignored" if ignore_errors else "failed, and taken care of"
            self._mark(result, taken, constants.COLOR_SKIP)

    def v2_runner_item_on_failed(self, result: Any) -> None:  # noqa: ANN401
        """Leave a failed item to its task, whose result holds it too."""
        if self._display.verbosity:
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:  # noqa: ANN401
        """Mark a host that cannot be reached and remember it."""
        if not result.task.ignore_unreachable:
            self._remember(result)
        if self._display.verbosity:
            super().v2_runner_on_unreachable(result)
        else:
            self._mark(result, "unreachable", constants.COLOR_UNREACHABLE)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """Say nothing: the recap does."""

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ANN401
        """Tell after the recap what failed."""
        super().v2_playbook_on_stats(stats)
        width = shutil.get_terminal_size((100, 24)).columns
        for (task, item, said), hosts in self._told.items():
            where = f"{', '.join(dict.fromkeys(hosts))}: {task}{f' ({item})' if item else ''}"
            self._display.display(
                f"Failed on {where}\n{folded(said, max(width, 40))}",
                color=constants.COLOR_ERROR,
            )
        for host, left in self._left.items():
            if left and self._told:
                said = f"Left on {host}\n{folded(left, max(width, 40))}"
                self._display.display(said, color=constants.COLOR_ERROR)
