"""Judge the platform of this inventory with the tests of tests/infra/verify, and show the table."""

from __future__ import annotations

import hashlib
import json
import os
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

CHECKS = ROOT / "tests" / "infra" / "verify"
# how a host is reached: variable -> what the command line says where the inventory does not
CONNECTION = {
    "ansible_become": "become",
    "ansible_become_method": "become_method",
    "ansible_become_password": "",
    "ansible_become_user": "become_user",
    "ansible_connection": "connection",
    "ansible_host": "",
    "ansible_password": "",
    "ansible_port": "",
    "ansible_python_interpreter": "",
    "ansible_ssh_common_args": "ssh_common_args",
    "ansible_ssh_extra_args": "ssh_extra_args",
    "ansible_ssh_private_key_file": "private_key_file",
    "ansible_user": "remote_user",
}


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
            Display().display(f"Nothing changed since the last verdict.\n{closing(known, proven)}")
            return result | {"changed": False, "report": str(path)}
        path.unlink(missing_ok=True)
        try:
            hosts = {
                name: self._host(known["hostvars"][name]) for name in sorted(known["groups"]["all"])
            }
        except AnsibleError as error:
            raise AnsibleActionFail(f"The inventory cannot be judged: {error}") from error
        # 0600, for it may hold the password of a connection; gone when this returns
        with tempfile.NamedTemporaryFile(
            "w", suffix=".json", prefix="platform-verdict-"
        ) as inventory:
            json.dump({"all": {"hosts": hosts}}, inventory)
            inventory.flush()
            said = judge(Path(inventory.name), path)
        found = reports.read(path)
        if found is None:
            raise AnsibleActionFail(f"The tests in {CHECKS} came to no verdict:\n{said}")
        found = replace(found, seal=seal)
        reports.write(found, path)
        Display().display(reports.table(found))
        if quick and found.ok:
            Display().display(closing(known, found))
        if found.code:
            raise AnsibleActionFail(reports.verdict(found))
        return result | {"changed": False, "report": str(path), "data_source": found.data_source}

    def _host(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what reaching and judging a host takes: no secret of a service is in it."""
        reached: dict[str, Any] = {}
        for name, option in CONNECTION.items():
            value = variables.get(name)
            if value in (None, "") and option:
                value = context.CLIARGS.get(option)
            if value not in (None, ""):
                reached[name] = boolean(value) if name == "ansible_become" else str(value)
        if self._play_context.become_pass:  # asked for with -K
            reached.setdefault("ansible_become_password", str(self._play_context.become_pass))
        return {
            **reached,
            "verdict": {
                **variables["verify_declared"],
                "buckets": [
                    {
                        "name": str(bucket["name"]),
                        "versioning": boolean(bucket.get("versioning", False)),
                    }
                    for bucket in variables.get("minio_buckets") or []
                ],
                "users": [
                    {
                        "access_key": str(user["access_key"]),
                        "buckets": [str(name) for name in user["buckets"]],
                    }
                    for user in variables.get("minio_users") or []
                ],
            },
        }


def fingerprint(known: Mapping[str, Any]) -> str:
    """Hash which hosts run which platform, and which run of the pipeline was the last."""
    parts = []
    for name in sorted(known["groups"]["all"]):
        host = known["hostvars"][name]
        run = (host.get("dvc_runner_result") or {}).get("run") or {}
        parts.append(
            [name, host.get("platform_name"), host.get("ansible_host"), run.get("last_run")]
        )
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def unchanged(known: Mapping[str, Any]) -> bool:
    """Tell whether every host was looked at in this run, and nothing was changed on any."""
    for name in known["groups"]["all"]:
        host = known["hostvars"][name]
        wanted = {"platform_admitted"}
        wanted |= {"platform_converged"} if "platform_converged" in host else set()
        wanted |= {"dvc_runner_result"} if name in known["groups"].get("dvc_runner", []) else set()
        wanted |= {"minio_provisioned"} if name in known["groups"].get("minio", []) else set()
        results = [host.get(variable) for variable in wanted]
        if any(not found or found.get("changed") for found in results):
            return False
    return True


def closing(known: Mapping[str, Any], found: reports.Report) -> str:
    """Say what runs, where, with which result, and what to try next."""
    lines = [""]
    for name in sorted(known["groups"]["all"]):
        host = known["hostvars"][name]
        lines.append(f"Platform {found.platform} on {name}:")
        for label, service in host["verify_declared"]["services"].items():
            where = ", ".join(
                f"http://{port['address']}:{port['port']}" for port in service["ports"]
            )
            lines.append(f"  {label:<12} {where or 'listens on nothing'}")
        lines.append(f"  {'credentials':<12} {host['platform_secrets_directory']}")
    said = reports.SYNTHETIC if found.data_source == "synthetic" else found.data_source
    lines += [
        f"  {'data':<12} {said}",
        f"  {'metrics':<12} {reports.scores(found.metrics)}",
        'Next: eval "$(make -s env)" for a notebook, make save for git, make help for the rest.',
    ]
    return "\n".join(lines)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return what testinfra calls Ansible in: programs beside this one, their usual output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{given.get('PATH', os.defpath)}"
    return {**{key: given[key] for key in given if key != "ANSIBLE_STDOUT_CALLBACK"}, "PATH": path}


def judge(inventory: Path, path: Path) -> str:
    """Let pytest judge and write the report; returns the last lines it printed."""
    done = subprocess.run(  # noqa: S603 - words written here
        [
            sys.executable,
            "-m",
            "pytest",
            str(CHECKS),
            f"--rootdir={ROOT}",
            f"--verify-inventory={inventory}",
            f"--verify-report={path}",
            "--override-ini=python_files=check_*.py",
            "-pno:cacheprovider",
        ],
        cwd=ROOT,
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    Display().vv(done.stdout)
    return "\n".join((done.stdout + done.stderr).splitlines()[-20:])
