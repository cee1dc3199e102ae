"""How containers on a host with a proxy still reach each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

HERE = ("localhost", "127.0.0.1", "::1")
PROXIES = {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"}


def proxied(
    declared: Mapping[str, Mapping[str, Any]], bypass: str | None, platform: str
) -> dict[str, Any]:
    """Have every container that is given a proxy ask its neighbours without it.

    Args:
        declared: service name -> container_service_spec.
        bypass: whom the host's Docker client, which gives containers its own proxies, asks without
            one; None where it has none.
        platform: the platform's name.
    """
    near = [*HERE, *declared, *(f"{platform}-{name}" for name in declared)]
    return {name: without(spec, bypass, near) for name, spec in declared.items()}


def without(spec: Mapping[str, Any], bypass: str | None, near: Iterable[str]) -> Mapping[str, Any]:
    """Return a declaration that names in NO_PROXY who is `near`, beside those it has."""
    own = spec.get("environment") or {}
    if bypass is None and not PROXIES & {key.upper() for key in own}:
        return spec
    given = [bypass or "", *(str(own[key]) for key in own if key.upper() == "NO_PROXY")]
    names = [word.strip() for text in given for word in text.split(",")]
    everyone = ",".join(dict.fromkeys(name for name in [*names, *near] if name))
    return {**spec, "environment": {**own, "NO_PROXY": everyone, "no_proxy": everyone}}


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Any]:
        """Return it by name."""
        return {"container_service_proxied": proxied}
