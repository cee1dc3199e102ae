"""Remove a platform from a host: what carries its label, and its project directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_absent
short_description: Remove what carries a platform's label
description:
  - Stops and removes containers, then networks, then volumes that carry the label
    C(mlops.platform=<name>), and the project directory. Nothing else is touched, and doing it again
    changes nothing.
options:
  name: {description: Name of the platform., type: str, required: true}
  directory:
    description: >-
      The project directory. It is removed only where it holds this platform's C(compose.yaml), or
      is empty.
    type: path
    required: true
  identity:
    description: >-
      The label C(mlops.identity) of containers that were made from this inventory. Where one has
      another, nothing is removed.
    type: str
    required: true
  keep_data: {description: Keep the volumes., type: bool, default: false}
  volumes_but:
    description: >-
      Names of volumes. Where it is given only the platform's volumes other than these are removed,
      as far as no container has them, and nothing else.
    type: list
    elements: str
"""

import shutil
from pathlib import Path

from ansible.module_utils.docker_module import DockerError, QuietModule, docker, engine_answers

STOP_SECONDS = "30"


def labelled(name: str, keep_data: bool) -> dict[str, list[str]]:
    """List what carries the label, by kind, in the order it can be removed."""
    label = ("--filter", f"label=mlops.platform={name}", "--format")
    found = {
        "container": docker("ps", "--all", *label, "{{.Names}}"),
        "network": docker("network", "ls", *label, "{{.Name}}"),
        "volume": [] if keep_data else docker("volume", "ls", *label, "{{.Name}}"),
    }
    return {kind: names for kind, names in found.items() if names}


def made_elsewhere(name: str, identity: str) -> list[str]:
    """List the identities of other inventories that containers of the platform are marked with."""
    words = ("--filter", f"label=mlops.platform={name}", "--format", '{{.Label "mlops.identity"}}')
    return sorted({*docker("ps", "--all", *words)} - {identity, ""})


def is_project(directory: Path, name: str) -> bool:
    """Tell whether a directory is this platform's project."""
    if not directory.is_dir():
        return False
    compose = directory / "compose.yaml"
    if compose.is_file():
        return f"\nname: {name}\n" in compose.read_text()
    return not any(directory.iterdir())


def remove(kind: str, names: list[str]) -> None:
    """Remove things of one kind."""
    if kind == "container":
        docker("stop", "--time", STOP_SECONDS, *names)
        docker("rm", "--force", "--volumes", *names)
    else:
        docker(kind, "rm", *names)


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "identity": {"type": "str", "required": True},
            "keep_data": {"type": "bool", "default": False},
            "volumes_but": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    name, directory = module.params["name"], Path(module.params["directory"])
    kept = module.params["volumes_but"]
    try:
        answers, identity = engine_answers(), module.params["identity"]
        if others := made_elsewhere(name, identity) if answers else []:
            module.fail_json(
                msg=f"The containers of platform {name} were made from another inventory "
                f"(mlops.identity is {', '.join(others)}, this one is {identity}), so nothing was "
                "removed: do it from there, or put its .secrets directory in place of this one, or "
                f"set platform_identity: {others[0]}."
            )
        found = labelled(name, module.params["keep_data"]) if answers else {}
        if kept is not None:
            rest = [each for each in found.get("volume", []) if each not in kept]
            # a container that is not declared any more has it until the platform is converged
            free = [each for each in rest if not docker("ps", "-aq", "--filter", f"volume={each}")]
            found = {"volume": free} if free else {}
        listed = [f"{kind} {item}" for kind, items in found.items() for item in items]
        if whole := kept is None and is_project(directory, name):
            listed.append(f"directory {directory}")
        if not module.check_mode:
            for kind, names in found.items():
                remove(kind, names)
            if whole:
                shutil.rmtree(directory)
    except DockerError as error:
        module.fail_json(
            msg=f"{error}. What was removed before stays removed: mend that and run again."
        )
    module.exit_json(
        changed=bool(listed), removed=listed, diff={"before": "\n".join([*listed, ""]), "after": ""}
    )


if __name__ == "__main__":
    main()
