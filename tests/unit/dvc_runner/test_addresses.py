"""Addresses are shown without their secrets."""

from __future__ import annotations

import pytest

from dvc_runner.git import without_passwords
from dvc_runner.sources import Source, explained


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("at https://me:s3cret@host/x.", "at https://me:***@host/x."),
        ("https://ghp_T0ken@host/x", "https://***@host/x"),
        ("https://ghp_T0ken:@host/x", "https://***@host/x"),
        ("https://ghp_T0ken:x-oauth-basic@host/x", "https://***@host/x"),
        ("HTTPS://me:s3cret@host/x", "HTTPS://me:***@host/x"),
        ("_https://ghp_T0ken:x@host/x", "_https://***:***@host/x"),
        ("ssh://git@host:2222/x", "ssh://git@host:2222/x"),
        ("postgresql://mlflow:s3cret@db/mlflow", "postgresql://mlflow:***@db/mlflow"),
        ("http://host:5000/x@v1 and me@host", "http://host:5000/x@v1 and me@host"),
    ],
)
def test_a_password_is_not_shown_and_no_token_that_is_there_as_a_user(
    written: str, shown: str
) -> None:
    assert without_passwords(written) == shown


def test_what_git_says_of_another_address_has_its_token_taken_out() -> None:
    said = "fatal: unable to update url base from redirection to https://ghp_T0ken@host/y"
    told = explained(Source("https://ghp_T0ken@host/x"), said)
    assert "ghp_T0ken" not in told
    assert "https://***@host/y" in told
