"""What a module of the roles documents is what it takes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from tests.unit.conftest import ROLES
from tests.unit.test_modules_keep_silent import documented

SHARED = ("type", "elements", "required", "default")
# the largest has suboptions, and a test of its own
MODULES = sorted(path for path in ROLES.glob("*/library/*.py") if path.stem != "minio_provision")


def taken(module: Path) -> dict[str, Any]:
    """The options that a module takes."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "argument_spec":
            spec: dict[str, Any] = ast.literal_eval(node.value)
            return spec
    raise AssertionError(f"{module} takes no options")


def shared(options: dict[str, Any]) -> dict[str, Any]:
    """What both forms say of options."""
    return {
        name: {key: option[key] for key in SHARED if key in option}
        for name, option in options.items()
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.stem))
def test_a_module_documents_every_option_as_it_takes_it(module: Path) -> None:
    assert shared(documented(module)) == shared(taken(module))
