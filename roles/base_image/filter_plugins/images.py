"""Names of the images that are built here: a tag is the hash of all that goes into the image."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

TAG_LENGTH = 16


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


def base_reference(recipe: Mapping[str, Any], prefix: str) -> str:
    """Name the base image that `recipe` (source, suite, packages, registry image) makes."""
    return f"{prefix}/base:{digest(json.dumps(recipe, sort_keys=True).encode())}"


def image_references(
    builds: Mapping[str, Mapping[str, Any]], base: str, prefix: str
) -> dict[str, str]:
    """Map each service that builds its image to the image's reference."""
    return {
        name: f"{prefix}/{name}:{digest(base.encode(), context_archive(build))}"
        for name, build in builds.items()
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "base_image_reference": base_reference,
            "base_image_references": image_references,
        }
