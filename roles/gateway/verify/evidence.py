"""What the gateway answers to strangers and to users, and the certificate that it shows them."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_verify.evidence import TIMEOUT, Json, Reader, gather

SERVICE = "gateway-portal"
USERS = Path("/run/secrets/users.json")
# as a container of the platform reaches it
INSIDE = {"address": "gateway", "port": 443}
DAY = 86400


def opened(given: Mapping[str, Any]) -> ssl.SSLSocket:
    """Connect as a client does that trusts the platform's authority, or those of its system."""
    context = ssl.create_default_context(cadata=given["authority"] or None)
    raw = socket.create_connection((given["address"], given["port"]), TIMEOUT)
    return context.wrap_socket(raw, server_hostname=given["names"][0])


def answered(given: Mapping[str, Any], request: Mapping[str, Any]) -> Json:
    """Send one request; its status, or why there is none."""
    method, name = request.get("method", "GET"), f"{given['names'][0]}:{given['port']}"
    told = {**request, "url": f"https://{name}{request['path']}"}
    connection = http.client.HTTPConnection(name, timeout=TIMEOUT)
    try:
        connection.sock = opened(given)
        connection.request(method, request["path"], headers=request.get("headers", {}))
        return {**told, "status": connection.getresponse().status, "error": ""}
    except (OSError, http.client.HTTPException) as error:
        return {**told, "status": 0, "error": str(error)}
    finally:
        connection.close()


def certificate(given: Mapping[str, Any]) -> Json:
    """Return the days of the certificate, and those left; it is trusted, or this fails."""
    with opened(given) as shown:
        found = shown.getpeercert() or {}
    begins, ends = (
        ssl.cert_time_to_seconds(str(found[f"not{end}"])) for end in ("Before", "After")
    )
    return {
        "days": round((ends - time.time()) / DAY, 4),
        "life": round((ends - begins) / DAY, 4),
    }


def of_door(given: Mapping[str, Any]) -> Json:
    """Read what `requests` are answered at an `address` and `port`, and its certificate."""
    return gather(
        {
            "answers": lambda: [answered(given, request) for request in given["requests"]],
            "certificate": lambda: certificate(given),
        }
    )


def proven(given: Mapping[str, Any], proof: Mapping[str, Any]) -> Json:
    """Ask for a path as a user who may have it; whose name that was, and what was answered."""
    groups, known = set(proof["groups"]), json.loads(USERS.read_text())
    may = [one for one in known if one["password"] and (not groups or groups & {*one["groups"]})]
    if not may:
        return {"path": proof["path"], "user": "", "status": 0, "error": ""}
    name = may[0]["name"]
    word = base64.b64encode(f"{name}:{may[0]['password']}".encode()).decode()
    request = {"path": proof["proof"], "headers": {"Authorization": f"Basic {word}"}}
    answer = answered({**given, **INSIDE}, request)
    # the request has the password
    return {
        "path": proof["path"],
        "user": name,
        **{key: answer[key] for key in ("status", "error")},
    }


def of_users(given: Mapping[str, Any]) -> Json:
    """Read what users are answered at the paths that are `proofs`, where their passwords are."""
    return gather({"proven": lambda: [proven(given, proof) for proof in given["proofs"]]})


ON_REQUEST: dict[str, Reader] = {"users": of_users}
OUTSIDE: dict[str, Reader] = {"door": of_door}
