"""What the programs of a run find in their environment on a host, whoever's shell it was.

The Makefile's block on the shell does the same where a run begins.
"""

from __future__ import annotations

from ansible.plugins.lookup import LookupBase

# one engine for all: not that of a context or of a TLS setup, which only some programs know
ENGINE = {
    "DOCKER_HOST": "unix:///var/run/docker.sock",
    **dict.fromkeys(
        (
            "DOCKER_API_VERSION",
            "DOCKER_CERT_PATH",
            "DOCKER_CONTENT_TRUST",
            "DOCKER_CONTEXT",
            "DOCKER_DEFAULT_PLATFORM",
            "DOCKER_TLS",
            "DOCKER_TLS_VERIFY",
        ),
        "",
    ),
}
# another project's Compose settings, and its Python's.
OTHERS = dict.fromkeys(
    ("COMPOSE_ENV_FILES", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "PYTHONPATH"), ""
)


class LookupModule(LookupBase):  # type: ignore[misc]  # Ansible ships no types
    """Give the environment of every play: what must be set is set, what interferes is emptied."""

    def run(self, *_: object, **__: object) -> list[dict[str, str]]:
        """Return one mapping."""
        return [{**ENGINE, **OTHERS, "LC_ALL": "C.UTF-8"}]
