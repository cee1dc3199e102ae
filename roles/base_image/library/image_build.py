#!/usr/bin/python
# Ansible reads the documentation blocks first, so they stand before the imports.
# ruff: noqa: E402
"""Build the base image and, side by side, the images that stand on it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_build
short_description: Build the base image and, side by side, the images that stand on it
description:
  - The base comes first, then every other image at the same time.
  - Tells its progress in a file, which the action plugin of the same name shows meanwhile.
options:
  base:
    description: The base image, by reference, source, suite, packages and registry_image.
    type: dict
    required: true
  images:
    description: Images to build, each with a name, a reference and the path of its context.
    type: list
    elements: dict
    required: true
  directory:
    description: Where build logs, progress and unfinished files are kept.
    type: path
    required: true
  ca_bundle:
    description: Certificates that builds trust. Handed to build stages; no finished image keeps it.
    type: path
    default: /etc/ssl/certs/ca-certificates.crt
  build_args:
    description: Build arguments of every build, mirrors and proxies. They win over the host's own.
    type: dict
    default: {}
  labels:
    description: Labels of every image.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Build what is missing
  image_build:
    base:
      reference: localhost/mlops/base:1
      source: bootstrap
      suite: trixie
      packages: [curl]
      registry_image: ""
    images: [{name: minio, reference: "localhost/mlops/minio:1", archive: /tmp/minio.tar}]
    directory: /opt/mlops/build
"""

RETURN = r"""
built:
  description: References of the images that were built.
  returned: success
  type: list
base_source:
  description: Where the base came from, V(registry), V(bootstrap) or V(present).
  returned: success
  type: str
"""

import configparser
import fcntl
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SETTINGS = (
    "GOPROXY",
    "GONOSUMDB",
    "GOSUMDB",
    "PIP_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
STEP = re.compile(r"^Step (\d+/\d+) : (.*)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SHOWN = 90
TAIL = 25


class BuildError(Exception):
    """A build that failed; the message ends with the tool's own last lines."""


class Progress:
    """Lines for the person who waits, in a file that another process reads."""

    def __init__(self, path: Path) -> None:
        """Start an empty progress file at `path`."""
        self._path, self._lock, self._start = path, threading.Lock(), time.monotonic()
        path.write_text("")

    def say(self, name: str, text: str) -> None:
        """Add one line about image `name`."""
        seconds = time.monotonic() - self._start
        with self._lock, self._path.open("a") as output:
            output.write(f"{seconds:5.0f} s  {name:<12} {text}\n")


def pip_index() -> str:
    """Return the index that this host's pip is set to, or an empty string."""
    for path in (
        Path.home() / ".config/pip/pip.conf",
        Path.home() / ".pip/pip.conf",
        Path("/etc/pip.conf"),
    ):
        if path.is_file():
            settings = configparser.ConfigParser(interpolation=None)
            settings.read(path)
            if value := settings.get("global", "index-url", fallback=""):
                return value
    return ""


def host_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Collect the mirrors and proxies this host is set to, from `environment` and pip's files."""
    found = {
        name: value
        for name in SETTINGS
        if (value := environment.get(name) or environment.get(name.lower()))
    }
    index = found.get("PIP_INDEX_URL") or pip_index()
    if index:
        found["PIP_INDEX_URL"] = index
        found.setdefault("UV_DEFAULT_INDEX", index)
    return found


def run(
    command: list[str], log: Path, name: str, progress: Progress, stdin: Path | None = None
) -> None:
    """Run `command` with its output in `log`, telling progress; raises BuildError when it fails."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0", "LC_ALL": "C.UTF-8"}
    lines: list[str] = []
    with (
        log.open("w") as output,
        (stdin or Path("/dev/null")).open("rb") as source,
        subprocess.Popen(  # noqa: S603 - built from the module's own arguments
            command,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        ) as process,
    ):
        for line in process.stdout or ():
            output.write(line)
            output.flush()
            lines = [*lines[-TAIL:], COLOUR.sub("", line).rstrip()]
            if step := STEP.match(line):
                progress.say(name, f"{step[1]} {step[2][:SHOWN]}")
    if code := process.returncode:
        tail = "\n".join(f"  | {line}" for line in lines[-TAIL:])
        raise BuildError(
            f"Image {name}: {command[0]} {command[1]} ended with code {code}. "
            f"Its last lines:\n{tail}\nThe whole log: {log} on this host. "
            "What was built is kept: mend the cause and run again."
        )


def has_image(reference: str) -> bool:
    """Tell whether the engine has `reference`."""
    done = subprocess.run(  # noqa: S603
        ["docker", "image", "inspect", reference],  # noqa: S607 - the host's own client
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def label_arguments(labels: Mapping[str, str]) -> list[str]:
    """Turn labels into arguments of docker build."""
    return [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]


def pull(base: Mapping[str, Any], directory: Path, progress: Progress) -> bool:
    """Fetch the registry's image; False where no registry answers."""
    progress.say("base", f"asking the registry for {base['registry_image']}")
    try:
        run(
            ["timeout", "120", "docker", "pull", base["registry_image"]],
            directory / "pull.log",
            "base",
            progress,
        )
    except BuildError:
        return False
    return True


def base_from_registry(
    base: Mapping[str, Any], labels: Mapping[str, str], directory: Path, progress: Progress
) -> None:
    """Put the base's packages on the registry's image."""
    archive = directory / "base.tar"
    recipe = (
        f"FROM {base['registry_image']}\n"
        "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "
        f"--no-install-recommends {' '.join(base['packages'])} && rm -rf /var/lib/apt/lists/*\n"
    ).encode()
    with tarfile.open(archive, "w") as output:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(recipe)
        output.addfile(entry, io.BytesIO(recipe))
    command = [
        "docker",
        "build",
        "--force-rm",
        *label_arguments(labels),
        "-t",
        base["reference"],
        "-",
    ]
    run(command, directory / "base.log", "base", progress, archive)


def bootstrap(
    base: Mapping[str, Any], labels: Mapping[str, str], directory: Path, progress: Progress
) -> None:
    """Make the base from the distribution's packages with mmdebstrap and import it."""
    archive, log = directory / "base.tar", directory / "base.log"
    work = directory / "bootstrap"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    progress.say("base", f"mmdebstrap {base['suite']} with {', '.join(base['packages'])}")
    excluded = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
    run(
        [
            "env",
            f"TMPDIR={work}",
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(base['packages'])}",
            '--aptopt=Acquire::Languages "none"',
            *[f"--dpkgopt=path-exclude={path}" for path in excluded],
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            base["suite"],
            str(archive),
            *([base["mirror"]] if base.get("mirror") else []),
        ],
        log,
        "base",
        progress,
    )
    progress.say("base", "docker import")
    changes = [
        word for key, value in labels.items() for word in ("--change", f"LABEL {key}={value}")
    ]
    run(["docker", "import", *changes, str(archive), base["reference"]], log, "base", progress)
    archive.unlink()
    shutil.rmtree(work, ignore_errors=True)


def make_base(
    base: Mapping[str, Any], labels: Mapping[str, str], directory: Path, progress: Progress
) -> str:
    """Make the base image where it is missing and return where it came from.

    Raises:
        BuildError: the one source that was asked for, or the last of V(auto), gave nothing.
    """
    if has_image(base["reference"]):
        return "present"
    source = base["source"]
    if (
        source in ("registry", "auto")
        and base["registry_image"]
        and pull(base, directory, progress)
    ):
        progress.say("base", f"from the registry: {base['registry_image']}")
        base_from_registry(base, labels, directory, progress)
        return "registry"
    if source == "registry":
        tail = (directory / "pull.log").read_text().splitlines()[-3:]
        raise BuildError(
            f"base_image_source is registry and {base['registry_image']} cannot be fetched "
            f"({' / '.join(tail)}): set base_image_source to bootstrap or auto."
        )
    if shutil.which("mmdebstrap") is None:
        raise BuildError(
            "The base image is to be bootstrapped and mmdebstrap is not installed on this host: "
            "install the package mmdebstrap, or set base_image_source to registry."
        )
    progress.say(
        "base", "no registry answers: bootstrapping" if source == "auto" else "bootstrapping"
    )
    bootstrap(base, labels, directory, progress)
    return "bootstrap"


def build(
    image: Mapping[str, Any],
    params: Mapping[str, Any],
    settings: Mapping[str, str],
    progress: Progress,
) -> str:
    """Build one image on the base; returns its reference."""
    name, archive = image["name"], Path(image["archive"])
    with tarfile.open(archive, "a") as context:
        context.add(os.path.realpath(params["ca_bundle"]), "ca-certificates.crt")
    arguments = {"BASE_IMAGE": params["base"]["reference"], **settings}
    command = [
        "docker",
        "build",
        "--force-rm",
        *label_arguments(params["labels"]),
        *[word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")],
        "-t",
        image["reference"],
        "-",
    ]
    began = time.monotonic()
    run(command, Path(params["directory"]) / f"{name}.log", name, progress, archive)
    progress.say(name, f"built in {time.monotonic() - began:.0f} s")
    return str(image["reference"])


@contextmanager
def only_one(path: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other build runs in this directory."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("all", "another build is running: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_all(params: Mapping[str, Any], progress: Progress) -> tuple[str, list[str]]:
    """Build the base, then every other image at once; raises BuildError naming each that failed."""
    directory = Path(params["directory"])
    source = make_base(params["base"], params["labels"], directory, progress)
    progress.say("base", f"built: {source}")
    settings = {**host_settings(os.environ), **params["build_args"]}
    missing = [image for image in params["images"] if not has_image(image["reference"])]
    built, failures = [], []
    with ThreadPoolExecutor(max_workers=max(1, len(missing))) as pool:
        for future in [pool.submit(build, image, params, settings, progress) for image in missing]:
            try:
                built.append(future.result())
            except BuildError as error:
                failures.append(str(error))
    if failures:
        raise BuildError("\n".join(failures))
    return source, built


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "base": {"type": "dict", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True},
            "directory": {"type": "path", "required": True},
            "ca_bundle": {"type": "path", "default": "/etc/ssl/certs/ca-certificates.crt"},
            "build_args": {"type": "dict", "default": {}},
            "labels": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, built=[], base_source="unknown")
    if not Path(module.params["ca_bundle"]).is_file():
        module.fail_json(
            msg=f"base_image_ca_bundle {module.params['ca_bundle']} is not a file on the build "
            "host: install ca-certificates there, or name the bundle."
        )
    directory = Path(module.params["directory"])
    directory.mkdir(parents=True, exist_ok=True)
    progress = Progress(directory / "progress")
    try:
        with only_one(directory / "lock", progress):
            source, built = build_all(module.params, progress)
    except BuildError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(built) or source != "present", built=built, base_source=source)


if __name__ == "__main__":
    main()
