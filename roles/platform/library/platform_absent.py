#!/usr/bin/python
# Ansible reads the documentation blocks first, so they stand before the imports.
# ruff: noqa: E402
"""Remove a platform from a host: what carries its label, and its project directory."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: platform_absent
short_description: Remove what carries a platform's label
description:
  - Stops and removes containers, then networks, then volumes that carry the label
    C(mlops.platform=<name>), and the project directory. Nothing else is touched, and doing it again
    changes nothing.
options:
  name:
    description: Name of the platform.
    type: str
    required: true
  directory:
    description:
      - The project directory. It is removed only where it holds this platform's C(compose.yaml), or
        is empty.
    type: path
    required: true
  keep_data:
    description: Keep the volumes.
    type: bool
    default: false
  images:
    description: Remove images built here too, where no container of any platform uses them.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Remove the platform
  platform_absent:
    name: mlops
    directory: /opt/mlops
"""

RETURN = r"""
removed:
  description: What was removed, as C(kind name).
  returned: always
  type: list
"""

import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

STOP_SECONDS = "30"


def docker(*words: str) -> list[str]:
    """Run the docker client and return the words it prints; raises RuntimeError with its error."""
    done = subprocess.run(  # noqa: S603 - the host's own client
        ["docker", *words],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.split()


def engine_answers() -> bool:
    """Tell whether there is a client and an engine behind it."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except (RuntimeError, FileNotFoundError):
        return False
    return True


def labelled(name: str, keep_data: bool) -> dict[str, list[str]]:
    """List what carries the label, by kind, in the order it can be removed."""
    label = f"label=mlops.platform={name}"
    found = {
        "container": docker("ps", "--all", "--filter", label, "--format", "{{.Names}}"),
        "network": docker("network", "ls", "--filter", label, "--format", "{{.Name}}"),
    }
    if not keep_data:
        found["volume"] = docker("volume", "ls", "--filter", label, "--format", "{{.Name}}")
    return found


def unused_images() -> list[str]:
    """List the images built here, and stages left of building them, that no container uses."""
    used = set(docker("ps", "--all", "--format", "{{.Image}}"))
    tags, ids = ("--format", "{{.Repository}}:{{.Tag}}"), ("--format", "{{.ID}}")
    built = docker("images", "--filter", "label=mlops.image", *tags)
    stages = docker("images", "--filter", "label=mlops.stage", "--filter", "dangling=true", *ids)
    # the base goes last: the others stand on it
    return sorted({*built} - used, key=lambda name: "/base:" in name) + stages


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
    elif kind == "image":
        for name in names:
            try:
                docker("rmi", name)
            except RuntimeError:
                continue  # another image stands on it
    else:
        docker(kind, "rm", *names)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "keep_data": {"type": "bool", "default": False},
            "images": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    name, directory = module.params["name"], Path(module.params["directory"])
    try:
        found = labelled(name, module.params["keep_data"]) if engine_answers() else {}
        listed = [f"{kind} {item}" for kind, items in found.items() for item in items]
        if not module.check_mode:
            for kind, names in found.items():
                if names:
                    remove(kind, names)
        if module.params["images"] and engine_answers():
            images = unused_images()
            listed += [f"image {item}" for item in images]
            if not module.check_mode:
                remove("image", images)
        if is_project(directory, name):
            listed.append(f"directory {directory}")
            if not module.check_mode:
                shutil.rmtree(directory)
    except RuntimeError as error:
        module.fail_json(
            msg=f"{error}. What was removed before stays removed: mend that and run again."
        )
    module.exit_json(
        changed=bool(listed), removed=listed, diff={"before": "\n".join([*listed, ""]), "after": ""}
    )


if __name__ == "__main__":
    main()
