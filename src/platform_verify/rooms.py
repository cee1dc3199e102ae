"""What the verdict finds in the roles: `roles/<role>/verify` holds all it knows of a service.

check_*.py promise, evidence*.py reads the facts where they are, declared.yml says what of the
role's variables its checks compare with. Nothing else names a role.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROLES = Path(__file__).parents[2] / "roles"
HERE = Path(__file__).parent
# what evidence may import wherever it is read, in the order that they import each other
COMMON = ("evidence", "host", "s3")
# read at once, or when a check asks; the last in a container that is on the host's network alone
KINDS = ("AT_ONCE", "ON_REQUEST", "OUTSIDE")
START = """\
import sys, types
for name, source in {modules!r}.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
kinds = [getattr(module, kind, {{}}) for kind in {kinds!r}]
places = {{place: read for kind in kinds for place, read in kind.items()}}
sys.exit(sys.modules["platform_verify.evidence"].main(places, sys.argv[1:]))
"""


@dataclass(frozen=True)
class Evidence:
    """A file of evidence: whose container it is read in (none: the host), and its places.

    With `each` it is read in several: those that the promise of this name has as values.
    """

    service: str
    each: str
    at_once: tuple[str, ...]
    outside: tuple[str, ...]
    places: tuple[str, ...]
    # what a shell, sudo and Ansible's own splitting of words all leave as it is
    packed: str

    def services(self, promised: Mapping[str, Any]) -> list[str]:
        """List the services in whose containers it is read."""
        if self.each:
            return list(promised.get(self.each, {}).values())
        return [self.service] if self.service else []


def rooms(roles: Path = ROLES) -> list[Path]:
    """List the directories of checks."""
    return sorted(path for path in roles.glob("*/verify") if path.is_dir())


def program(path: Path) -> str:
    """Return a program without imports of this project that reads the places of one file."""
    names = [name for name in COMMON if HERE / f"{name}.py" != path]
    modules = {f"platform_verify.{name}": (HERE / f"{name}.py").read_text() for name in names}
    return START.format(kinds=KINDS, modules={**modules, "read_here": path.read_text()})


def loaded(path: Path, name: str) -> ModuleType:
    """Return the module of a file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec  # noqa: S101 - a path that ends in .py
    assert spec.loader  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def evidence(path: Path) -> Evidence:
    """Read a file of evidence."""
    module = loaded(path, f"evidence_of_{path.parts[-3]}")
    at_once, on_request, outside = (getattr(module, name, {}) for name in KINDS)
    packed = gzip.compress(program(path).encode(), mtime=0)
    return Evidence(
        service=getattr(module, "SERVICE", ""),
        each=getattr(module, "EACH", ""),
        at_once=tuple(at_once),
        outside=tuple(outside),
        places=(*at_once, *on_request, *outside),
        packed=base64.b64encode(packed).decode(),
    )


def all_evidence(roles: Path = ROLES) -> Iterator[Evidence]:
    """Give the host's evidence, then each role's."""
    yield evidence(HERE / "host.py")
    for room in rooms(roles):
        for path in sorted(room.glob("evidence*.py")):
            yield evidence(path)
