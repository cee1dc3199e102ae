"""Whether this user can become root on this machine, and what to do where not.

The Makefile runs this file before anything is installed, so Ansible is imported where it calls.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def may_sudo() -> bool:
    """Tell whether sudo makes this user root without asking for anything."""
    sudo = shutil.which("sudo")
    if not sudo:
        return False
    done = subprocess.run([sudo, "-n", "true"], capture_output=True, check=False)  # noqa: S603 - fixed arguments
    return done.returncode == 0


def sentence() -> str:
    """Say how root is had; empty where it is."""
    if os.geteuid() == 0 or may_sudo():
        return ""
    need = f"This needs root on this machine: you are uid {os.geteuid()} and sudo"
    if not shutil.which("sudo"):
        return f"{need} is not installed. Run as root, or install sudo and give yourself a rule."
    # not `sudo -v`: its ticket is of one terminal, and Ansible's workers leave the terminal
    return (
        f"{need} wants a password. Let Ansible ask for it with -K (make: ARGS=-K), give yourself a "
        "NOPASSWD rule in /etc/sudoers.d, or run as root."
    )


def without_root(reach: Mapping[str, Any]) -> list[str]:
    """Say how root is had where this machine is to be changed, and this user cannot become root.

    Args:
        reach: how the host is reached: `connection`, `become`, `method` and whether there is a
            `password` to become root with.
    """
    from ansible import context  # noqa: PLC0415 - see above

    wanted = reach["become"] or context.CLIARGS.get("become")
    asks = reach["password"] or any(
        context.CLIARGS.get(each) for each in ("become_ask_pass", "become_password_file")
    )
    sudo_here = (reach["connection"], reach["method"]) == ("local", "sudo")
    if asks or not wanted or not sudo_here:
        return []
    return list(filter(None, [sentence()]))


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"platform_without_root": without_root}


if __name__ == "__main__":
    sys.exit(sentence() or 0)
