"""How facts of a running platform are read where they are, and printed as one line of JSON.

This file, its neighbours and a role's own evidence are sent as they are to a host, or into one of
its containers, and run there by that place's own Python: to import them takes no more than the
standard library of 3.9. They state facts; what those ought to be is the checks' matter.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

# a first answer may be slow where all have just been started
TIMEOUT = 30.0
CHUNK = 1 << 20

Json = dict[str, Any]
Reader = Callable[[Mapping[str, Any]], Json]


class CannotRunError(Exception):
    """Nothing can be read here; the sentence says why."""


def gather(readers: Mapping[str, Callable[[], Any]]) -> Json:
    """Run each reader; give its value or the sentence it failed with, and its seconds."""
    gathered: Json = {}
    for name, read in readers.items():
        began = time.monotonic()
        try:
            answer: Json = {"value": read()}
        except CannotRunError:
            raise
        except Exception as error:  # one fact that cannot be read hides no other
            text = " ".join(str(error).split()) or "no message"
            answer = {"error": f"{type(error).__name__}: {text[:400]}"}
        gathered[name] = {**answer, "seconds": round(time.monotonic() - began, 2)}
    return gathered


# the platform's own addresses are asked without the proxies of a shell
NEAR = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answer_to(request: Mapping[str, Any]) -> Json:
    """Send one HTTP request, without credentials; its status, or why there is none."""
    asked = urllib.request.Request(  # noqa: S310 - the platform's own addresses
        request["url"], method=request.get("method", "GET"), headers=request.get("headers", {})
    )
    try:
        with NEAR.open(asked, timeout=TIMEOUT) as reply:
            return {**request, "status": reply.status}
    except urllib.error.HTTPError as error:
        return {**request, "status": error.code}
    except OSError as error:
        return {**request, "status": 0, "error": str(error)}


def main(places: Mapping[str, Reader], argv: list[str]) -> int:
    """Print the facts of the place that the first word names, given the second: JSON in base64."""
    try:
        found = places[argv[0]](json.loads(base64.b64decode(argv[1])))
    except CannotRunError as error:
        found = {"cannot_run": str(error)}
    # apart from what libraries print
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    return 0
