"""A platform as its inventory declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# where to knock for what is open on every address
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


@dataclass(frozen=True)
class Port:
    """A port inside a container, and where its host publishes it."""

    inside: int
    address: str
    port: int


@dataclass(frozen=True)
class Service:
    """A declared service and where it runs."""

    name: str
    host: str
    container: str
    user: str
    memory: str
    ports: tuple[Port, ...]

    def url(self, inside: int) -> str:
        """Address, as the host sees it, of a port inside the container.

        Raises:
            LookupError: the service declares no such port.
        """
        for port in self.ports:
            if port.inside == inside:
                address = ANY.get(port.address, port.address)
                return f"http://{f'[{address}]' if ':' in address else address}:{port.port}"
        raise LookupError(f"{self.name} declares no port {inside}")


@dataclass(frozen=True)
class Host:
    """A host: its variables in the inventory, its platform's directory."""

    variables: Mapping[str, Any]
    platform: str
    directory: str


@dataclass(frozen=True)
class Platform:
    """Hosts that run something, services, buckets (name to versioning) and users (to buckets)."""

    name: str
    hosts: Mapping[str, Host]
    services: Mapping[str, Service]
    buckets: Mapping[str, bool]
    users: Mapping[str, tuple[str, ...]]


def declared(hosts: Mapping[str, Mapping[str, Any]]) -> Platform:
    """Read the platform from its hosts' variables, each with what playbooks/verify.yml added."""
    about = {name: variables["verdict"] for name, variables in hosts.items()}
    services = {
        service: Service(
            name=service,
            host=host,
            container=f"{said['platform']}-{service}",
            user=spec["user"],
            memory=spec["memory"],
            ports=tuple(Port(**port) for port in spec["ports"]),
        )
        for host, said in about.items()
        for service, spec in said["services"].items()
    }
    used = sorted({service.host for service in services.values()})
    return Platform(
        name=about[used[0]]["platform"] if used else "",
        hosts={
            name: Host(hosts[name], about[name]["platform"], about[name]["directory"])
            for name in used
        },
        services=services,
        buckets={row["name"]: row["versioning"] for s in about.values() for row in s["buckets"]},
        users={
            row["access_key"]: tuple(row["buckets"]) for s in about.values() for row in s["users"]
        },
    )
