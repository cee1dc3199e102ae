"""Generated secrets: made once, kept for their owner alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.conftest import load

lookup = load("platform/lookup_plugins/platform_secret.py")


def test_a_secret_is_made_once_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "plat" / "key"
    before = os.umask(0)
    try:
        made = lookup.secret(path, 40, "letters_digits")
    finally:
        os.umask(before)
    assert len(made) == 40
    assert lookup.secret(path, 40, "letters_digits") == made
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_a_removed_file_gives_another_secret(tmp_path: Path) -> None:
    first = lookup.secret(tmp_path / "key", 40, "letters_digits")
    (tmp_path / "key").unlink()
    assert lookup.secret(tmp_path / "key", 40, "letters_digits") != first


def test_a_file_that_a_full_disk_left_empty_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    assert len(lookup.secret(tmp_path / "key", 20, "upper")) == 20


@pytest.mark.parametrize(("characters", "test"), [("upper", str.isupper), ("upper_digits", None)])
def test_a_secret_is_made_of_what_its_user_can_take(
    tmp_path: Path, characters: str, test: object
) -> None:
    made = lookup.secret(tmp_path / "key", 200, characters)
    assert set(made) <= set(lookup.CHARACTERS[characters])
    assert test is None or made.isalpha()


def test_all_who_ask_at_once_are_given_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(lookup.secret, tmp_path / "key", 40, "letters_digits") for _ in range(40)
        ]
    assert len({each.result() for each in asked}) == 1
