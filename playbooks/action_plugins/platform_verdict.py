"""Judge the platform of this inventory with the checks of its roles, and show the table."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))
from platform_verify import report as reports  # noqa: E402
from platform_verify import rooms  # noqa: E402

# how a host is reached: variable -> what the command line says where the inventory does not
CONNECTION = {
    "ansible_become": "become",
    "ansible_become_method": "become_method",
    "ansible_become_pass": "",
    "ansible_become_password": "",
    "ansible_become_user": "become_user",
    "ansible_connection": "connection",
    "ansible_host": "",
    "ansible_password": "",
    "ansible_port": "",
    "ansible_python_interpreter": "",
    "ansible_ssh_common_args": "ssh_common_args",
    "ansible_ssh_pass": "",
    "ansible_ssh_password": "",
    "ansible_ssh_extra_args": "ssh_extra_args",
    "ansible_ssh_private_key_file": "private_key_file",
    "ansible_sudo_pass": "",
    "ansible_user": "remote_user",
}

# what tells one run of a pipeline from another
RUN = ("last_run", "snapshot", "params", "mlflow_runs")
# what is spoken at a port, where it is not HTTP
SCHEMES = {443: "https", 3306: "mysql", 5432: "postgresql"}
# what a role says of itself for people: service -> address
ADDRESSES = "addresses"
# steps of a role beside its declaration -> what they register as <role>_...
STEPS = {"provision.yml": "provisioned", "run.yml": "result"}


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Write what is to be judged as an inventory of plain values, and let pytest-testinfra judge.

    Arguments: report (path of the JSON report; empty for reports/verify.json of this project)
    and unless_proven (judge only where this run changed something or the last verdict was not of
    this platform and well, and say at the end what runs and what to do next).
    """

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task.

        It changes nothing, so check mode is no different, except at the end of a run that would
        have made what there is to judge.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        if self._task.check_mode and self._task.args.get("unless_proven"):
            return result | {"skipped": True, "skip_reason": "check mode made nothing to judge"}
        path = Path(self._task.args.get("report") or ROOT / "reports" / "verify.json")
        seal = fingerprint(known)
        proven = reports.read(path)
        quick = boolean(self._task.args.get("unless_proven", False))
        if quick and proven and proven.ok and proven.seal == seal and unchanged(known):
            Display().display(
                f"Nothing changed since the last verdict.\n{self._closing(known, proven)}"
            )
            return result | {"changed": False, "report": str(path)}
        path.unlink(missing_ok=True)
        try:
            hosts = {name: self._host(name, known) for name in judged(known)}
        except AnsibleError as error:
            raise AnsibleActionFail(f"The inventory cannot be judged: {error}") from error
        # 0600, for it may hold the password of a connection; gone when this returns
        with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="verdict-") as inventory:
            json.dump({"all": {"hosts": hosts}}, inventory)
            inventory.flush()
            said = judge(checks(known), Path(inventory.name), path)
        found = reports.read(path)
        if found is None:
            raise AnsibleActionFail(f"The checks of {rooms.ROLES} came to no verdict:\n{said}")
        found = replace(found, seal=seal)
        reports.write(found, path)
        Display().display(reports.table(found))
        if quick and found.ok:
            Display().display(self._closing(known, found))
        if found.code:
            raise AnsibleActionFail(reports.verdict(found))
        return result | {"changed": False, "report": str(path), "data_source": found.data_source}

    def _host(self, name: str, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return what reaching and judging a host takes: no secret of a service is in it."""
        variables = known["hostvars"][name]
        if "platform_promises" not in variables:
            raise AnsibleActionFail(
                f"this run did not get to {name}: mend what is said of it above, or leave it out "
                f"with --limit 'all:!{name}'"
            )
        reached: dict[str, Any] = {}
        for key, option in CONNECTION.items():
            value = variables.get(key)
            if value in (None, "") and option:
                value = context.CLIARGS.get(option)
            if value not in (None, ""):
                reached[key] = boolean(value) if key == "ansible_become" else str(value)
        if self._play_context.become_pass:  # asked for with -K
            reached.setdefault("ansible_become_password", str(self._play_context.become_pass))
        compared = self._promised(name, known)
        return {**reached, "verdict": {**variables["platform_promises"], "promised": compared}}

    def _promised(self, name: str, known: Mapping[str, Any], only: str = "") -> dict[str, Any]:
        """Return what the roles of a host say of themselves: all of it, or one word."""
        places = [one for one in rooms.rooms() if name in known["groups"].get(one.parent.name, [])]
        raw = known["hostvars"].raw_get(name)
        return promised(places, raw, self._loader, self._templar, only)

    def _closing(self, known: Mapping[str, Any], found: reports.Report) -> str:
        """Say what a run ends with."""
        addresses = {
            name: self._promised(name, known, ADDRESSES).get(ADDRESSES, {})
            for name in judged(known)
        }
        return closing(known, found, addresses)


def promised(
    rooms_of_host: list[Path],
    raw: Mapping[str, Any],
    loader: Any,  # noqa: ANN401 - Ansible ships no types
    templar: Any,  # noqa: ANN401
    only: str = "",
) -> dict[str, Any]:
    """Return what the roles of a host say their checks compare with.

    Args:
        rooms_of_host: `verify` of each role that the host is in the group of.
        raw: the host's variables as they are written.
        loader: Ansible's reader of files.
        templar: Ansible's templates.
        only: the one word that is asked for; empty for all.
    """
    found: dict[str, Any] = {}
    for room in rooms_of_host:
        kinds = (
            *(room.parent / kind / "main.yml" for kind in ("defaults", "vars")),
            room / "declared.yml",
        )
        defaults, own, said = (
            loader.load_from_file(str(path), trusted_as_template=True) or {}
            if path.is_file()
            else {}
            for path in kinds
        )
        known = {**defaults, **raw, **own}
        said = {key: value for key, value in said.items() if only in ("", key)}
        found |= templar.copy_with_new_env(available_variables=known).template(said)
    return found


def judged(known: Mapping[str, Any]) -> list[str]:
    """List the hosts that this run is about: those of the inventory, as far as --limit goes."""
    return sorted(known["ansible_play_hosts_all"])


def fingerprint(known: Mapping[str, Any]) -> str:
    """Hash which hosts run which platform, and which run of each pipeline was the last."""
    parts = []
    for name in judged(known):
        host = known["hostvars"][name]
        results = [
            host.get(f"{role.name}_{STEPS['run.yml']}") or {}
            for role in sorted(rooms.ROLES.iterdir())
        ]
        runs = [
            {
                name: [run.get(key) for key in RUN]
                for name, run in (result.get("runs") or {}).items()
            }
            for result in results
        ]
        parts.append([name, host.get("platform_name"), host.get("ansible_host"), runs])
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def unchanged(known: Mapping[str, Any]) -> bool:
    """Tell whether every host was looked at in this run, and nothing was changed on any."""
    for name in judged(known):
        host = known["hostvars"][name]
        wanted = {"platform_admitted"}
        wanted |= {
            f"{role.name}_{left}"
            for role in rooms.ROLES.iterdir()
            for step, left in STEPS.items()
            if name in known["groups"].get(role.name, []) and (role / "tasks" / step).is_file()
        }
        results = [host.get(variable) for variable in wanted]
        # only what was not as declared is converged
        if "platform_converged" in host or any(not each or each.get("changed") for each in results):
            return False
    return True


def closing(
    known: Mapping[str, Any], found: reports.Report, addresses: Mapping[str, Mapping[str, str]]
) -> str:
    """Say what runs, where, with which result, and what to try next.

    Args:
        known: the variables of the run.
        found: the verdict.
        addresses: host -> service that publishes no port -> where users find it all the same.
    """
    lines = [""]
    for name in judged(known):
        host = known["hostvars"][name]
        lines.append(f"Platform {found.platform} on {name}:")
        for label, service in host["platform_promises"]["services"].items():
            if service["stage"] == "job":
                continue  # nobody goes there
            where = [
                f"{SCHEMES.get(port['inside'], 'http')}://{port['address']}:{port['port']}"
                for port in service["ports"]
            ]
            where = where or [addresses[name].get(label, "listens on nothing")]
            lines.append(f"  {label:<12} {', '.join(where)}")
        lines.append(f"  {'credentials':<12} {host['platform_secrets_directory']}")
    of = named(Path(known["inventory_dir"]))
    told = {"data": reports.data(found), "metrics": reports.scores(found.metrics)}
    lines += [
        *(f"  {key:<12} {said}" for key, said in told.items() if said),
        f'Next: eval "$(make -s env{of})" for a notebook, make save{of} for git, or make help.',
    ]
    return "\n".join(lines)


def named(inventory: Path) -> str:
    """Return what the verbs of make must be told to mean an inventory, after a space."""
    if inventory == ROOT / "inventory/local":
        return ""
    ours = inventory.parent == ROOT / "inventory"
    return f" SYSTEM={inventory.name}" if ours else f" INVENTORY={shlex.quote(str(inventory))}"


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return what testinfra calls Ansible in: programs beside this one, their usual output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{given.get('PATH', os.defpath)}"
    others = ("ANSIBLE_STDOUT_CALLBACK", "PYTEST_")
    kept = {key: value for key, value in given.items() if not key.startswith(others)}
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT / "src")}


def checks(known: Mapping[str, Any]) -> list[Path]:
    """List where checks are: the platform's own, then each service's as the inventory has them."""
    order = list(known["groups"])
    places = {
        room: order.index(room.parent.name) for room in rooms.rooms() if room.parent.name in order
    }
    return sorted(rooms.rooms(), key=lambda room: places.get(room, -1))


def judge(places: list[Path], inventory: Path, path: Path) -> str:
    """Let pytest judge and write the report; returns the last lines it printed."""
    command = [
        *(sys.executable, "-m", "pytest", "-pplatform_verify.checking", *map(str, places)),
        f"--rootdir={ROOT}",
        f"--verify-inventory={inventory}",
        f"--verify-report={path}",
        "--override-ini=python_files=check_*.py",
        "-pno:cacheprovider",
    ]
    done = subprocess.run(  # noqa: S603 - words written here
        command,
        cwd=ROOT,
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    Display().vv(done.stdout)
    return "\n".join((done.stdout + done.stderr).splitlines()[-20:])
