"""A generated secret of this platform, made when it is first looked at."""

from __future__ import annotations

import fcntl
import os
import secrets
import string
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: platform_secret
short_description: A generated secret of this platform
description:
  - Returns the content of the secret's file in C(platform_secrets_directory), which is made with a
    random value, mode 0600, where it is missing. Remove the file, and the next run makes another.
  - It is empty, and none is made, where C(__platform_secrets_unmade) says that a run may still be
    refused.
  - The file belongs to the user who runs Ansible, whoever the host's tasks run as.
options:
  _terms:
    description: Names of secrets, each the name of its file.
    required: true
  length:
    description: Characters of a value that is generated.
    type: int
    default: 40
  characters:
    description: What it is made of.
    type: str
    choices: [upper, upper_digits, letters_digits]
    default: letters_digits
  kept:
    description: Whether it outlives a rotation of all secrets; its file is beside their directory.
    type: bool
    default: false
"""

CHARACTERS = {
    "upper": string.ascii_uppercase,
    "upper_digits": string.ascii_uppercase + string.digits,
    "letters_digits": string.ascii_letters + string.digits,
}


def secret(path: Path, length: int, characters: str) -> str:
    """Return the secret in a file, made where it is missing; two who ask at once get the same.

    Raises:
        OSError: the file cannot be read or made.
    """
    if found := content(path):
        return found
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not content(path):
            value = "".join(secrets.choice(CHARACTERS[characters]) for _ in range(length))
            handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
            with os.fdopen(handle, "w") as output:
                output.write(f"{value}\n")
                output.flush()
                os.fsync(output.fileno())
            Path(part).replace(path)
    finally:
        os.close(directory)
    return content(path)


def content(path: Path) -> str:
    """Return what a secret's file holds, nothing where there is none or a full disk emptied it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


class LookupModule(LookupBase):  # type: ignore[misc]  # Ansible ships no types
    """The lookup."""

    def run(
        self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **kwargs: object
    ) -> list[str]:
        """Return each named secret."""
        if (variables or {}).get("__platform_secrets_unmade"):
            return ["" for _ in terms]
        self.set_options(var_options=variables, direct=kwargs)
        length, characters = self.get_option("length"), self.get_option("characters")
        place = (variables or {}).get("platform_secrets_directory")
        directory = Path(str(self._templar.template(place))) if place else None
        if directory is None:
            raise AnsibleLookupError(
                f"platform_secrets_directory is not set, so {', '.join(terms)} has no place: set "
                "it in the inventory."
            )
        start = f"{directory}." if self.get_option("kept") else f"{directory}/"
        try:
            return [secret(Path(start + name), length, characters) for name in terms]
        except OSError as error:
            way_out = (
                f"Let {directory.parent} be written to, or set platform_identity."
                if self.get_option("kept")
                else "Secrets belong to the user who runs Ansible: "
                f"`sudo chown -R $(id -un) {directory}` where another user made them."
            )
            # Ansible would tell the cause once more
            raise AnsibleLookupError(f"{error.filename}: {error.strerror}. {way_out}") from None
