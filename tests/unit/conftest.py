"""The roles' own code, loaded from its files as Ansible loads it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.unit import as_ansible

ROLES = as_ansible.ROLES
# the start of a command that runs a module of the roles
AS_ANSIBLE = [sys.executable, str(as_ansible.__file__)]
RunModule = Callable[..., dict[str, Any]]


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark that files of checks carry."""
    config.addinivalue_line("markers", "promise(name, hint): as in platform_verify.checking")


def load(relative: str) -> ModuleType:
    """Import a file below roles/ under a name of its own."""
    path = ROLES / relative
    name = "roles_" + relative.removesuffix(".py").replace("/", "_")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_module(tmp_path: Path) -> RunModule:
    """Run an Ansible module in a process of its own, as Ansible does; returns its answer."""

    def run(relative: str, check: bool = False, **options: object) -> dict[str, Any]:
        given = {**options, "_ansible_check_mode": check, "_ansible_diff": True}
        arguments = tmp_path / "module-arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        done = subprocess.run(
            [*AS_ANSIBLE, str(ROLES / relative), str(arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.startswith("\n{"), done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run
