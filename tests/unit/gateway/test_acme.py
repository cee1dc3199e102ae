"""When a certificate of an ACME server is due, and what is told where there is none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.conftest import load

acme = load("gateway/files/acme/gateway_acme.py")
gateway = load("gateway/filter_plugins/gateway.py")
SERVER = "https://acme.example/dir"
SETTINGS = acme.Settings(SERVER, "ops@example.org", ["lab.example", "www.lab.example"], "1")
NOW = datetime.now(UTC)
# as certbot 4.0 said it to Pebble 2.10
REFUSED = """\
Requesting a certificate for nowhere.example

Certbot failed to authenticate some domains (authenticator: standalone). The Certificate Authority \
reported these problems:
  Domain: nowhere.example
  Type:   connection
  Detail: Get "http://nowhere.example:80/.well-known/acme-challenge/YpQVbg7UoNsAhN8c": lookup \
nowhere.example on 127.0.0.11:53: no such host

Hint: The Certificate Authority failed to download the challenge files from the temporary \
standalone webserver started by Certbot on port 80.

Some challenges have failed.
"""
FAILED = """\
Saving debug log to /tmp/logs/letsencrypt.log
An unexpected error occurred:
{}
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile \
/tmp/logs/letsencrypt.log or re-run Certbot with -v for more details.
"""


def signed(names: list[str], age: timedelta, life: timedelta) -> x509.Certificate:
    """A certificate of some age."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - age)
        .not_valid_after(NOW - age + life)
        .add_extension(alternatives, critical=True)
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize(
    ("age", "life", "due"),
    [(59, 90, False), (61, 90, True), (100, 90, True), (3, 6, False), (5, 6, True)],
)
def test_it_is_renewed_when_a_third_of_its_time_is_left(age: int, life: int, due: bool) -> None:
    held = signed(SETTINGS.names, timedelta(days=age), timedelta(days=life))
    state = acme.State(source=SETTINGS.source())
    assert acme.is_due(held, SETTINGS, state, NOW) is due


def test_another_name_server_or_generation_makes_it_due_and_another_address_does_not() -> None:
    held = signed(["www.lab.example", "lab.example"], timedelta(), timedelta(days=90))
    state = acme.State(source=SETTINGS.source())
    for change, due in (
        ({}, False),
        ({"names": ["LAB.example", "www.lab.example"]}, False),
        ({"email": "other@example.org"}, False),
        ({"names": ["lab.example"]}, True),
        ({"directory": "https://acme-staging.example/dir"}, True),
        ({"generation": "2"}, True),
    ):
        assert acme.is_due(held, replace(SETTINGS, **change), state, NOW) is due, change
    assert acme.is_due(None, SETTINGS, state, NOW)


def test_failures_are_tried_again_at_most_four_times_in_the_first_hour() -> None:
    waits = [acme.wait_after(number) for number in range(1, 11)]
    assert waits == sorted(waits)
    attempts = [sum(waits[:number]) for number in range(len(waits))]
    assert len([at for at in attempts if at < 3600]) == 4
    assert all(later - at >= 3600 for at, later in itertools.pairwise(attempts[4:]))


def test_an_attempt_is_remembered_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # there is no certbot here, as in a container that is killed while it works
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        acme.turn(SETTINGS, tmp_path, acme.State())
    state = acme.remembered(tmp_path)
    assert state.failures == 1
    assert acme.turn(SETTINGS, tmp_path, state) == state
    # who changed something need not wait
    with pytest.raises(FileNotFoundError):
        acme.turn(replace(SETTINGS, email="other@example.org"), tmp_path, state)


@pytest.mark.parametrize(
    ("names", "age"),
    [([*SETTINGS.names, "more.example"], 0), (SETTINGS.names, 89)],
    ids=["a server that adds a name", "a clock that is ahead"],
)
def test_what_is_due_again_when_it_comes_is_served_and_waited_for_like_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], age: int
) -> None:
    orders = []

    def given(*_: object) -> bytes:
        orders.append(1)
        came = signed(names, timedelta(days=age), timedelta(days=90))
        return came.public_bytes(serialization.Encoding.PEM)

    monkeypatch.setattr(acme, "got", given)
    state = acme.State()
    for _ in range(5):
        state = acme.turn(SETTINGS, tmp_path, state)
    assert len(orders) == 1
    assert acme.held(tmp_path) is not None
    assert "due again at once: see the clock" in state.problem
    for failures in (2, 3, 4):
        state = acme.turn(SETTINGS, tmp_path, replace(state, tried_again=0.0))
        assert state.failures == failures
        wait = state.tried_again - datetime.now(UTC).timestamp()
        assert wait == pytest.approx(acme.wait_after(failures), abs=30)


@pytest.mark.parametrize(
    ("change", "revokes"),
    [
        ({"generation": "2"}, True),
        ({"directory": "https://acme-staging.example/dir"}, False),
        ({"names": ["lab.example"]}, False),
    ],
    ids=["rotated", "another server", "other names"],
)
def test_rotation_revokes_the_certificate_before_once_another_is_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    revokes: bool,
) -> None:
    def given(settings: Any, *_: object) -> bytes:  # noqa: ANN401 - a class loaded from a file
        came = signed(settings.names, timedelta(), timedelta(days=90))
        return bytes(came.public_bytes(serialization.Encoding.PEM))

    ran: list[list[str]] = []

    def refused(words: list[str], *_: object) -> None:
        ran.append(words)
        raise acme.RefusedError("it says: no")

    monkeypatch.setattr(acme, "is_shown", lambda *_: True)
    monkeypatch.setattr(acme, "got", given)
    monkeypatch.setattr(acme, "certbot", refused)
    acme.pass_by(SETTINGS, tmp_path)
    assert ran == []
    monkeypatch.setattr(acme, "got", down)
    acme.pass_by(replace(SETTINGS, **change), tmp_path)
    assert ran == []
    monkeypatch.setattr(acme, "got", given)
    # who waits no longer, for another setting was changed
    acme.pass_by(replace(SETTINGS, **change, email="other@example.org"), tmp_path)
    assert [words[1] for words in ran] == ["revoke"] * revokes
    assert ("The one before is good until" in capsys.readouterr().out) is revokes
    assert acme.remembered(tmp_path).problem == ""


def test_a_renewal_that_is_good_leaves_no_failure_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = iter([61, 0])

    def given(*_: object) -> bytes:
        came = signed(SETTINGS.names, timedelta(days=next(ages)), timedelta(days=90))
        return bytes(came.public_bytes(serialization.Encoding.PEM))

    monkeypatch.setattr(acme, "is_shown", lambda *_: True)
    monkeypatch.setattr(acme, "got", given)
    before = acme.State(asked=SETTINGS.all(), source=SETTINGS.source())
    acme.keep(tmp_path / "served.pem", given(), 0o640)
    acme.save(tmp_path, before)
    acme.pass_by(SETTINGS, tmp_path)
    assert acme.remembered(tmp_path) == before


def down(*_: object) -> bytes:
    """Get nothing, as from a server that does not answer."""
    raise acme.RefusedError("it cannot be reached")


UNKNOWN_HOST = """\
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='a', port=14000): Max retries \
exceeded with url: /dir (Caused by NameResolutionError('<urllib3>: Failed to resolve 'a' \
([Errno -2] Name or service not known)'))"""
UNKNOWN_AUTHORITY = """\
requests.exceptions.SSLError: HTTPSConnectionPool(host='a', port=14000): Max retries exceeded with \
url: /dir (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]')))"""
UNKNOWN_ADDRESS = """\
Unable to register an account with ACME server. The ACME server believes nomail is an invalid \
email address. Please ensure it is a valid email and attempt registration again.
"""
POLICY = 'Order included an identifier for which issuance is forbidden by policy: "blocked.example"'


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (REFUSED, "it could not check nowhere.example (connection: "),
        (FAILED.format("ValueError: Requesting a.example/dir: Connection refused"), "(Connection"),
        (FAILED.format(UNKNOWN_HOST), "it cannot be reached (Failed to resolve)"),
        (FAILED.format(UNKNOWN_AUTHORITY), "gateway_acme_ca names its authority"),
        (UNKNOWN_ADDRESS, "it does not take gateway_acme_email"),
        (FAILED.format("acme.errors.ClientError: <Response [404]>"), "no ACME directory"),
        (
            FAILED.format("Account https://a.example/my-account/6b23434d8b7ab197 not found."),
            "the next attempt registers another",
        ),
        (FAILED.format(POLICY), f"it says: {POLICY}"),
        ("", "it says: nothing"),
    ],
)
def test_a_failure_is_told_in_one_sentence(output: str, told: str) -> None:
    said = acme.reason(output)
    assert told in said
    assert "\n" not in said
    assert "Ask for help" not in said
    assert "YpQVbg7UoNsAhN8c" not in said


def test_what_is_asked_for_has_each_name_and_its_key(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.load_pem_x509_csr(acme.asked_for(replace(SETTINGS, names=["Lab.Example"]), key))
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["lab.example"]
    assert asked.public_key() == key.public_key()
    assert acme.held(tmp_path) is None
    found = signed(["lab.example"], timedelta(), timedelta(days=1))
    acme.keep(tmp_path / "served.pem", found.public_bytes(serialization.Encoding.PEM), 0o640)
    assert acme.held(tmp_path) == found
    assert (tmp_path / "served.pem").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("directory", "names", "said"),
    [
        (SERVER, ["lab.example"], ""),
        ("", ["localhost", "10.0.0.1"], ""),
        (SERVER, ["lab.example", "localhost"], "a certificate for localhost: give names"),
        (SERVER, ["lab.example", "10.0.0.1", "::1"], "a certificate for 10.0.0.1, ::1: give names"),
        ("http://acme.example/dir", ["lab.example"], "is no address of an ACME directory such as"),
        ("letsencrypt", ["lab.example"], "is no address of an ACME directory such as"),
    ],
)
def test_what_no_acme_server_could_give_is_refused(
    directory: str, names: list[str], said: str
) -> None:
    given = {"directory": directory, "email": "", "ca": "", "authority": ""}
    found = list(gateway.acme_faults(given, names)) if directory else []
    assert len(found) == bool(said)
    assert all(said in sentence for sentence in found)
