"""Gets the gateway's certificate from an ACME server, and the next one in time.

Debian's certbot speaks to the server and answers its challenge, which the gateway hands on. Here it
is decided when one is due and when a failure is tried again. The account's key, the state and what
is served are in one volume; only what is served can be read by the gateway.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SETTINGS = Path("/config/acme.json")
AUTHORITY = Path("/config/acme-ca.crt")
PLACE = Path("/acme")
# there once it is known whether there is a certificate, or has waited long enough to know
KNOWN = Path("/tmp/known")  # noqa: S108 - the container's own
KNOWN_WITHIN = 30.0  # seconds
PORT = 8080  # where the gateway sends the server's challenge
TICK = 5.0  # seconds between two looks at the clock
PATIENCE = 600.0  # seconds that one attempt may take
REVOKED_WITHIN = 60.0  # seconds
SHOWN_WITHIN = 30.0  # seconds in which the gateway shows a new one
# seconds after the first failure, the second ...; the best known server allows 5 in an hour
BACK_OFF = (60, 300, 900, 3600)
LEFT = 3  # a certificate is renewed when one part of so many of its time is left
OWN = "the platform's own"
FORGOTTEN = re.compile(r"(?i)accountDoesNotExist|\baccount .*(not found|does not exist)")
NO_WAY = (
    r"Failed to resolve|Name or service not known|Connection refused|No route to host"
    r"|Network is unreachable|timed out"
)
# the first that is found tells most
KNOWN_REASONS = (
    (
        re.compile(r"Domain: +(?P<name>.+)\n +Type: +(?P<kind>.+)\n +Detail: +(?P<detail>.+)"),
        (
            "it could not check {name} ({kind}: {detail}): let that name lead to this host from "
            "where the server is, and its port 80 to gateway_http_port"
        ),
    ),
    (
        re.compile("CERTIFICATE_VERIFY_FAILED"),
        "its own certificate is not trusted here: gateway_acme_ca names its authority",
    ),
    (
        FORGOTTEN,
        "it does not know this account any more, so the next attempt registers another",
    ),
    (
        re.compile("invalid email address"),
        "it does not take gateway_acme_email: give an address that exists, or none",
    ),
    (
        re.compile(f"(?P<how>{NO_WAY})"),
        "it cannot be reached ({how}): see gateway_acme_directory, and name servers",
    ),
    (
        re.compile(r"Response \[404\]|'newNonce'|JSONDecodeError"),
        "there is no ACME directory at that address: correct gateway_acme_directory",
    ),
)
UNKNOWN = "--register-unsafely-without-email"
LONGEST = 400  # characters of what a server says


@dataclass(frozen=True)
class Settings:
    """What the inventory says, and the PEM by which the server's own TLS is trusted."""

    directory: str
    email: str
    names: list[str]
    # changes when secrets are rotated: account and key are made anew then
    generation: str
    authority: str = field(default="", repr=False)

    def source(self) -> str:
        """Return what another server or another generation changes, a word of it each."""
        return f"{digest(self.directory)}-{digest(self.generation)}"

    def all(self) -> str:
        """Return what any other setting changes."""
        return digest(json.dumps(asdict(self), sort_keys=True))


@dataclass(frozen=True)
class State:
    """What is remembered from one start to the next."""

    asked: str = ""  # settings of the attempts below
    failures: int = 0
    tried_again: float = 0.0  # when, in seconds since the epoch
    problem: str = ""
    source: str = ""  # what the certificate that is served comes from


class RefusedError(Exception):
    """The server does not do it; the sentence says why and what to do."""


class ForgottenError(RefusedError):
    """It does not know the account."""


def digest(*words: str) -> str:
    """Return a short name for some words."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def held(place: Path) -> x509.Certificate | None:
    """Return the certificate that is served, None where there is none that can be read."""
    try:
        return x509.load_pem_x509_certificates((place / "served.pem").read_bytes())[0]
    except (OSError, ValueError):
        return None


def is_due(found: x509.Certificate | None, settings: Settings, state: State, at: datetime) -> bool:
    """Tell whether another certificate is needed: none, other names, source, or too old."""
    if found is None or state.source != settings.source():
        return True
    there = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if set(there.get_values_for_type(x509.DNSName)) != {name.lower() for name in settings.names}:
        return True
    life = found.not_valid_after_utc - found.not_valid_before_utc
    return found.not_valid_after_utc - at < life / LEFT


def wait_after(failures: int) -> float:
    """Return how many seconds pass between a failure, counted from 1, and the next attempt."""
    return float(BACK_OFF[min(failures, len(BACK_OFF)) - 1])


def reason(output: str) -> str:
    """Say in a sentence, and no more than one, why certbot failed, and what to do about it."""
    for pattern, sentence in KNOWN_REASONS:
        if found := pattern.search(output):
            told = {key: cut(value) for key, value in found.groupdict().items()}
            return sentence.format(**told)
    _, marked, rest = output.partition("An unexpected error occurred:")
    lines = [line.strip() for line in (rest if marked else output).splitlines()]
    told_lines = [line for line in lines if line and not line.startswith(("Ask for", "Saving"))]
    said = told_lines[0 if marked else -1] if told_lines else "nothing"
    return "it says: " + cut(re.sub(r"^[\w.]+(Error|Exception): ", "", said))


def cut(text: str) -> str:
    """Return a text on one line, of a length that somebody reads."""
    line = " ".join(re.sub(r"acme-challenge/[\w-]+", "acme-challenge/…", text).split())
    return line.rstrip(".") if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def asked_for(settings: Settings, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the PEM of a request for a certificate."""
    names = x509.SubjectAlternativeName([x509.DNSName(name.lower()) for name in settings.names])
    begun = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = begun.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def command(settings: Settings, accounts: Path, here: Path) -> list[str]:
    """Return the words that have certbot answer a request, csr.pem, by fullchain.pem beside it."""
    return [
        *("certbot", "certonly", "--non-interactive", "--agree-tos", "--no-eff-email"),
        *(["--email", settings.email] if settings.email else [UNKNOWN]),
        *("--standalone", f"--http-01-port={PORT}"),
        *(f"--server={settings.directory}", f"--csr={here / 'csr.pem'}"),
        *(f"--{what}-path={here / what}.pem" for what in ("cert", "chain", "fullchain")),
        *(f"--{what}-dir={here / what}" for what in ("work", "logs")),
        f"--config-dir={accounts}",
    ]


def certbot(words: list[str], settings: Settings, patience: float) -> None:
    """Run it for so many seconds at most.

    Raises:
        RefusedError: it fails; a ForgottenError where the server does not know the account.
    """
    trusted = {"REQUESTS_CA_BUNDLE": str(AUTHORITY)} if settings.authority else {}
    try:
        done = subprocess.run(  # noqa: S603 - words of our own
            words,
            env={**os.environ, **trusted},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RefusedError(f"it came to no end within {patience:.0f} seconds") from None
    if done.returncode:
        kind = ForgottenError if FORGOTTEN.search(done.stdout) else RefusedError
        raise kind(reason(done.stdout))


def got(settings: Settings, accounts: Path) -> bytes:
    """Return a new key with its certificate and those between it and the authority, as PEM.

    Raises:
        RefusedError: the server gives none, or cannot be asked.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        (here / "csr.pem").write_bytes(asked_for(settings, key))
        try:
            certbot(command(settings, accounts, here), settings, PATIENCE)
        except ForgottenError:
            shutil.rmtree(accounts)
            raise
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return private + (here / "fullchain.pem").read_bytes()


def keep(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    Path(part).chmod(mode)
    Path(part).replace(path)


def remembered(place: Path) -> State:
    """Return the state that is kept, the first one where there is none that can be read."""
    try:
        return State(**json.loads((place / "state.json").read_text()))
    except (OSError, ValueError, TypeError):
        return State()


def save(place: Path, state: State) -> None:
    """Keep the state."""
    keep(place / "state.json", json.dumps(asdict(state)).encode(), 0o600)


def turn(settings: Settings, place: Path, state: State) -> State:
    """Get a certificate where one is due and the last failure long enough ago; the new state."""
    now = datetime.now(UTC)
    if state.asked != settings.all():
        state = State(asked=settings.all(), source=state.source)
    found = held(place)
    if not is_due(found, settings, state, now):
        return State(asked=state.asked, source=state.source)
    if now.timestamp() < state.tried_again:
        return state
    accounts = place / "accounts"
    own = accounts / settings.source()
    for directory in (accounts, own):
        directory.mkdir(exist_ok=True, mode=0o700)
    names = ", ".join(settings.names)
    failures = state.failures + 1
    again = now + timedelta(seconds=wait_after(failures))
    # remembered before it is known, so that who is killed meanwhile does not ask at each start
    state = replace(state, failures=failures, tried_again=again.timestamp())
    save(place, state)
    try:
        content = got(settings, own)
    except RefusedError as error:
        shown = f"one that ends on {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC" if found else OWN
        problem = (
            f"{settings.directory} gives no certificate for {names}: {error}. The gateway goes on "
            f"with {shown}; the next attempt is at {again:%Y-%m-%d %H:%M} UTC."
        )
        return replace(state, problem=problem)
    keep(place / "served.pem", content, 0o640)
    for other in accounts.iterdir():
        if other != own:
            shutil.rmtree(other)
    good = State(asked=state.asked, source=settings.source())
    came = held(place)
    if not is_due(came, settings, good, datetime.now(UTC)):
        return good
    # or there would be an order at each look
    ends = f", which ends on {came.not_valid_after_utc:%Y-%m-%d %H:%M} UTC," if came else ""
    problem = (
        f"{settings.directory} gives for {names} what is due again at once: see the clock of this "
        f"host, and whether it gives these names and no other. The gateway shows that one{ends} "
        f"and the next attempt is at {again:%Y-%m-%d %H:%M} UTC."
    )
    return replace(state, source=good.source, problem=problem)


def revoked(settings: Settings, former: bytes) -> str:
    """Have a certificate, given with its key as PEM, revoked; why it could not, else empty."""
    key, begins, chain = former.partition(b"-----BEGIN CERTIFICATE-----")
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        (here / "key.pem").write_bytes(key)
        (here / "cert.pem").write_bytes(begins + chain)
        words = [
            *("certbot", "revoke", "--non-interactive", "--no-delete-after-revoke"),
            # whoever rotates takes the key for known
            *("--reason=keycompromise", f"--server={settings.directory}"),
            *(f"--{what}-path={here / what}.pem" for what in ("cert", "key")),
            *(f"--{what}-dir={here / what}" for what in ("work", "logs", "config")),
        ]
        try:
            certbot(words, settings, REVOKED_WITHIN)
        except RefusedError as error:
            return str(error)
    return ""


def is_shown(name: str, found: x509.Certificate) -> bool:
    """Tell whether the gateway shows a certificate to who asks for a name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the very bytes are compared
    try:
        with (
            socket.create_connection(("gateway", 443), 5) as raw,
            context.wrap_socket(raw, server_hostname=name) as shown,
        ):
            return shown.getpeercert(binary_form=True) == found.public_bytes(
                serialization.Encoding.DER
            )
    except OSError:
        return False


def say(text: str) -> None:
    """Tell who reads the log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def pass_by(settings: Settings, place: Path) -> None:
    """Do what is due, and tell what came of it."""
    before, old = remembered(place), held(place)
    former = (place / "served.pem").read_bytes() if old else b""
    state = turn(settings, place, before)
    # an attempt has saved that it began
    if state != remembered(place):
        save(place, state)
    if state.problem and state.problem != before.problem:
        say(state.problem)
    found = held(place)
    if found and found != old:
        ends = f"{found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        say(f"{settings.directory} gave {', '.join(settings.names)} one that ends on {ends}.")
        until = time.monotonic() + SHOWN_WITHIN
        while not is_shown(settings.names[0], found) and time.monotonic() < until:
            time.sleep(0.5)
    # of the same server, so secrets were rotated
    same = before.source.partition("-")[0] == state.source.partition("-")[0]
    still = old is not None and old.not_valid_after_utc > datetime.now(UTC)
    if old and still and same and before.source != state.source:
        why = revoked(settings, former)
        ends = f"{old.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        say(f"The one before is good until {ends}: {why}." if why else "The one before is revoked.")


def main() -> None:
    """Look at the clock for ever."""
    authority = AUTHORITY.read_text() if AUTHORITY.exists() else ""
    settings = Settings(**json.loads(SETTINGS.read_text()), authority=authority)
    last = remembered(PLACE)
    if last.problem and last.asked == settings.all():
        say(last.problem)
    waited = threading.Timer(KNOWN_WITHIN, KNOWN.touch)
    waited.daemon = True
    waited.start()
    said = ""
    while True:
        try:
            pass_by(settings, PLACE)
        except OSError as error:
            if str(error) != said:
                said = str(error)
                say(
                    f"Certificates cannot be kept ({said}): see the disk and the volume of {PLACE}."
                )
        KNOWN.touch()
        time.sleep(TICK)


if __name__ == "__main__":
    main()
