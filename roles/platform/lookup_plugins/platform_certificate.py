"""A certificate of this platform's own authority, made when it is first looked at."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DOCUMENTATION = r"""
name: platform_certificate
short_description: A certificate of this platform's own authority
description:
  - Returns C(certificate), C(key) and C(authority), each PEM, for a server of this platform.
    They are kept in C(platform_secrets_directory), mode 0600, as C(<term>.crt), C(<term>.key) and
    C(ca.crt); the authority's key is C(ca.key) and never leaves this machine.
  - What is missing is made. A certificate is made anew when a third of its time is left, or when
    it is not for the given names. Remove the authority's files, and the next run makes another.
  - Each is empty, and nothing is made, where C(__platform_secrets_unmade) says that a run may still
    be refused.
options:
  _terms:
    description: What the files are called.
    required: true
  names:
    description: Names and addresses that the certificate is for.
    type: list
    elements: str
    required: true
"""

AUTHORITY_DAYS = 3650
# browsers take no longer ones
SERVER_DAYS = 397
# the clock of who looks at a new one may be behind, and its time zone wrong
SLACK = timedelta(days=1)


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def authority(
    directory: Path, platform: str
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a platform's authority, made where it is missing or ends before what it signs."""
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if certificate.exists() and key.exists():
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        if found.not_valid_after_utc > now() + timedelta(days=SERVER_DAYS):
            return found, private(key)
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{platform} platform {now():%Y-%m-%d}")]
    )
    usage = {
        each: each in ("key_cert_sign", "crl_sign")
        for each in (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        )
    }
    signed = (
        begun(name, name, made.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(made.public_key()), critical=False)
        .sign(made, hashes.SHA256())
    )
    keep(key, pem(made))
    keep(certificate, signed.public_bytes(serialization.Encoding.PEM))
    return signed, made


def begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """Return what every certificate begins with."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - SLACK)
        .not_valid_after(now() - SLACK + timedelta(days=days))
    )


def alternative(name: str) -> x509.GeneralName:
    """Return a name or an address as a certificate has it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server(directory: Path, term: str, names: Sequence[str], platform: str) -> dict[str, str]:
    """Return a server's certificate, its key and their authority, made where that is needed.

    Raises:
        OSError: a file cannot be read or made.
        ValueError: a file holds something else.
    """
    if not names:
        raise ValueError("it is for no name: give one")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        issuer, signing = authority(directory, platform)
        certificate, key = directory / f"{term}.crt", directory / f"{term}.key"
        if not (certificate.exists() and key.exists() and is_good(certificate, key, issuer, names)):
            made = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
            signed = (
                begun(subject, issuer.subject, made.public_key(), SERVER_DAYS)
                .add_extension(x509.SubjectAlternativeName(map(alternative, names)), critical=False)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(
                    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
                )
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
                    critical=False,
                )
                .sign(signing, hashes.SHA256())
            )
            keep(key, pem(made))
            keep(certificate, signed.public_bytes(serialization.Encoding.PEM))
        return {
            "certificate": certificate.read_text(),
            "key": key.read_text(),
            "authority": (directory / "ca.crt").read_text(),
        }
    finally:
        os.close(held)


def is_good(certificate: Path, key: Path, issuer: x509.Certificate, names: Sequence[str]) -> bool:
    """Tell whether a certificate needs no other: its key, authority, names, and time left."""
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        there = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError, x509.ExtensionNotFound):
        return False
    return (
        found.public_key() == private(key).public_key()
        and list(there) == [alternative(name) for name in names]
        and found.not_valid_after_utc - now() > timedelta(days=SERVER_DAYS) / 3
    )


def private(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file."""
    found = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise ValueError(  # noqa: TRY004 - a file's content
            f"{path} holds another kind of key: remove it, and the next run makes one."
        )
    return found


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as it is kept."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def keep(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its owner alone."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    with os.fdopen(handle, "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    Path(part).replace(path)


class LookupModule(LookupBase):  # type: ignore[misc]  # Ansible ships no types
    """The lookup."""

    def run(
        self, terms: Sequence[str], variables: Mapping[str, Any] | None = None, **kwargs: object
    ) -> list[dict[str, str]]:
        """Return each named certificate."""
        said = variables or {}
        if said.get("__platform_secrets_unmade"):
            return [dict.fromkeys(("certificate", "key", "authority"), "") for _ in terms]
        self.set_options(var_options=variables, direct=kwargs)
        where, platform = (
            str(self._templar.template(said.get(name, "")))
            for name in ("platform_secrets_directory", "platform_name")
        )
        names = [str(name) for name in self.get_option("names")]
        if wrong := [name for name in names if not name or not name.isascii()]:
            raise AnsibleLookupError(
                f"The certificate {' and '.join(terms)} cannot be for {', '.join(map(repr, wrong))}"
                ": give a name of letters, digits, hyphens and dots, one with others as DNS has it "
                "(xn--...)."
            )
        try:
            return [server(Path(where), term, names, platform) for term in terms]
        except (OSError, ValueError) as error:
            raise AnsibleLookupError(
                f"A certificate in {where} cannot be read or made ({error}): files there belong to "
                "the user who runs Ansible; remove one that is broken, and the next run makes it."
            ) from None  # Ansible would tell the cause once more
