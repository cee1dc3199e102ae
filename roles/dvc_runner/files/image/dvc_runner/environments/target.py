"""The Python that stages run under."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from dvc_runner.git import RunnerError

# of the oldest Debian that an image may stand on
GLIBC = "2_36"


@dataclass(frozen=True)
class Target:
    """The Python of the image."""

    python: str = "3.13"
    machine: str = os.uname().machine

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Target:
        """Take what is given of `python` and `machine`."""
        return cls(**{name: str(given[name]) for name in ("python", "machine") if given.get(name)})

    @property
    def platform(self) -> str:
        """What uv calls the platform; a Mac has another word for its own machine."""
        return f"{self.machine.replace('arm64', 'aarch64')}-manylinux_{GLIBC}"

    @property
    def full(self) -> str:
        """A version that every requirement of this Python's later patches takes."""
        return f"{self.python}.5"

    def takes(self, marker: str, extras: frozenset[str] = frozenset()) -> bool:
        """Tell whether a marker holds there, with any of these extras."""
        if not marker:
            return True
        try:
            parsed = Marker(marker)
        except InvalidMarker:
            return True  # what an old poetry wrote wrong, it took for no marker
        there = {
            "implementation_name": "cpython",
            "implementation_version": self.full,
            "os_name": "posix",
            "platform_machine": self.machine.replace("arm64", "aarch64"),
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": self.full,
            "python_version": self.python,
            "sys_platform": "linux",
        }
        return any(parsed.evaluate({**there, "extra": extra}) for extra in {"", *extras})

    def require(self, wanted: str, file: str) -> None:
        """Refuse an environment of another Python.

        Raises:
            RunnerError: `wanted`, which `file` says, does not take this one.
        """
        try:
            taken = SpecifierSet(wanted).contains(self.full)
        except InvalidSpecifier as error:
            raise RunnerError(f"{file} asks for Python {wanted!r}: {error}.") from error
        if not taken:
            raise RunnerError(
                f"{file} asks for Python {wanted} and the image has {self.python}: widen it there, "
                "name another file (requirements of its entry), or build the image on a Debian "
                "with another Python (bookworm has 3.11, trixie 3.13)."
            )
