"""No module of the roles leaves its arguments in the syslog of the host it runs on."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.conftest import AS_ANSIBLE, ROLES

pytestmark = pytest.mark.processes

MODULES = sorted(ROLES.glob("*/library/*.py"))
# a value that is masked by looking for it in a text that spells it in another way stays there
SECRET = "planted \"se'cret\\\nof two lines"  # noqa: S105 - of nobody
PLANTED = "planted"
NOT_TAKEN = re.compile(r"mutually exclusive|[Uu]nsupported param|missing required|argument '")

# a module as anybody would write it
TALKATIVE = """
from ansible.module_utils.basic import AnsibleModule
def main():
    AnsibleModule(argument_spec={"word": {}}, supports_check_mode=True).exit_json()
main()
"""

# in a mount namespace of its own: a /dev whose log is a socket of the test's, then the module
IN_OWN_DEV = """
import json, os, socket, subprocess, sys
place, *command = sys.argv[1:]
os.makedirs(place)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
for name in ("null", "zero", "urandom", "random"):
    open(f"{place}/{name}", "w").close()
    subprocess.run(["mount", "--bind", f"/dev/{name}", f"{place}/{name}"], check=True)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind(f"{place}/log")
log.setblocking(False)
subprocess.run(["mount", "--rbind", place, "/dev"], check=True)
done = subprocess.run(command, capture_output=True, text=True)
arrived = []
try:
    while True:
        arrived.append(log.recv(1 << 20).decode())
except BlockingIOError:
    print(json.dumps({"said": done.stdout + done.stderr, "logged": "".join(arrived)}))
"""


def documented(module: Path) -> dict[str, Any]:
    """The options that a module documents."""
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION":
            options: dict[str, Any] = yaml.safe_load(ast.literal_eval(node.value))["options"]
            return options
    raise AssertionError(f"{module} documents no options")


def filled(option: dict[str, Any], path: str) -> object:
    """A value of an option's type that holds the secret wherever a text may stand."""
    inner = {name: filled(each, path) for name, each in option.get("suboptions", {}).items()}
    if option["type"] == "list":
        return [filled({**option, "type": option.get("elements", "str")}, path)]
    values: dict[str, object] = {
        "bool": False,
        "int": 1,
        "path": path,
        "str": option.get("choices", [SECRET])[0],
        "dict": inner or {"word": SECRET},
    }
    return values[option["type"]]


def run_with_own_log(module: Path, place: Path, check: bool, given: dict[str, Any]) -> str:
    """Run a module where /dev/log is a socket of the test's; what arrived there."""
    request = {"ANSIBLE_MODULE_ARGS": {**given, "_ansible_check_mode": check}}
    (place / "arguments.json").write_text(json.dumps(request))
    command = [*AS_ANSIBLE, str(module), str(place / "arguments.json")]
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", IN_OWN_DEV, str(place / "dev"), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a /dev/log of its own cannot be had here: {done.stderr.strip()[-200:]}")
    answer: dict[str, str] = json.loads(done.stdout)
    # it took its arguments, which is when they are logged, and answered or fell over them later
    assert '"invocation"' in answer["said"] or "in main" in answer["said"], answer["said"]
    assert not NOT_TAKEN.search(answer["said"]), answer["said"]
    return answer["logged"]


@pytest.mark.parametrize("check", [False, True], ids=["normal", "check"])
def test_a_module_that_keeps_ansibles_own_log_is_found_out(tmp_path: Path, check: bool) -> None:
    module = tmp_path / "talkative.py"
    module.write_text(TALKATIVE)
    assert PLANTED in run_with_own_log(module, tmp_path, check, {"word": SECRET})


@pytest.mark.parametrize("check", [False, True], ids=["normal", "check"])
@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.stem))
def test_no_argument_of_a_module_reaches_the_syslog(
    module: Path, tmp_path: Path, check: bool
) -> None:
    options = documented(module)
    given = {
        name: filled(option, str(tmp_path / "none"))
        for name, option in options.items()
        if name.removesuffix("_file") not in options.keys() - {name}  # the value, not its file
    }
    assert PLANTED not in run_with_own_log(module, tmp_path, check, given)
