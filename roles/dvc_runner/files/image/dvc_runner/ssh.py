"""How DVC of this image reaches a team's SSH remotes: by the key and the host keys that were given.

Left to itself it trusts whatever host answers, tries whatever keys lie in HOME, and has no setting
for either.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

KEY, HOST_KEY = "remote_ssh_key", "remote_host_key"
BARE = re.compile(r"(sk-)?(ssh|ecdsa)-")
NOT_TRUSTED = re.compile(r"Host key is not trusted|[Hh]ost key .*(mismatch|not trusted|verif)")


def known_hosts(secrets: Path) -> bytes:
    """Return the host keys that were given, as known_hosts has them; without any it trusts none."""
    path = secrets / HOST_KEY
    lines = path.read_text().splitlines() if path.exists() else []
    named = [f"* {line.strip()}" if BARE.match(line.strip()) else line.strip() for line in lines]
    return "".join(f"{line}\n" for line in named if line).encode()


def private_keys(secrets: Path) -> list[str]:
    """Return the private keys to be tried, as text."""
    path = secrets / KEY
    # an editor or a vault may have taken its last line's end
    return ["\n".join(path.read_text().split("\r\n")).strip() + "\n"] if path.exists() else []


def pin(secrets: Path) -> None:
    """Have DVC in this process use the keys that were given for SSH, and no others.

    Raises:
        ValueError: the private key is none, or needs a passphrase.
    """
    import asyncssh  # noqa: PLC0415 - comes with DVC
    from dvc_ssh import SSHFileSystem  # noqa: PLC0415 - as above

    trusted = known_hosts(secrets)
    try:
        keys = [asyncssh.import_private_key(text) for text in private_keys(secrets)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ValueError(f"{KEY} is no private key without a passphrase: correct it.") from error
    theirs = SSHFileSystem._prepare_credentials

    def prepare(self: object, **config: Any) -> dict[str, Any]:  # noqa: ANN401 - DVC ships no types
        login: dict[str, Any] = theirs(self, **{**config, "ask_password": False})
        login |= {"known_hosts": trusted, "config": [], "agent_path": None}
        login |= {"agent_forwarding": False, "client_factory": asyncssh.SSHClient}
        login.setdefault("preferred_auth", ["publickey"])
        if keys:
            login |= {"client_keys": keys, "preferred_auth": ["publickey"]}
        return login

    SSHFileSystem._prepare_credentials = prepare
