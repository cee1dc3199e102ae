"""How DVC's cache and its remotes name objects: one layout, by what each hashes to.

Only the standard library is needed, for it is used on the machine that runs Ansible too.
"""

from __future__ import annotations

MD5 = "files/md5/"
LIST = ".dir"
MODE = 0o444  # by which DVC knows what it need not hash again


def key_of(name: str, place: str = MD5) -> str:
    """Return the key of the object of a hash; what DVC 2 stored has no `place`."""
    return f"{place}{name[:2]}/{name[2:]}"


def name_of(key: str) -> str:
    """Return the hash that a key spells."""
    return key.removeprefix(MD5).replace("/", "")
