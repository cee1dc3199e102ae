"""A platform as its inventory declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# where to knock for what is open on every address
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


@dataclass(frozen=True)
class Port:
    """A port inside a container, and where its host publishes it."""

    inside: int
    address: str
    port: int
    protocol: str = "tcp"


@dataclass(frozen=True)
class Service:
    """A declared service and where it runs; `exceptions` maps a house rule to why it is broken."""

    name: str
    host: str
    container: str
    user: str
    memory: str
    ports: tuple[Port, ...]
    stage: str = "app"
    replicas: int = 1
    exposed: Sequence[int] = ()
    exceptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def containers(self) -> tuple[str, ...]:
        """Names of its containers: one a replica."""
        if self.replicas == 1:
            return (self.container,)
        return tuple(f"{self.container}-{number + 1}" for number in range(self.replicas))

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
    """Hosts that run something, services, and what roles say their checks compare with."""

    name: str
    hosts: Mapping[str, Host]
    services: Mapping[str, Service]
    promised: Mapping[str, Any]


def declared(hosts: Mapping[str, Mapping[str, Any]]) -> Platform:
    """Read the platform from its hosts' variables, each with what playbooks/verify.yml added."""
    about = {name: variables["verdict"] for name, variables in hosts.items()}
    services = {
        service: Service(
            name=service,
            host=host,
            container=f"{said['platform']}-{service}",
            **{**spec, "ports": tuple(Port(**port) for port in spec["ports"])},
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
        promised={key: value for said in about.values() for key, value in said["promised"].items()},
    )
