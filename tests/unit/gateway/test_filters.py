"""What of the gateway's settings is refused before anything is touched."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import CertificateBuilder, DNSName, Name, SubjectAlternativeName
from cryptography.x509 import random_serial_number as serial
from tests.unit.conftest import load

gateway = load("gateway/filter_plugins/gateway.py")
lookup = load("platform/lookup_plugins/platform_certificate.py")

USER = {"name": "admin", "password": "p" * 20, "groups": ["admin"]}
ROUTE = {"path": "/mlflow/", "upstream": "http://mlflow:5000", "title": "MLflow"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate of the platform's own."""
    made = lookup.server(tmp_path_factory.mktemp("tls"), "gateway", ["lab.example", "::1"], "lab")
    return dict(made)


GIVEN = {
    "platform": "lab",
    "url": "https://lab.example:9743",
    "port": "127.0.0.1:9743",
    "http_port": "80",
    "names": ["lab.example"],
    "users": [USER],
    "routes": [ROUTE],
    "s3_upstream": "http://minio:9000",
    "session_hours": 12,
    "acme_directory": "",
    "acme_email": "",
    "acme_ca": "",
    "acme_authority": "",
}
ACME = {"acme_directory": "https://acme.example/directory"}


def faults(tls: dict[str, str], **changed: Any) -> list[str]:  # noqa: ANN401 - of any option
    """What is said of settings that are right but for what is changed."""
    return list(gateway.faults({**GIVEN, "tls": tls, **changed}))


def test_what_the_inventory_ships_with_is_taken(tls: dict[str, str]) -> None:
    assert faults(tls) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"users": []}, "gateway_users is empty"),
        ({"users": [USER, USER]}, "lists 'admin' twice"),
        ({"users": [{**USER, "name": "a:b"}]}, "no name of a user"),
        ({"users": [{**USER, "password": ""}]}, "needs either password or password_hash"),
        ({"users": [{**USER, "password": "short"}]}, "has 5 characters"),
        ({"users": [{"name": "a", "password_hash": "plain text"}]}, "no bcrypt or argon2 hash"),
        ({"routes": [{**ROUTE, "path": "/mlflow"}]}, "path '/mlflow' cannot be used"),
        ({"routes": [{**ROUTE, "path": '/a" {}/'}]}, "cannot be used"),
        ({"routes": [{**ROUTE, "path": "/login/"}]}, "cannot be used"),
        ({"routes": [ROUTE, ROUTE]}, "has path '/mlflow/' twice"),
        ({"routes": [{**ROUTE, "upstream": "mlflow:5000"}]}, "no address such as"),
        ({"routes": [{**ROUTE, "upstream": "http://a:1/;x"}]}, "no address such as"),
        ({"routes": [{**ROUTE, "groups": ["none"]}]}, "no user is in a group of /mlflow/"),
        ({"routes": [{**ROUTE, "authorization": 'token a";b'}]}, "authorization of /mlflow/"),
        ({"routes": [{**ROUTE, "authorization": "token $host"}]}, "authorization of /mlflow/"),
        ({"routes": [{**ROUTE, "authorization": "alone"}]}, "authorization of /mlflow/"),
        ({"routes": [{**ROUTE, "proof": "/other/x"}]}, "proof '/other/x' of /mlflow/ is no path"),
        ({"routes": [{**ROUTE, "proof": "/mlflow/x y"}]}, "proof '/mlflow/x y' of /mlflow/"),
        ({"names": ["other.example"]}, "not for other.example"),
        ({"names": []}, "gateway_names"),
        ({"names": ["lab.example", "a b"]}, "'a b' is no name"),
        ({"port": ""}, "gateway_port is '': give a port"),
        ({"http_port": ""}, "gateway_http_port is '': give a port"),
        ({"url": ""}, "gateway_url is ''"),
        ({"url": None}, "gateway_url is None"),
        ({"url": "https://lab.example:9743/"}, "with nothing after host and port"),
        ({"platform": None}, "gateway_platform is empty"),
        ({"routes": [{**ROUTE, "upstream": "http://mlflow:99999"}]}, "no address such as"),
        ({"routes": [{**ROUTE, "upstream": "http://mlflow:0"}]}, "no address such as"),
        ({"url": "http://lab.example"}, "gateway_url is 'http://lab.example'"),
        ({"platform": " "}, "gateway_platform is empty"),
        ({"session_hours": 0}, "gateway_session_hours is 0"),
        ({"s3_upstream": "minio:9000"}, "gateway_s3_upstream is 'minio:9000'"),
        (ACME | {"acme_directory": "http://acme.example/d"}, "gateway_acme_directory: 'http://"),
        (ACME | {"acme_email": "nobody"}, "gateway_acme_email: 'nobody' is no address"),
        (ACME | {"acme_email": "a@b.org,c@d.org"}, "gateway_acme_email: 'a@b.org,c@d.org'"),
        (ACME | {"acme_ca": "/etc/ca.pem"}, "gateway_acme_ca is no PEM of a certificate, it begin"),
        (ACME | {"acme_authority": "x\ny"}, "gateway_acme_authority is no PEM of a certificate"),
    ],
)
def test_what_would_not_work_is_refused_in_a_sentence(
    tls: dict[str, str], changed: dict[str, Any], said: str
) -> None:
    found = faults(tls, **changed)
    assert len(found) == 1, found
    assert said in found[0]
    assert found[0].endswith(".")


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "http://ana:p4ss@lab.example"},
        {"s3_upstream": "http://ana:p4/s@s@minio:9000"},
        {"routes": [{**ROUTE, "upstream": "http://ana:p4ss@mlflow:5000"}]},
        ACME | {"acme_directory": "http://ana:p4ss@acme.example/d"},
    ],
)
def test_an_address_is_told_without_its_password(
    tls: dict[str, str], changed: dict[str, Any]
) -> None:
    (said,) = faults(tls, **changed)
    assert "'http://...@" in said
    assert "p4" not in said


def signed(begins: timedelta, ends: timedelta) -> dict[str, str]:
    """A certificate for other times than now."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = Name([])
    made = (
        CertificateBuilder(name, name, key.public_key(), serial(), now + begins, now + ends)
        .add_extension(SubjectAlternativeName([DNSName("*.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    return {"certificate": pem, "key": lookup.pem(key).decode()}


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [(-2, 2, ""), (-3, -1, "ended on"), (1, 3, "set the clock")],
    ids=["good, and a wildcard", "expired", "not yet good"],
)
def test_a_certificate_is_of_now(begins: int, ends: int, said: str) -> None:
    found = faults(signed(timedelta(days=begins), timedelta(days=ends)))
    assert [said in one for one in found] == ([True] if said else [])


def test_certificate_and_key_belong_together_and_both_are_there(tls: dict[str, str]) -> None:
    other = signed(timedelta(days=-1), timedelta(days=1))["key"]
    assert "not the key of the first certificate" in faults({**tls, "key": other})[0]
    assert "without its key" in faults({**tls, "key": ""})[0]
    for broken in ({"key": "x"}, {"certificate": ""}, {"certificate": "-----BEGIN"}):
        said = faults({**tls, **broken})
        assert len(said) == 1
        assert "must be PEM" in said[0]
        assert tls["key"] not in said[0]


def test_an_authority_is_one_that_clients_can_read_and_of_now(tls: dict[str, str]) -> None:
    known, ended = tls["authority"], signed(timedelta(days=-3), timedelta(days=-1))["certificate"]
    good = ACME | {"acme_email": "ops@lab.example", "acme_ca": known, "acme_authority": known}
    assert faults(tls, **good) == []
    # a bundle may have one that nobody needs any more
    assert faults(tls, **good | {"acme_ca": f"{ended}\n{known}"}) == []
    for key in ("acme_ca", "acme_authority"):
        (said,) = faults(tls, **good | {key: ended})
        assert f"gateway_{key} ended on" in said
        (said,) = faults(tls, **good | {key: tls["key"]})
        assert "it begins with '-----BEGIN PRIVATE KEY-----'" in said
        assert tls["key"].splitlines()[1][:8] not in said
    for secret in ("".join(tls["key"].splitlines()[1:-1]), "/vAulTeD+/0123456789", "~x.y", ".p4ss"):
        (said,) = faults(tls, **good | {"acme_ca": secret})
        assert f"it has {len(secret)} characters" in said
        assert secret[:4] not in said
    (said,) = faults(tls, **good | {"acme_ca": tls["key"].replace("\n", "")})
    assert "it begins with '-----BEGIN PRIVATE KEY-----':" in said
    (said,) = faults({**tls, "authority": "/etc/ca.pem"})
    assert "gateway_tls: authority is no PEM of a certificate, it begins with '/etc/ca.pem'" in said


def test_what_no_acme_server_is_asked_for_is_not_judged(tls: dict[str, str]) -> None:
    assert faults(tls, acme_email="nobody", acme_ca="/etc/ca.pem") == []


def test_the_portal_reads_addresses_of_neighbours_and_no_secret(tls: dict[str, str]) -> None:
    route = {**ROUTE, "health": "/health", "version": "3.17", "authorization": "token t0ken"}
    told = gateway.settings([route], "lab", "", 12)
    page = json.loads(told)["pages"][0]
    assert (page["health"], page["version"]) == ("http://mlflow:5000/health", "3.17")
    assert tls["key"] not in told
    assert "PRIVATE" not in told
    assert "t0ken" not in told
    users = json.loads(gateway.accounts([USER]))
    assert users == [{**USER, "password_hash": ""}]


def test_the_verdict_is_told_what_to_ask_for_and_no_secret() -> None:
    route = {**ROUTE, "proof": "/mlflow/x?y=1", "groups": ["admin"], "authorization": "token t0ken"}
    said = [{"path": "/mlflow/", "proof": "/mlflow/x?y=1", "groups": ["admin"]}]
    assert gateway.proofs([ROUTE, route]) == said


def test_neighbours_are_sent_their_own_token_and_the_others_none(tls: dict[str, str]) -> None:
    route = {**ROUTE, "path": "/lab/", "authorization": "token aB3._~+/=-"}
    assert faults(tls, routes=[ROUTE, route]) == []
    told = gateway.authorizations([ROUTE, route])
    assert told == 'default "";\n/lab/ "token aB3._~+/=-";\n'


def test_each_neighbour_is_looked_for_once_and_reached_by_its_group() -> None:
    # a dot ends a name, so that no domain of the host's is searched for it
    upstreams = ["http://mlflow:5000", "https://other.example", "http://minio:9001"]
    upstreams += ["http://10.0.0.9:80"]
    text = gateway.neighbours(upstreams, "", "http://minio:9001", "http://portal:8000")
    assert text.splitlines() == [
        "10.0.0.9 80",
        "minio. 9001",
        "mlflow. 5000",
        "other.example. 443",
        "portal. 8000",
    ]
    assert [gateway.group(each) for each in upstreams] == [
        "http://mlflow-5000",
        "https://other.example-443",
        "http://minio-9001",
        "http://10.0.0.9-80",
    ]
