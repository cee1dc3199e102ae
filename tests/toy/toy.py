"""Two roles that are no part of the project: added to a copy of it, as a new service would be."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROLES = Path(__file__).parent / "roles"
WIRING = """\
---
toystore_python: "/opt/{{ platform_name }}/bin/toystore"
toy_secret: "{{ lookup('platform_secret', 'toy_secret') }}"
"""


def add(checkout: Path) -> None:
    """Add to a copy of the project all that a service consists of: role, variables, group."""
    for role in sorted(ROLES.iterdir()):
        shutil.copytree(role, checkout / "roles" / role.name)
    hosts = checkout / "inventory/local/hosts.yml"
    line = re.search(r"^( +)minio: (.*)$", hosts.read_text(), re.MULTILINE)
    assert line, "hosts.yml has no line of minio to follow"
    groups = "".join(f"{line[1]}{role.name}: {line[2]}\n" for role in sorted(ROLES.iterdir()))
    hosts.write_text(hosts.read_text().replace(f"{line[0]}\n", f"{line[0]}\n{groups}"))
    (checkout / "inventory/local/group_vars/all/toy.yml").write_text(WIRING)
