"""Run a role's module in this process as Ansible does: beside what the roles give all modules."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import ansible.module_utils

ROLES = Path(__file__).parents[2] / "roles"
ansible.module_utils.__path__.extend(map(str, ROLES.glob("*/module_utils")))

if __name__ == "__main__":
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
