"""Ansible's group_vars and host_vars, but what cannot be read is told with its file and line."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.vars.host_group_vars import VarsModule as HostGroupVars

DOCUMENTATION = """
name: told_where
short_description: Ansible's group_vars and host_vars, with file and line of what cannot be read
description:
  - The plugin of Ansible that it stands in for tells of an entry that is there twice, or of text
    that is no YAML, without the file's name.
options:
  stage:
    ini: [{key: stage, section: vars_told_where}]
extends_documentation_fragment:
  - vars_plugin_staging
"""


class VarsModule(HostGroupVars):  # type: ignore[misc]  # Ansible ships no types
    """The plugin."""

    def load_found_files(self, loader: Any, data: Any, found_files: Any) -> Any:  # noqa: ANN401
        """Read the files of one group or host."""
        try:
            return super().load_found_files(loader, data, found_files)
        except AnsibleError as error:
            origin = error.obj
            if not getattr(origin, "line_num", None):
                raise
            where = f"{origin.path or origin.description}, line {origin.line_num}"
            raise AnsibleParserError(f"{where}: {error.message}") from error
