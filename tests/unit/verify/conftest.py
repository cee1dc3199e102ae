"""What loading a file of checks takes."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark that checks carry."""
    config.addinivalue_line("markers", "promise(name, hint): as in platform_verify.checking")
