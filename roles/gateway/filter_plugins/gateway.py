"""What of the gateway's settings would not work, and what its programs read of them."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

LEAST_PASSWORD = 12
HASH = re.compile(r"\$(2[aby]\$\d\d\$[./A-Za-z0-9]{53}|argon2(id|i|d)\$.+)\Z")
USER = re.compile(r"[^:\s]+\Z")
PATH = re.compile(r"/[a-z0-9][a-z0-9-]*/\Z")
UPSTREAM = re.compile(r"https?://[a-z0-9.-]+(:\d+)?\Z")
# what NGINX takes between double quotes as it is
AUTHORIZATION = re.compile(r"[A-Za-z0-9-]+ [A-Za-z0-9._~+/=-]+\Z")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
EMAIL = re.compile(r"[^@\s,?<>]+@[A-Za-z0-9.-]+\Z")
# a path, by an ending that base64 cannot have, or the label of a PEM
NO_SECRET = re.compile(r"[/~.]\S*\.[a-z]{3,4}\Z|-----BEGIN [A-Z ]+-----")
ORIGIN = re.compile(r"https://[^/\s]+\Z")
URL = re.compile(r"https://[^/\s]+(/\S*)?\Z")
TAKEN = ("/login/", "/logout/", "/state/")
Settings = Sequence[Mapping[str, Any]]


def faults(given: Mapping[str, Any]) -> list[str]:
    """Say what is wrong, in sentences that never hold a secret.

    Args:
        given: the role's variables by what follows gateway_ in their names.
    """
    acme = {key.removeprefix("acme_"): given[key] for key in given if key.startswith("acme_")}
    return [
        *door_faults(given),
        *user_faults(given["users"]),
        *route_faults(given["routes"], given["users"]),
        *tls_faults(given["tls"], given["names"], datetime.now(UTC)),
        *(acme_faults(acme, given["names"]) if acme["directory"] else ()),
    ]


def door_faults(given: Mapping[str, Any]) -> Iterator[str]:
    """Say what keeps users from finding it, or from staying."""
    for key in ("port", "http_port"):
        if not given[key]:
            yield (
                f"gateway_{key} is {given[key]!r}: give a port of the host, 'port' or "
                "'address:port'."
            )
    if not ORIGIN.match(str(given["url"] or "")):
        yield (
            f"gateway_url is {shown(given['url'])!r}: give the address that browsers have for it, "
            "such as https://lab.example.org, with nothing after host and port."
        )
    if not str(given["platform"] or "").strip():
        yield "gateway_platform is empty: give the name that pages and sessions have."
    if given["session_hours"] < 1:
        yield f"gateway_session_hours is {given['session_hours']}: give 1 or more."
    if given["s3_upstream"] and not is_upstream(given["s3_upstream"]):
        yield (
            f"gateway_s3_upstream is {shown(given['s3_upstream'])!r}: give an address such as "
            "http://server:9000 without a path, or nothing for none."
        )


def shown(address: object) -> object:
    """Return an address as it may be told: without the name and password that it may have."""
    return re.sub(r"//.*@", "//...@", address) if isinstance(address, str) else address


def twice(names: list[str]) -> list[str]:
    """List the names that are there more than once."""
    return sorted({name for name in names if names.count(name) > 1})


def user_faults(users: Settings) -> Iterator[str]:
    """Say which users could not log in."""
    names = [str(user["name"]) for user in users]
    if not names:
        yield "gateway_users is empty, so nobody could log in: name a user."
    yield from (f"gateway_users lists {name!r} twice: merge the two." for name in twice(names))
    for user in users:
        name, password, hashed = (
            str(user["name"]),
            user.get("password", ""),
            user.get("password_hash", ""),
        )
        if not USER.match(name):
            yield f"gateway_users: {name!r} is no name of a user: leave out spaces and colons."
        if bool(password) == bool(hashed):
            yield f"gateway_users: {name} needs either password or password_hash."
        elif hashed and not HASH.match(hashed):
            yield (
                f"gateway_users: password_hash of {name} is no bcrypt or argon2 hash: "
                f"`htpasswd -nB {name}` prints one after the colon."
            )
        elif password and len(password) < LEAST_PASSWORD:
            yield (
                f"gateway_users: the password of {name} has {len(password)} characters: "
                f"give {LEAST_PASSWORD} or more."
            )


def route_faults(routes: Settings, users: Settings) -> Iterator[str]:
    """Say which routes NGINX would not take, and which nobody could open."""
    known = {group for user in users for group in user.get("groups", [])}
    paths = [str(route["path"]) for route in routes]
    yield from (f"gateway_routes has path {path!r} twice: change one." for path in twice(paths))
    for route in routes:
        path, upstream = str(route["path"]), str(route["upstream"])
        if not PATH.match(path) or path in TAKEN:
            yield (
                f"gateway_routes: path {path!r} cannot be used: take one such as /runs/, of "
                "small letters, digits and hyphens, with a slash at both ends."
            )
        if not is_upstream(upstream):
            yield (
                f"gateway_routes: upstream {shown(upstream)!r} of {path} is no address such as "
                "http://server:5000, without a path."
            )
        proof = route.get("proof", "")
        if proof and not (proof.startswith(path) and proof.isprintable() and " " not in proof):
            yield f"gateway_routes: proof {proof!r} of {path} is no path below it."
        said = route.get("authorization", "")
        if said and not AUTHORIZATION.match(said):
            yield (
                f"gateway_routes: authorization of {path} is no scheme and token with a space "
                "between, such as 'token 0123abc': give it of letters, digits and ._~+/=- alone."
            )
        if (groups := route.get("groups", [])) and not known & set(groups):
            yield f"gateway_routes: no user is in a group of {path} ({', '.join(groups)})."


def tls_faults(tls: Mapping[str, str], names: Sequence[str], now: datetime) -> Iterator[str]:
    """Say why browsers and clients would refuse the certificate."""
    wrong = [name for name in names if not (NAME.match(name) or is_address(name))]
    if wrong or not names:
        said = ", ".join(map(repr, wrong)) or "none"
        yield f"gateway_names: {said} is no name or address of a host."
    if authority := tls.get("authority", ""):
        yield from pem_faults("gateway_tls: authority", authority)
    if not tls.get("key", "").strip():
        yield "gateway_tls has a certificate without its key: give both."
        return
    try:
        chain = x509.load_pem_x509_certificates(tls.get("certificate", "").encode())
        key = serialization.load_pem_private_key(tls["key"].encode(), None)
    except (ValueError, TypeError):
        yield "gateway_tls: certificate and key must be PEM, the key without a password."
        return
    leaf = chain[0]
    if public(leaf.public_key()) != public(key.public_key()):
        yield "gateway_tls: this is not the key of the first certificate: give the two together."
    if leaf.not_valid_after_utc < now:
        ended = leaf.not_valid_after_utc
        yield f"gateway_tls: the certificate ended on {ended:%Y-%m-%d}: give a new one."
    if leaf.not_valid_before_utc > now:
        begins = leaf.not_valid_before_utc
        yield (
            f"gateway_tls: the certificate begins on {begins:%Y-%m-%d %H:%M} UTC and it is "
            f"{now:%Y-%m-%d %H:%M}: set the clock of this machine."
        )
    if missing := [name for name in names if name not in wrong and not covers(leaf, name)]:
        yield (
            f"gateway_tls: the certificate is not for {', '.join(missing)}: give one that is, "
            "or take it out of gateway_names."
        )


def pem_faults(variable: str, text: str) -> Iterator[str]:
    """Say why nobody could trust anything by a text."""
    try:
        known = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        # a path where the content belongs is the usual mistake; anything else may be a key
        known_by = NO_SECRET.match(text.strip())
        seen = f"begins with {known_by[0]!r}" if known_by else f"has {len(text)} characters"
        yield (
            f"{variable} is no PEM of a certificate, it {seen}: give the content of the file, as "
            "lookup('ansible.builtin.file', '/path') reads it."
        )
        return
    if all(each.not_valid_after_utc < datetime.now(UTC) for each in known):
        ended = max(each.not_valid_after_utc for each in known)
        yield f"{variable} ended on {ended:%Y-%m-%d}: give the certificate that follows it."


def acme_faults(acme: Mapping[str, str], names: Sequence[str]) -> Iterator[str]:
    """Say why an ACME server could not be asked, or would give no certificate.

    Args:
        acme: the role's variables by what follows gateway_acme_ in their names.
        names: gateway_names.
    """
    if not URL.match(acme["directory"]):
        yield (
            f"gateway_acme_directory: {shown(acme['directory'])!r} is no address of an ACME "
            "directory such as https://acme-v02.api.letsencrypt.org/directory."
        )
    if acme["email"] and not EMAIL.match(acme["email"]):
        yield (
            f"gateway_acme_email: {acme['email']!r} is no address such as ops@example.org: give "
            "one, or nothing for none."
        )
    for key in ("ca", "authority"):
        if acme[key]:
            yield from pem_faults(f"gateway_acme_{key}", acme[key])
    never = [name for name in names if is_address(name) or name.lower() == "localhost"]
    if never:
        yield (
            f"gateway_names: no ACME server gives a certificate for {', '.join(never)}: give names "
            "that it can look up alone, or leave gateway_acme_directory empty."
        )


def public(key: Any) -> bytes:  # noqa: ANN401 - one of many kinds of keys
    """Return the bytes of a public key."""
    return bytes(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def is_address(name: str) -> bool:
    """Tell an IP address from a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def covers(leaf: x509.Certificate, name: str) -> bool:
    """Tell whether a certificate is for a name or address."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    if is_address(name):
        return ipaddress.ip_address(name) in found.get_values_for_type(x509.IPAddress)
    known = {each.lower() for each in found.get_values_for_type(x509.DNSName)}
    return bool({name.lower(), f"*.{name.lower().partition('.')[2]}"} & known)


def settings(routes: Settings, name: str, authority: str, hours: int) -> str:
    """Return what the portal reads of the inventory, as JSON."""
    pages = [
        {
            "path": route["path"],
            "title": route["title"],
            "about": route.get("about", ""),
            "groups": route.get("groups", []),
            "health": of_upstream(route, "health"),
            "version": of_upstream(route, "version"),
        }
        for route in routes
    ]
    told = {
        "name": name,
        "authority": authority,
        "session_hours": hours,
        "pages": pages,
    }
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


def location(upstream: str) -> tuple[str, int]:
    """Return host and port of a neighbour's address.

    Raises ValueError for a port that is none.
    """
    parts = urlsplit(upstream)
    if parts.port == 0:
        raise ValueError("Port out of range 1-65535")
    return str(parts.hostname), parts.port or {"http": 80, "https": 443}[parts.scheme]


def is_upstream(address: str) -> bool:
    """Tell whether a neighbour can have this address."""
    if not UPSTREAM.match(address):
        return False
    try:
        location(address)
    except ValueError:
        return False
    return True


def group(upstream: str) -> str:
    """Return a neighbour's address with the group of its addresses instead of its name."""
    host, port = location(upstream)
    return f"{urlsplit(upstream).scheme}://{host}-{port}"


def neighbours(upstreams: Sequence[str], *others: str) -> str:
    """Return the hosts and ports of neighbours, a line for each, but for those that are empty.

    A name ends with a dot: one that no container has would else be looked for in the domains that
    the host searches, and what is there be sent all that the neighbour is.
    """
    known = {location(upstream) for upstream in (*upstreams, *others) if upstream}
    return "".join(
        f"{host}{'' if is_address(host) else '.'} {port}\n" for host, port in sorted(known)
    )


def of_upstream(route: Mapping[str, Any], key: str) -> str:
    """Return the address of a path of a neighbour, or what else is said there."""
    said = str(route.get(key, ""))
    return f"{route['upstream']}{said}" if said.startswith("/") else said


def proofs(routes: Settings) -> list[dict[str, Any]]:
    """List what the verdict asks for as a user, and whose members may have it."""
    return [
        {"path": route["path"], "proof": route["proof"], "groups": route.get("groups", [])}
        for route in routes
        if route.get("proof")
    ]


def accounts(users: Settings) -> str:
    """Return users as the portal reads them, as JSON."""
    kept = ("password", "password_hash")
    told = [
        {
            "name": user["name"],
            "groups": user.get("groups", []),
            **{key: user.get(key, "") for key in kept},
        }
        for user in users
    ]
    return json.dumps(told, indent=1) + "\n"


def authorizations(routes: Settings) -> str:
    """Return what neighbours are sent as Authorization, by path, as NGINX reads it in a map."""
    known = [route for route in routes if route.get("authorization")]
    lines = [f'{route["path"]} "{route["authorization"]}";' for route in known]
    return "\n".join(['default "";', *lines, ""])


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {
            "gateway_faults": faults,
            "gateway_settings": settings,
            "gateway_group": group,
            "gateway_neighbours": neighbours,
            "gateway_accounts": accounts,
            "gateway_proofs": proofs,
            "gateway_authorizations": authorizations,
        }
