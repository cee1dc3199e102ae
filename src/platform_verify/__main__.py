"""`python -m platform_verify`: run playbooks/verify.yml, and end with the verdict's exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from platform_inventory.reason import reason
from platform_verify import report
from platform_verify.rooms import loaded

ROOT = Path(__file__).parents[2]
PLAYBOOK = ROOT / "playbooks" / "verify.yml"
CANNOT_RUN = 2
HELP = """\
usage: python -m platform_verify [-i INVENTORY] [-e KEY=VALUE] [any argument of ansible-playbook]

Judge the platform of an inventory, print a table and write reports/verify.json
(-e verify_report=PATH: write it there).
Ends with 0: every check passed, 1: a check failed, 2: no verdict could be reached."""


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return what Ansible runs in: results as JSON, what is no inventory refused."""
    return {
        **given,
        # Ansible works in UTF-8 only, and this locale is on every machine
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{given.get('PATH', os.defpath)}",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_NOCOLOR": "1",
    }


def failures(output: str) -> Iterator[str]:
    """Give the message of every task that failed, from the output of Ansible's JSON callback."""
    _, _, rest = f"\n{output}".partition("\n{")
    try:
        found: dict[str, Any] = json.loads(f"{{{rest}")
    except ValueError:
        return
    for play in found.get("plays", []):
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                if result.get("failed") or result.get("unreachable"):
                    rows = [row for row in result.get("results", []) if row.get("failed")]
                    said = (sentence for row in rows or [result] for sentence in sentences(row))
                    yield f"{host}: {' '.join(said)}"


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Say what went wrong, from the result of a task, as every other verb does."""
    told_once = loaded(ROOT / "callback_plugins" / "told_once.py", "told_once")
    said: list[str] = told_once.sentences(result)
    # where to look, and what a program said, are for those who see a run go by
    return [each for each in said if each != told_once.WHERE and not each.startswith("| ")]


def why(output: str, errors: str) -> str:
    """Say in one sentence why Ansible came to no verdict."""
    said = next(failures(output), "") or reason(errors)
    return " ".join(said.split()) or "the inventory has no host to judge: name another with -i"


def where(arguments: Sequence[str]) -> Path:
    """Return the path of the report: verify_report among the arguments, or the project's own."""
    for word in arguments:
        name, _, value = word.removeprefix("--extra-vars=").removeprefix("-e").partition("=")
        if name.strip() == "verify_report":
            return Path(value)
    return ROOT / "reports" / "verify.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the playbook and tell its verdict; 0, 1 or 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if set(arguments) & {"-h", "--help"}:
        print(HELP)
        return 0
    path = where(arguments).absolute()
    # an old verdict is none
    path.unlink(missing_ok=True)
    command = [
        "ansible-playbook",
        str(PLAYBOOK),
        *arguments,
        "-e",
        json.dumps({"verify_report": str(path)}),
    ]
    env = environment(os.environ)
    if not shutil.which(command[0], path=env["PATH"]):
        print(f"No verdict: there is no ansible-playbook beside {sys.executable}: run `make up`.")
        return CANNOT_RUN
    done = subprocess.run(  # noqa: S603 - the user's own arguments, and no shell
        command,
        cwd=ROOT,
        env=env,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    found = report.read(path)
    if found is None:
        found = report.Report(False, why(done.stdout, done.stderr), "", "", {}, 0.0)
        report.write(found, path)
    width = min(shutil.get_terminal_size((report.WIDTH, 24)).columns, report.WIDTH)
    print(report.table(found, width, unicode=report.speaks_unicode(sys.stdout)))
    return found.code


if __name__ == "__main__":
    sys.exit(main())
