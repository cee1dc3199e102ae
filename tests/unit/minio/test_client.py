"""Where MinIO's client cannot be had, it is said where it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.unit.conftest import load


def test_an_inventory_that_names_the_server_in_place_of_the_tool_is_told_the_tool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provision = load("minio/library/minio_provision.py")
    monkeypatch.setattr(provision, "IMPORT_ERROR", "No module named 'minio'")
    with pytest.raises(provision.ProvisionError, match="set minio_exec to /opt/<platform>/bin/mi"):
        provision.provision(SimpleNamespace(params={}), [])
