"""Why Ansible ended, from what it said on the way."""

from __future__ import annotations

import re

# an inventory's plugins try a file one after the other, and only the first says what is wrong
UNREAD = re.compile(r"YAML parsing failed: (?P<what>.+)\nOrigin: (?P<path>/.*?):(?P<line>\d+)\b")


def reason(errors: str) -> str:
    """Return one sentence of what Ansible wrote to stderr; empty where it wrote nothing."""
    if found := UNREAD.search(errors):
        return f"{found['path']}, line {found['line']}: {found['what']}"
    lines = [line for line in errors.splitlines() if line.strip()]
    said = [
        line.partition("]:")[2] or line[6:]
        for line in lines
        if line.startswith(("[ERROR]:", "ERROR"))
    ]
    return " ".join((said or lines[-1:] or [""])[0].split())
