"""Remove images built here that nothing uses, and what builds left."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_unused
short_description: Remove images built here that nothing uses, and what builds left
description:
  - An image is ours if its name begins with O(prefix) and it has the label C(mlops.image), which
    what a user builds on one has too; a stage that building one left has C(mlops.stage) and no
    name. Nothing else is touched.
  - An image that a container has, of whatever platform and whether it runs or not, stays.
options:
  prefix:
    description: What stands before the last slash of the name of every image built here.
    type: str
    required: true
  names:
    description: Names of images that stay, by the source of their base, each C(base) and C(images).
    type: dict
    default: {}
  directory:
    description: Where images are built; unfinished files in it go, unless a build is under way.
    type: path
    required: true
"""

import fcntl
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.docker_module import (
    DockerError,
    QuietModule,
    docker,
    engine_answers,
    try_docker,
)

NAMELESS = "<none>:<none>"
LEFTOVERS = ("base.dockerfile", "base.tar", "bootstrap")


def listed(*filters: str) -> dict[str, str]:
    """Map the name of each image, or the id of one without, to its id."""
    words = [word for each in filters for word in ("--filter", each)]
    form = "{{.ID}} {{.Repository}}:{{.Tag}}"
    rows = [row.split() for row in docker("images", "--no-trunc", *words, "--format", form)]
    return {row[0] if NAMELESS in row else row[1]: row[0] for row in rows}


def lines(*words: str) -> list[str]:
    """Return what the docker client tells of things; of what is gone meanwhile it tells nothing."""
    said: str = try_docker(*words).stdout
    return said.splitlines()


def unused(prefix: str, keep: set[str]) -> dict[str, str]:
    """Map each image of ours that no container has and that is not to stay to its id."""
    containers = docker("ps", "--all", "--quiet", "--no-trunc")
    used = set(lines("inspect", "--format", "{{.Image}}", *containers)) if containers else set()
    named = listed("label=mlops.image").items()
    ours = {name: one for name, one in named if name.startswith(f"{prefix}/")}
    ours |= listed("label=mlops.stage", "dangling=true")
    found = {name: one for name, one in ours.items() if name not in keep and one not in used}
    # the base goes last: the others stand on it
    return dict(sorted(found.items(), key=lambda item: "/base:" in item[0]))


def layers(image: str) -> dict[tuple[str, ...], int]:
    """Map each layer of an image, by all the steps that led to it, to its bytes.

    Imported images say of their one step when it was only: their first layer tells them apart.
    """
    found = lines("inspect", "--format", '{{join .RootFS.Layers " "}}', image)
    form = "{{.CreatedAt}} {{.CreatedBy}}\t{{.Size}}"
    rows = lines("history", "--no-trunc", "--human=false", "--format", form, image)
    if not found or not rows:
        return {}
    steps = [row.rpartition("\t")[::2] for row in reversed(rows)]
    path = (found[0].partition(" ")[0], *(step for step, _ in steps))
    return {path[: at + 2]: int(size) for at, (_, size) in enumerate(steps)}


def freed(going: Iterable[str], staying: Iterable[str]) -> int:
    """Sum the bytes of layers that only images `going` have, each once."""
    gone = {key: size for image in going for key, size in layers(image).items()}
    kept = {key for image in staying for key in layers(image)} if gone else set()
    return sum(size for key, size in gone.items() if key not in kept)


@contextmanager
def no_build(directory: Path) -> Iterator[bool]:
    """Tell whether no build is under way in `directory`, and let none begin meanwhile."""
    if not directory.is_dir():
        yield True
        return
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def size_of(path: Path) -> int:
    """Sum the bytes of a file, or of all below a directory."""
    return sum(each.lstat().st_size for each in [path, *path.rglob("*")] if not each.is_dir())


def remove(images: Mapping[str, str], leftovers: list[Path]) -> None:
    """Remove images and files."""
    for name in images:
        try_docker("rmi", name)  # stays where a container was just made of it, or an image on it
    for path in leftovers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "names": {"type": "dict", "default": {}},
            "directory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    if not engine_answers():
        module.exit_json(changed=False, removed=[], freed_mb=0)
    keep = {
        name
        for each in module.params["names"].values()
        for name in (each["base"], *each["images"].values())
    }
    with no_build(directory) as free:
        if not free:
            module.fail_json(
                msg=f"Images are being built in {directory}: nothing was removed, which could be "
                "what they stand on. Run again when that has ended."
            )
        try:
            images = unused(module.params["prefix"], keep)
            staying = {one for name, one in listed().items() if name not in images}
            leftovers = [directory / name for name in LEFTOVERS if (directory / name).exists()]
            size = freed(set(images.values()) - staying, staying) + sum(map(size_of, leftovers))
            if not module.check_mode:
                remove(images, leftovers)
        except (DockerError, OSError) as error:
            module.fail_json(msg=f"{error}. Mend that and run again.")
    removed = [*images, *map(str, leftovers)]
    module.exit_json(changed=bool(removed), removed=removed, freed_mb=size // 2**20)


if __name__ == "__main__":
    main()
