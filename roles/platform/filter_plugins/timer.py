"""What has systemd, or cron, converge a platform each week on the machine that runs Ansible."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars

# what `make` keeps of a shell, for it says where packages, certificates, proxies and keys come from
KEPT = re.compile(
    r"ANSIBLE_(VAULT_\w+|PRIVATE_KEY_FILE|HOST_KEY_CHECKING)|DOCKER_CONFIG|GIT_CONFIG_\w+"
    r"|PIP_(CERT|CLIENT_CERT|CONFIG_FILE|DEFAULT_TIMEOUT|EXTRA_INDEX_URL|INDEX_URL|PROXY"
    r"|TRUSTED_HOST)"
    r"|UV_(CACHE_DIR|CONFIG_FILE|DEFAULT_INDEX|EXTRA_INDEX_URL|HTTP_TIMEOUT|INDEX|INDEX_\w+"
    r"|INSECURE_HOST|LINK_MODE|NATIVE_TLS|SYSTEM_CERTS)"
    r"|(?i:(ALL|HTTP|HTTPS|NO)_PROXY)|GO(PROXY|NOSUMDB|SUMDB)"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)
# headers with a token are among the values that git gets
SECRET_NAME = re.compile(r".*(PASSWORD|TOKEN)|GIT_CONFIG_(COUNT|KEY_\w+|VALUE_\w+|PARAMETERS)")
# user:password@, at the beginning or after the kind of address
SECRET_VALUE = re.compile(r"(?:^|//)[^/\s]+@")
READ = re.compile(r"""\b(?:lookup|query|q)\(\s*['"](?:ansible\.builtin\.)?env['"]([^)]*)\)""")

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
# it begins anew with each start of the machine, which may be on for an hour only
RandomizedDelaySec=15min

[Install]
WantedBy=timers.target
"""


def word(text: str) -> str:
    """Return a word as a line of a unit has it, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'.replace("\n", "\\n")


def variable(name: str, value: str) -> str:
    """Return an assignment as `Environment=` has it, where a dollar means itself."""
    return word(f"{name}={value}").replace("$$", "$")


def secret(name: str, value: str) -> bool:
    """Tell whether a variable holds a password, or may."""
    if SECRET_NAME.fullmatch(name):
        return True
    # name@file is how a vault's passwords are told apart
    return not name.startswith("ANSIBLE_") and bool(SECRET_VALUE.search(value))


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return what a run has of this shell, passwords left out, and its `own`, which wins."""
    kept = {
        name: value
        for name, value in sorted(os.environ.items())
        if KEPT.fullmatch(name) and value and not secret(name, value)
    }
    return {**kept, **own}


def withheld(own: Mapping[str, str]) -> str:
    """Say in a sentence what a run will not have of this shell, or nothing."""
    names = [
        name
        for name, value in sorted(os.environ.items())
        if KEPT.fullmatch(name) and name not in own and value and secret(name, value)
    ]
    if not names:
        return ""
    return (
        f"The weekly run goes without this shell's {', '.join(names)}: there may be a password in "
        "it, and everybody can read a unit. What that run needs of it is for the inventory, or "
        "for the file that pip, uv, git or Docker has for it."
    )


def texts(sources: Sequence[str]) -> Iterator[str]:
    """Yield the files that say what an inventory's variables are."""
    for source in map(Path, sources):
        place = source if source.is_dir() else source.parent
        variables = [
            Path(at, name)
            for each in ("group_vars", "host_vars")
            # an inventory that is one more of another has links to its directories
            for at, _, names in os.walk(place / each, followlinks=True)
            for name in names
        ]
        for path in [source, *place.glob("*.y*ml"), *variables]:
            if path.is_file():
                yield path.read_text(encoding="utf-8", errors="replace")


def lost(run: Mapping[str, Any], sources: Sequence[str]) -> list[str]:
    """Refuse what this run of Ansible was given and a weekly one would not have.

    Args:
        run: as in `units`.
        sources: the inventory's, as Ansible has them.
    """
    given = [name for name in load_extra_vars(DataLoader()) if "platform_timer_" not in name]
    read = {
        name
        for text in texts(sources)
        for words in READ.findall(re.sub(r"(?m)^\s*#.*", "", text))
        for name in re.findall(r"""['"](\w+)['"]""", words)
        if os.environ.get(name) and name not in run["environment"]
    }
    return [
        f"{name} is given by PROJECT= or after -e, and the weekly run would not have it: "
        "put it into the inventory."
        for name in sorted(given)
    ] + [
        f"{name} is set in this shell and the inventory reads it there, and the weekly run would "
        "not have it: put it into the inventory, encrypted with ansible-vault, and unset it."
        for name in sorted(read)
    ]


def origin(service: str) -> tuple[str, list[str]]:
    """Return the directory and the inventories that a service is for, as its file has them."""
    place = re.search(r"(?m)^WorkingDirectory=(.*)$", service)
    found = re.findall(r'(?m)"--inventory=((?:[^"\\]|\\.)*)"', service)
    return place[1] if place else "", [each.replace("%%", "%") for each in found]


def other(units: Mapping[str, str], directory: str) -> list[str]:
    """Say whose a service of this name in a directory is, where it is another inventory's.

    One whose checkout or inventory is gone is nobody's.
    """
    for name, content in units.items():
        path = Path(directory, name)
        if not name.endswith(".service") or not path.is_file():
            continue
        there = path.read_text(encoding="utf-8", errors="replace")
        if origin(there) == origin(content):
            continue
        place, inventories = origin(there)
        place = place.replace("%%", "%")
        if place and not (Path(place).is_dir() and all(Path(it).exists() for it in inventories)):
            continue
        whose = f"that of {' and '.join(inventories)} in {place}" if place else "not of make"
        sentence = (
            f"{path} is {whose}, and stays: remove it there (make timer OFF=yes), or give one of "
            "the two inventories another name."
        )
        return [sentence]
    return []


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
    given = "".join(f"{key}={shlex.quote(value)} " for key, value in environment.items() if value)
    # cron ends a command at a percent sign
    line = f"0 4 * * 1  cd {shlex.quote(directory)} && {given}".replace("%", "\\%")
    return f"{line}{words(command)}"


def words(command: Sequence[str]) -> str:
    """Return the command as a line for cron has it, whatever the shell was that it was made in."""
    return shlex.join(command).replace("%", "\\%")


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {
            "platform_timer_units": units,
            "platform_timer_environment": environment,
            "platform_timer_withheld": withheld,
            "platform_timer_lost": lost,
            "platform_timer_other": other,
            "platform_timer_words": words,
            "platform_timer_cron": lambda run: cron(
                run["command"], run["directory"], run["environment"]
            ),
        }
