"""What has systemd, or cron, converge a platform each week on the machine that runs Ansible."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

SERVICE = """\
# Written by `make timer`; the next one overwrites changes made here.
[Unit]
Description=The platform {platform} as its inventory says, with certificates that have days left

[Service]
Type=oneshot
WorkingDirectory={directory}
Environment={environment}
# systemd takes a program by few kinds of names
ExecStart=/usr/bin/env {command}
SyslogIdentifier={name}
TimeoutStartSec=4h
"""
TIMER = """\
# Written by `make timer`; the next one overwrites changes made here.
[Unit]
Description=When the platform {platform} is looked after

[Timer]
OnCalendar={calendar}
# a machine that was off then does it when it is on again
Persistent=true
RandomizedDelaySec=6h

[Install]
WantedBy=timers.target
"""


def word(text: str) -> str:
    """Return a word as a line of a unit has it, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def variable(name: str, value: str) -> str:
    """Return an assignment as `Environment=` has it, where a dollar means itself."""
    return word(f"{name}={value}").replace("$$", "$")


def units(
    name: str,
    platform: str,
    calendar: str,
    run: Mapping[str, Any],
) -> dict[str, str]:
    """Return the content of both unit files by their names.

    Args:
        name: of both, without what follows the dot.
        platform: the platform's name, for who reads a list of units.
        calendar: when, as systemd.time(7) says it.
        run: the `command` as a list, its `directory` and its `environment`.
    """
    variables = (variable(key, value) for key, value in run["environment"].items() if value)
    return {
        f"{name}.service": SERVICE.format(
            name=name,
            platform=platform.replace("%", "%%"),
            directory=run["directory"].replace("%", "%%"),
            environment=" ".join(variables),
            command=" ".join(word(each) for each in run["command"]),
        ),
        f"{name}.timer": TIMER.format(platform=platform, calendar=calendar),
    }


def cron(command: Sequence[str], directory: str, environment: Mapping[str, str]) -> str:
    """Return the line for cron that does the same, once a week."""
    given = [f"{key}={shlex.quote(value)}" for key, value in environment.items() if value]
    line = " ".join([*given, shlex.join(command)])
    # cron ends a command at a percent sign
    return f"0 4 * * 1  cd {shlex.quote(directory)} && {line}".replace("%", "\\%")


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {
            "platform_timer_units": units,
            "platform_timer_cron": lambda run: cron(
                run["command"], run["directory"], run["environment"]
            ),
        }
