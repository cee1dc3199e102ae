"""What keeps the gateway from a certificate of an ACME server, read where certificates are got."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_verify.evidence import Json, Reader, gather

SERVICE = "gateway-acme"


def problem() -> str:
    """Return the sentence of the last attempt, empty where it was good."""
    path = Path("/acme/state.json")
    return str(json.loads(path.read_text())["problem"]) if path.exists() else ""


def of_acme(_: Mapping[str, Any]) -> Json:
    """Read how the last attempt ended."""
    return gather({"problem": problem})


ON_REQUEST: dict[str, Reader] = {"acme": of_acme}
