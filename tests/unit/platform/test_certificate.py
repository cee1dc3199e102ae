"""Certificates of the platform's own authority: made once, renewed in time, trusted by clients."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from cryptography import x509
from tests.unit.conftest import ROLES, load

lookup = load("platform/lookup_plugins/platform_certificate.py")
NAMES = ["lab.example", "10.1.2.3", "::1"]


def greeted(made: dict[str, str], directory: Path, name: str) -> bool:
    """Tell whether a client that trusts the authority takes the certificate for a name."""
    (directory / "served.pem").write_text(made["certificate"] + made["key"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "served.pem")
    client = ssl.create_default_context(cadata=made["authority"])
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join()
    return True


def test_a_client_with_the_authority_takes_each_name_and_no_other(tmp_path: Path) -> None:
    made = lookup.server(tmp_path, "gateway", NAMES, "lab")
    assert [greeted(made, tmp_path, name) for name in NAMES] == [True] * 3
    assert not greeted(made, tmp_path, "other.example")
    other = lookup.server(tmp_path / "other", "gateway", NAMES, "lab")
    assert not greeted({**made, "authority": other["authority"]}, tmp_path, "lab.example")


def test_it_is_made_once_in_files_that_only_their_owner_reads(tmp_path: Path) -> None:
    place = tmp_path / "secrets"
    made = lookup.server(place, "gateway", NAMES, "lab")
    assert lookup.server(place, "gateway", NAMES, "lab") == made
    modes = {each.name: each.stat().st_mode & 0o777 for each in place.iterdir()}
    assert modes == dict.fromkeys(("ca.crt", "ca.key", "gateway.crt", "gateway.key"), 0o600)


def test_other_names_or_a_lost_key_give_another_of_the_same_authority(tmp_path: Path) -> None:
    first = lookup.server(tmp_path, "gateway", NAMES, "lab")
    second = lookup.server(tmp_path, "gateway", ["new.example"], "lab")
    assert greeted({**second, "authority": first["authority"]}, tmp_path, "new.example")
    (tmp_path / "gateway.key").unlink()
    third = lookup.server(tmp_path, "gateway", ["new.example"], "lab")
    assert greeted(third, tmp_path, "new.example")
    assert third["authority"] == first["authority"]


def test_it_is_renewed_when_a_third_of_its_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lookup.server(tmp_path, "gateway", NAMES, "lab")
    real = lookup.now
    for days, same in ((200, True), (300, False)):
        monkeypatch.setattr(lookup, "now", lambda days=days: real() + timedelta(days=days))
        found = lookup.server(tmp_path, "gateway", NAMES, "lab")
        assert (found["certificate"] == first["certificate"]) is same
    assert found["authority"] == first["authority"]


def test_an_authority_that_would_end_first_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lookup.server(tmp_path, "gateway", NAMES, "lab")
    real = lookup.now
    monkeypatch.setattr(lookup, "now", lambda: real() + timedelta(days=3400))
    found = lookup.server(tmp_path, "gateway", NAMES, "lab")
    assert found["authority"] != first["authority"]
    leaf = x509.load_pem_x509_certificate(found["certificate"].encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(found["authority"].encode()))


@pytest.mark.parametrize(("hours", "trusted"), [(-23, True), (0, True), (-25, False)])
def test_a_client_whose_clock_is_behind_trusts_a_new_one(
    tmp_path: Path, hours: int, trusted: bool
) -> None:
    lookup.server(tmp_path, "gateway", NAMES, "lab")
    clock = int((lookup.now() + timedelta(hours=hours)).timestamp())
    words = ["openssl", "verify", "-attime", str(clock), "-verify_hostname", NAMES[0]]
    words += ["-CAfile", str(tmp_path / "ca.crt"), str(tmp_path / "gateway.crt")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is trusted, done.stderr
    assert trusted or "not yet valid" in done.stderr


def test_it_lasts_no_longer_than_browsers_take(tmp_path: Path) -> None:
    made = lookup.server(tmp_path, "gateway", NAMES, "lab")
    leaf = x509.load_pem_x509_certificate(made["certificate"].encode())
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc + timedelta(seconds=1)
    assert timedelta(days=396) < life < timedelta(days=398)


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    lookup.server(tmp_path, "gateway", NAMES, "lab")
    (tmp_path / "ca.key").write_text("no key")
    with pytest.raises(ValueError, match=r"key|PEM"):
        lookup.server(tmp_path, "gateway", NAMES, "lab")


@pytest.mark.parametrize("wrong", ["", "bücher.example"])
def test_a_name_that_no_certificate_has_is_refused_and_the_files_are_not_blamed(
    wrong: str, tmp_path: Path
) -> None:
    said = {"platform_secrets_directory": str(tmp_path), "platform_name": "lab"}
    lookup_loader.add_directory(str(ROLES / "platform/lookup_plugins"))
    templar = Templar(DataLoader(), said)
    found = lookup_loader.get("platform_certificate", loader=DataLoader(), templar=templar)
    with pytest.raises(AnsibleLookupError) as refused:
        found.run(["gateway"], said, names=["lab.example", wrong])
    assert f"The certificate gateway cannot be for {wrong!r}: give a name" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert not list(tmp_path.iterdir())
