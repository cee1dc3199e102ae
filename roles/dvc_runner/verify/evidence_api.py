"""What the runners' API answers to who has no token, read in its container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform_verify.evidence import Json, Reader, answer_to, gather

EACH = "doors"
ADDRESS = "http://127.0.0.1:8000"
ASKED = (
    {"url": f"{ADDRESS}/projects"},
    {"url": f"{ADDRESS}/projects", "headers": {"Authorization": "Bearer wrong"}},
    {"url": f"{ADDRESS}/projects/any/runs", "method": "POST"},
    {"url": f"{ADDRESS}/openapi.json"},
)


def of_api(_given: Mapping[str, Any]) -> Json:
    """Read the answers."""
    return gather({"answers": lambda: [answer_to(request) for request in ASKED]})


AT_ONCE: dict[str, Reader] = {"api": of_api}
