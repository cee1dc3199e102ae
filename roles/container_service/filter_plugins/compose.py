"""From what services say of themselves to the Compose project that runs them: the house rules."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).parent))  # Ansible loads plugins by file, not by package
from declaration import all_complaints, owner, published, replicas, stage, user

LABEL = "mlops.platform"
SERVICE = "mlops.service"
IDENTITY = "mlops.identity"
DIGEST = "mlops.digest"
FILES_AT = "/config"
PIDS = 1024
START_INTERVAL_API = (1, 44)
# after its start period a sick container is called so within this many seconds on every engine
SICK_SECONDS = 30
INTERVAL, INTERVAL_AFTER_START = 5, 10
# what a declaration says as Compose does
AS_DECLARED = (
    *("deploy", "entrypoint", "expose", "extra_hosts", "group_add", "shm_size"),
    *("stop_grace_period", "ulimits", "working_dir"),
)


def service_digest(spec: Mapping[str, Any], service: Mapping[str, Any]) -> str:
    """Hash all that makes a container what it is: its service, its files and its secrets.

    As a label it makes Compose recreate a container whose files changed, which Compose would not
    notice, and shows that a running container is the declared one without asking Compose.
    """
    content = [service, spec.get("files") or {}, spec.get("secrets") or {}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def is_tmpfs(volume: object) -> bool:
    """Tell whether a volume entry is memory, and not a volume or a path on the host."""
    return isinstance(volume, str) and volume.startswith("tmpfs:")


def has_tmp(volume: object) -> bool:
    """Tell whether a volume entry is what the container has at /tmp, in place of memory."""
    return isinstance(volume, str) and volume.partition(":")[2].partition(":")[0] == "/tmp"  # noqa: S108


def healthcheck(spec: Mapping[str, Any], start_seconds: int, engine_api: str) -> dict[str, Any]:
    """Return the health check of a service, unhealthy at the same second on every engine.

    An engine that knows a start interval asks often while a container starts, and seldom after.
    """
    given = spec["healthcheck"]
    timing: dict[str, Any] = {"interval": f"{INTERVAL}s", "retries": SICK_SECONDS // INTERVAL}
    if tuple(int(part) for part in engine_api.split(".")) >= START_INTERVAL_API:
        timing = {
            "interval": f"{INTERVAL_AFTER_START}s",
            "retries": SICK_SECONDS // INTERVAL_AFTER_START,
            "start_interval": "1s",
        }
    start = given.get("start_period") or f"{start_seconds}s"
    return {"timeout": "10s", **timing, "start_period": start, "test": list(given["test"])}


def compose_service(  # noqa: PLR0913, PLR0917 - what one service is made of
    spec: Mapping[str, Any],
    image: str,
    platform: str,
    address: str,
    engine_api: str,
    start_seconds: int,
    jobs: Iterable[str] = (),
) -> dict[str, Any]:
    """Return one service of a Compose file, the house rules added to what `spec` declares."""
    name, when = spec["name"], stage(spec)
    volumes = spec.get("volumes") or []
    service: dict[str, Any] = {
        "image": image,
        "container_name": f"{platform}-{name}" if replicas(spec) == 1 else "",
        "hostname": name if replicas(spec) == 1 else "",
        "profiles": [when] if when == "job" else [],
        "user": user(spec),
        "command": [str(word) for word in spec.get("command") or []],
        "environment": {
            key: str(value)
            for key, value in (spec.get("environment") or {}).items()
            if value is not None  # set to nothing is not the same as not set
        },
        "volumes": [volume for volume in volumes if not is_tmpfs(volume)],
        "tmpfs": [
            *(["/tmp"] if not any(has_tmp(volume) for volume in volumes) else []),  # noqa: S108
            *[volume.removeprefix("tmpfs:") for volume in volumes if is_tmpfs(volume)],
        ],
        "ports": published(spec, address),
        "depends_on": {
            each: {"condition": "service_healthy"}
            for each in spec.get("depends_on") or []
            if each not in jobs  # those have ended before
        },
        "secrets": [
            {"source": f"{name}_{key}", "target": key} for key in sorted(spec.get("secrets") or {})
        ],
        "labels": {LABEL: platform, SERVICE: name},
        "mem_limit": spec["mem_limit"],
        "memswap_limit": spec["mem_limit"],
        "pids_limit": PIDS,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "no" if when == "job" else "unless-stopped",
        "stop_grace_period": "30s",
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        **{key: spec[key] for key in AS_DECLARED if spec.get(key)},
    }
    if when != "job":
        service["healthcheck"] = healthcheck(spec, start_seconds, engine_api)
    if spec.get("files"):
        service["volumes"].append(f"./services/{name}/files:{FILES_AT}:ro")
    for rule, given in (spec.get("exceptions") or {}).items():
        service[rule] = given["value"]
    if "network_mode" in service:  # the host's: it has no name and no published ports of its own
        service |= {"hostname": "", "ports": []}
    service = {key: value for key, value in service.items() if value not in ("", [], {})}
    service["labels"][DIGEST] = service_digest(spec, service)
    return service


def compose_project(  # noqa: PLR0913, PLR0917 - a filter has no other way to be told
    declared: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, str],
    platform: str,
    address: str,
    engine_api: str,
    start_seconds: int = 180,
    identity: str = "",
) -> dict[str, Any]:
    """Return the Compose project that runs every declared service.

    Args:
        declared: service name -> declaration.
        images: service name -> reference, for services that build their image.
        platform: the platform's name; it prefixes containers, network and volumes.
        address: host address that ports are published on where a spec names none.
        engine_api: API version of the engine, such as "1.41".
        start_seconds: how long a service may take to become healthy where its spec does not say.
        identity: of the inventory, a label of each container.

    Raises:
        AnsibleFilterError: a declaration has a fault that the types of the argument spec let
            through; with the service's name, the value seen and what is expected.
    """
    if wrong := all_complaints(declared):
        raise AnsibleFilterError(wrong[0])
    label = {"labels": {LABEL: platform}}
    jobs = [name for name, spec in declared.items() if stage(spec) == "job"]
    secrets = {
        f"{name}_{key}": {"file": f"./services/{name}/secrets/{key}"}
        for name, spec in declared.items()
        for key in sorted(spec.get("secrets") or {})
    }
    project: dict[str, Any] = {
        "name": platform,
        "services": {
            name: compose_service(
                spec,
                spec.get("image") or images.get(builder(declared, name), ""),
                platform,
                address,
                engine_api,
                start_seconds,
                jobs,
            )
            for name, spec in declared.items()
        },
        "networks": {"default": {"name": platform, **label}},
        "volumes": {
            name: {"name": called, **label}
            for name, called in volume_names(declared, platform).items()
        },
        "secrets": secrets,
    }
    if identity:
        for service in project["services"].values():
            service["labels"][IDENTITY] = identity
    return {key: value for key, value in project.items() if value}


def volume_names(declared: Mapping[str, Mapping[str, Any]], platform: str) -> dict[str, str]:
    """Map each volume that a service declares to what the engine calls it."""
    entries = [entry for spec in declared.values() for entry in spec.get("volumes") or []]
    texts = [entry for entry in entries if isinstance(entry, str)]
    volumes = {text.partition(":")[0] for text in texts if not text.startswith(("/", "tmpfs:"))}
    return {name: f"{platform}_{name}" for name in sorted(volumes)}


def forgotten_volumes(
    declared: Mapping[str, Mapping[str, Any]], platform: str, there: Iterable[Mapping[str, Any]]
) -> list[str]:
    """List the platform's volumes that no service declares any more.

    Args:
        declared: service name -> declaration.
        platform: the platform's name.
        there: the volumes of the host, each with name and labels.
    """
    wanted = volume_names(declared, platform).values()
    ours = [each["name"] for each in there if each["labels"].get(LABEL) == platform]
    return [name for name in ours if name not in wanted]


def start_timeout(project: Mapping[str, Any]) -> int:
    """Return the seconds after which every service is healthy or known to be sick."""
    checks = [service.get("healthcheck") for service in project["services"].values()]
    slowest = max((int(check["start_period"][:-1]) for check in checks if check), default=0)
    return slowest + 2 * SICK_SECONDS


EXEC = """\
#!/bin/sh
# Run a command in the container, or Python on what comes by stdin.
[ $# -gt 0 ] || set -- python3
unset DOCKER_API_VERSION DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY
export DOCKER_HOST=unix:///var/run/docker.sock
exec docker exec -i {container} "$@"
"""


def project_file(path: str, content: object, mode: str, uid: int = 0) -> dict[str, Any]:
    """Return one file of the project, its path from the project's directory."""
    return {"path": path, "content": str(content), "mode": mode, "owner": uid}


def project_files(
    declared: Mapping[str, Mapping[str, Any]], compose_file: str, platform: str
) -> list[dict[str, Any]]:
    """List every file of the project on the host but the secrets."""
    containers = {
        name: f"{platform}-{name}{'-1' if replicas(spec) > 1 else ''}"
        for name, spec in declared.items()
        if stage(spec) != "job"
    }
    return [
        # its digests are made of secrets: whoever reads them could try passwords; and Compose
        # reads a single dollar as the start of a variable
        project_file("compose.yaml", compose_file.replace("$", "$$"), "0600"),
        *(
            project_file(f"bin/{name}", EXEC.format(container=container), "0755")
            for name, container in containers.items()
        ),
        *(
            project_file(f"services/{name}/files/{key}", content, "0644")
            for name, spec in declared.items()
            for key, content in sorted((spec.get("files") or {}).items())
        ),
    ]


def project_secrets(declared: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List every secret file of the project, each for the uid that reads it."""
    return [
        project_file(f"services/{name}/secrets/{key}", content, "0600", owner(spec))
        for name, spec in declared.items()
        for key, content in sorted((spec.get("secrets") or {}).items())
    ]


def project_folders(declared: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List the folders on the host that containers own: bound with `create_host_path`."""
    return [
        {"path": volume["source"], "owner": owner(spec)}
        for spec in declared.values()
        for volume in spec.get("volumes") or []
        if not isinstance(volume, str) and (volume.get("bind") or {}).get("create_host_path")
    ]


def project_jobs(
    names: Iterable[str], declared: Mapping[str, Mapping[str, Any]], project: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """List jobs, each with what its container carries and which services wait for its end."""
    return [
        {
            "service": name,
            "container": project["services"][name]["container_name"],
            "digest": project["services"][name]["labels"][DIGEST],
            "waiting": [
                each
                for each, spec in declared.items()
                if name in (spec.get("depends_on") or []) and stage(spec) != "job"
            ],
        }
        for name in names
    ]


def builder(declared: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Return the service that an image is named for: the first that builds the very same one."""
    build = declared[name].get("build")
    return next(each for each, spec in declared.items() if spec.get("build") == build)


def builds(declared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Map the services that images are named for to how they are built, each image once."""
    return {
        name: spec["build"]
        for name, spec in declared.items()
        if spec.get("build") and builder(declared, name) == name
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "container_service_builds": builds,
            "container_service_files": project_files,
            "container_service_folders": project_folders,
            "container_service_forgotten": forgotten_volumes,
            "container_service_jobs": project_jobs,
            "container_service_project": compose_project,
            "container_service_secrets": project_secrets,
            "container_service_start_timeout": start_timeout,
            "container_service_volumes": volume_names,
        }
