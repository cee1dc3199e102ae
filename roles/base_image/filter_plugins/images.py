"""Names of the images that are built here: a tag is the hash of all that goes into the image."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

TAG_LENGTH = 16
# the first that answers is taken
SOURCES = ("registry", "bootstrap")
Names = dict[str, Any]


def context_files(build: Mapping[str, Any]) -> dict[str, Path]:
    """Map every name in a build context to the file it comes from.

    Args:
        build: `context` is a directory; `files` maps further names to files elsewhere.

    Raises:
        AnsibleFilterError: a file or directory is missing, or there is no Dockerfile.
    """
    root = Path(build["context"])
    found = {str(p.relative_to(root)): p for p in sorted(root.rglob("*")) if p.is_file()}
    found |= {name: Path(path) for name, path in (build.get("files") or {}).items()}
    if "Dockerfile" not in found:
        raise AnsibleFilterError(f"build.context {root} has no Dockerfile: name its directory.")
    for name, path in found.items():
        if not path.is_file():
            raise AnsibleFilterError(f"build.files {name}: {path} is not a file: correct its path.")
    return {name: path for name, path in sorted(found.items()) if not is_litter(name)}


def is_litter(name: str) -> bool:
    """Tell whether a file plays no part in the image: sources of locks and Python's caches."""
    return name.endswith((".in", ".pyc"))


def context_archive(build: Mapping[str, Any]) -> bytes:
    """Return a build context as a tar archive that is the same whenever its files are."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in context_files(build).items():
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def digest(*parts: bytes) -> str:
    """Hash `parts` so that no two lists of parts give the same text."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:TAG_LENGTH]


def names(
    builds: Mapping[str, Mapping[str, Any]], source: str, recipe: Mapping[str, Any], prefix: str
) -> dict[str, Names]:
    """Name the base and the images on it for each source that the base may come from.

    Args:
        builds: service name -> build, of services that build their image.
        source: where the base comes from; V(auto) may become either of the others.
        recipe: what makes the base: suite, packages, registry image.
        prefix: before the colon of every name.
    """
    archives = {name: context_archive(build) for name, build in builds.items()}
    made = digest(json.dumps(recipe, sort_keys=True).encode())
    found: dict[str, Names] = {}
    for each in SOURCES if source == "auto" else (source,):
        base = f"{prefix}/base:{each}-{made}"
        images = {
            name: f"{prefix}/{name}:{digest(base.encode(), archive)}"
            for name, archive in archives.items()
        }
        found[each] = {"base": base, "images": images}
    return found


def candidates(named: Mapping[str, Names], there: Sequence[str]) -> dict[str, Names]:
    """Keep the source that most of the images `there` come from; all where none of them is."""
    count = {
        source: len({entry["base"], *entry["images"].values()} & set(there))
        for source, entry in named.items()
    }
    most = max(count, key=lambda source: count[source])
    return {most: named[most]} if count[most] else dict(named)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "base_image_candidates": candidates,
            "base_image_names": names,
        }
