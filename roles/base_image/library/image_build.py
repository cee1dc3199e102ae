"""Build the base image and, side by side, the images that stand on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
short_description: Build the base image and, side by side, the images that stand on it
description:
  - The base comes first, then every other image at the same time, but those of one Dockerfile one
    after another, for what they begin with alike is then made once.
  - Tells its progress in a file, which the action plugin of the same name shows meanwhile.
options:
  base:
    description: What the base image is made of, by suite, packages, registry_image and mirror.
    type: dict
    required: true
  names:
    description: >-
      Names of images by the source of their base, each C(base) and C(images). The first source
      whose base is there is taken, else the first that gives one.
    type: dict
    required: true
  images:
    description: Images to build, the path of the archive that is the context of each.
    type: dict
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
"""

import configparser
import fcntl
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.docker_module import QuietModule, try_docker

LABEL = "mlops.image=true"
DOCKER_BUILD = ("docker", "build", "--force-rm", "--label", LABEL)
SETTINGS = (
    *("GOPROXY", "GONOSUMDB", "GOSUMDB", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
# the last one wins
PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
# what no image needs of its packages
EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
RECIPE = """\
FROM {image}
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
{packages} && rm -rf /var/lib/apt/lists/*
"""
STEP = re.compile(r"^Step (\d+/\d+) : (.*)")
PASSWORD = re.compile(r"://[^/@\s]*?:([^/@\s]+)@")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SHOWN = 90
TAIL = 25


class BuildError(Exception):
    """A build that failed; the message ends with the tool's own last lines."""


class Workshop:
    """The directory that builds run in: their logs, and how far they are for who waits."""

    def __init__(self, directory: Path) -> None:
        """Make `directory` where it is missing, and start an empty progress file in it."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._progress = directory, directory / "progress"
        self._lock, self._start = threading.Lock(), time.monotonic()
        self._progress.write_text("")

    def say(self, name: str, text: str) -> None:
        """Add one line about image `name` to the progress file, which another process reads."""
        seconds = time.monotonic() - self._start
        with self._lock, self._progress.open("a") as output:
            output.write(f"{seconds:5.0f} s  {name:<12} {text}\n")

    def run(
        self,
        name: str,
        command: Sequence[str],
        stdin: Path = Path("/dev/null"),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Run `command` for image `name`, its output in a log, telling progress.

        Values of `settings` reach it by its environment, which nobody else can read.

        Raises:
            BuildError: it failed.
        """
        log, last = self.log(name), deque[str](maxlen=TAIL)
        environment = {**os.environ, **(settings or {})}
        with (
            log.open("w") as output,
            stdin.open("rb") as source,
            subprocess.Popen(  # noqa: S603 - built from the module's own arguments
                command,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**environment, "DOCKER_BUILDKIT": "0", "LC_ALL": "C.UTF-8"},
            ) as process,
        ):
            for line in process.stdout or ():
                output.write(line)
                output.flush()
                last.append(COLOUR.sub("", line).rstrip())
                if step := STEP.match(line):
                    self.say(name, f"{step[1]} {step[2][:SHOWN]}")
        if code := process.returncode:
            tail = "\n".join(f"  | {line}" for line in last)
            raise BuildError(
                f"Image {name}: {command[0]} {command[1]} ended with code {code}. "
                f"Its last lines:\n{tail}\nThe whole log: {log} on this host. "
                "What was built is kept: mend the cause and run again."
            )

    def log(self, name: str) -> Path:
        """Return where the output of what makes image `name` is kept."""
        return self.directory / f"{name}.log"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other build runs in this directory."""
        with (self.directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say("all", "another build is running: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def pip_index() -> str:
    """Return the index that this host's pip is set to, or an empty string."""
    settings = configparser.ConfigParser(interpolation=None)
    for each in PIP_FILES:
        with suppress(configparser.Error):  # pip says so itself
            settings.read(Path(each).expanduser())
    return settings.get("global", "index-url", fallback="")


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


def settings_of(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the build arguments of every build: this host's settings, then those given."""
    given = {key: str(value) for key, value in params["build_args"].items()}
    return {**host_settings(os.environ), **given}


def passwords(settings: Mapping[str, str]) -> set[str]:
    """Find the passwords in the addresses of `settings`: a proxy or an index may have one."""
    return {word for value in settings.values() for word in PASSWORD.findall(value)}


def has_image(reference: str) -> bool:
    """Tell whether the engine has `reference`."""
    return bool(try_docker("image", "inspect", reference).returncode == 0)


def pull(shop: Workshop, image: str) -> bool:
    """Fetch the registry's image; False where no registry answers."""
    shop.say("base", f"asking the registry for {image}")
    try:
        shop.run("pull", ["timeout", "120", "docker", "pull", image])
    except BuildError:
        return False
    return True


def from_registry(shop: Workshop, base: Mapping[str, Any], reference: str) -> None:
    """Put the base's packages on the registry's image."""
    image, packages = base["registry_image"], " ".join(base["packages"])
    shop.say("base", f"from the registry: {image}")
    recipe = shop.directory / "base.dockerfile"
    recipe.write_text(RECIPE.format(image=image, packages=packages))
    shop.run("base", [*DOCKER_BUILD, "-t", reference, "-"], recipe)


def bootstrap(shop: Workshop, base: Mapping[str, Any], reference: str) -> None:
    """Make the base from the distribution's packages with mmdebstrap and import it."""
    archive, work = shop.directory / "base.tar", shop.directory / "bootstrap"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shop.say("base", f"mmdebstrap {base['suite']} with {', '.join(base['packages'])}")
    command = [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(base['packages'])}",
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        base["suite"],
        str(archive),
        *filter(None, [base.get("mirror")]),
    ]
    shop.run("base", command, settings={"TMPDIR": str(work)})
    shop.say("base", "docker import")
    shop.run("base", ["docker", "import", "--change", f"LABEL {LABEL}", str(archive), reference])
    archive.unlink()
    shutil.rmtree(work, ignore_errors=True)


def make_base(
    shop: Workshop, base: Mapping[str, Any], names: Mapping[str, Any]
) -> tuple[str, bool]:
    """Make the base image where it is missing; where it came from, and whether it was made now.

    Raises:
        BuildError: no source that may be asked gave it.
    """
    registry = base["registry_image"]
    for source, named in names.items():
        if has_image(named["base"]):
            return source, False
    if "registry" in names and registry and pull(shop, registry):
        from_registry(shop, base, names["registry"]["base"])
        return "registry", True
    if "bootstrap" not in names:
        tail = shop.log("pull").read_text().splitlines()[-3:]
        raise BuildError(
            f"base_image_source is registry and {registry} cannot be fetched "
            f"({' / '.join(tail)}): set base_image_source to bootstrap or auto."
        )
    if shutil.which("mmdebstrap") is None:
        raise BuildError(
            "The base image is to be bootstrapped and mmdebstrap is not installed on this host: "
            "install the package mmdebstrap, or set base_image_source to registry."
        )
    unanswered = "no registry answers: " if "registry" in names else ""
    shop.say("base", f"{unanswered}bootstrapping")
    bootstrap(shop, base, names["bootstrap"]["base"])
    return "bootstrap", True


def build(
    shop: Workshop,
    name: str,
    reference: str,
    params: Mapping[str, Any],
    arguments: Mapping[str, str],
) -> str:
    """Build image `name` with `arguments`; returns its reference."""
    archive, ca_bundle = Path(params["images"][name]), Path(params["ca_bundle"])
    with tarfile.open(archive, "a") as context, ca_bundle.open("rb") as bundle:
        entry = context.gettarinfo(arcname="ca-certificates.crt", fileobj=bundle)
        entry.mode = 0o644
        context.addfile(entry, bundle)
    words = [word for key in arguments for word in ("--build-arg", key)]
    began = time.monotonic()
    shop.run(name, [*DOCKER_BUILD, *words, "-t", reference, "-"], archive, arguments)
    shop.say(name, f"built in {time.monotonic() - began:.0f} s")
    return reference


def recipe(archive: str) -> bytes:
    """Return the Dockerfile of a context, which the engine asks for where there is none."""
    with tarfile.open(archive) as context, suppress(KeyError):
        if file := context.extractfile("Dockerfile"):
            return file.read()
    return b""


def build_in_turn(
    shop: Workshop,
    references: Mapping[str, str],
    params: Mapping[str, Any],
    arguments: Mapping[str, str],
) -> tuple[list[str], list[str]]:
    """Build images one after another; returns those that were built and what is said of others."""
    built, failures = [], []
    for name, reference in references.items():
        try:
            built.append(build(shop, name, reference, params, arguments))
        except BuildError as error:
            failures.append(str(error))
    return built, failures


def build_all(shop: Workshop, params: Mapping[str, Any]) -> dict[str, Any]:
    """Build the base, then every other image at once; raises BuildError naming each that failed."""
    source, made = make_base(shop, params["base"], params["names"])
    shop.say("base", f"built{'' if made else ' before'}: {source}")
    named = params["names"][source]
    arguments = {"BASE_IMAGE": named["base"], **settings_of(params)}
    alike: dict[bytes, dict[str, str]] = {}
    for name, archive in params["images"].items():
        if not has_image(reference := named["images"][name]):
            alike.setdefault(recipe(archive), {})[name] = reference
    with ThreadPoolExecutor(max_workers=max(1, len(alike))) as pool:
        ended = list(
            pool.map(lambda group: build_in_turn(shop, group, params, arguments), alike.values())
        )
    built = [reference for done, _ in ended for reference in done]
    if failures := [said for _, failed in ended for said in failed]:
        raise BuildError("\n".join(failures))
    return {"changed": made or bool(built), "built": built, "base_source": source}


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "base": {"type": "dict", "required": True},
            "names": {"type": "dict", "required": True},
            "images": {"type": "dict", "required": True},
            "directory": {"type": "path", "required": True},
            "ca_bundle": {"type": "path", "default": "/etc/ssl/certs/ca-certificates.crt"},
            "build_args": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=True, built=[], base_source=next(iter(params["names"])))
    if not Path(params["ca_bundle"]).is_file():
        module.fail_json(
            msg=f"base_image_ca_bundle {params['ca_bundle']} is not a file on the build host: "
            "install ca-certificates there, or name the bundle."
        )
    module.no_log_values.update(passwords(settings_of(params)))
    # what the bootstrapper and the engine make of files is to be read by every user of an image
    os.umask(0o022)
    shop = Workshop(Path(params["directory"]))
    try:
        with shop.alone():
            module.exit_json(**build_all(shop, params))
    except BuildError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
