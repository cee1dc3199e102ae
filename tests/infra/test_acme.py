"""A gateway whose certificate comes from an ACME server: Let's Encrypt's own for tests, Pebble."""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from tests.infra.conftest import Stack, gated_stack
from tests.infra.faults_support import (
    WITHOUT_PIPELINE,
    docker,
    image_of,
    left_of,
    lives_of,
    wait_for,
)
from tests.unit.conftest import load

lookup = load("platform/lookup_plugins/platform_certificate.py")
PORT, PLAIN_PORT = 9823, 9860
PLATFORM = "mlops-acme"
# what Docker's own name server knows the gateway by
NAME = f"{PLATFORM}-gateway.{PLATFORM}"
PEBBLE = f"{PLATFORM}-pebble"
NAMES = [PEBBLE, f"{PEBBLE}.{PLATFORM}"]
DIRECTORY = f"https://{PEBBLE}:14000/dir"
# the same server, by an address that nobody takes for the same
ANOTHER = f"https://{PEBBLE}.{PLATFORM}:14000/dir"
TRUSTED = "The gateway's certificate is trusted"
SHORT, LONG = 60, 86400  # seconds that a certificate lasts
SETTINGS = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Server:
    """An ACME server in a container beside the platform, with a directory of its settings."""

    directory: Path
    image: str

    @property
    def authority(self) -> str:
        """The PEM by which its own TLS is trusted."""
        return (self.directory / "ca.crt").read_text()

    def start(self, seconds: int, **settings: object) -> None:
        """Have it answer, with another authority than the time before."""
        self.stop()
        profile = {"default": {"description": "short", "validityPeriod": seconds}}
        told = {
            "listenAddress": ":14000",
            "managementListenAddress": ":15000",
            "certificate": "/pebble/pebble.crt",
            "privateKey": "/pebble/pebble.key",
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "domainBlocklist": [],
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            "profiles": profile,
        }
        (self.directory / "pebble.json").write_text(json.dumps({"pebble": {**told, **settings}}))
        options = (f"--name={PEBBLE}", f"--network={PLATFORM}", "--env=PEBBLE_VA_NOSLEEP=1")
        shared = f"--volume={self.directory}:/pebble:ro"
        docker("run", "--detach", *options, shared, self.image, "-config", "/pebble/pebble.json")
        wait_for(self.root, "Pebble to answer")
        if not (self.directory / "first.pem").exists():
            (self.directory / "first.pem").write_text(self.root())

    def stop(self) -> None:
        """Have nothing answer."""
        docker("rm", "--force", "--volumes", PEBBLE, check=False)

    def root(self) -> str:
        """The PEM of the authority of what it gives; empty while it does not answer."""
        return self.asked("roots/0")

    @property
    def first_root(self) -> str:
        """The PEM of the authority of what it gave when it first answered."""
        return (self.directory / "first.pem").read_text()

    def status(self, given: x509.Certificate) -> str:
        """What it says of a certificate that it gave."""
        known = self.asked(f"cert-status-by-serial/{given.serial_number:x}")
        return str(json.loads(known)["Status"])

    def asked(self, path: str) -> str:
        """What who looks after it is told; empty while it does not answer."""
        form = f'{{{{(index .NetworkSettings.Networks "{PLATFORM}").IPAddress}}}}'
        address = docker("inspect", "--format", form, PEBBLE, check=False)
        context = ssl.create_default_context(cadata=self.authority)
        context.check_hostname = False
        try:
            url = f"https://{address}:15000/{path}"
            with urllib.request.urlopen(url, context=context, timeout=5) as reply:
                return str(reply.read().decode())
        except OSError:
            return ""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway alone, whose certificate is to come from a server that is not there yet."""
    directory = tmp_path_factory.mktemp(PLATFORM)
    authority = lookup.server(directory / "pebble", "pebble", NAMES, "pebble")["authority"]
    settings = {
        "gateway_names": [NAME],
        "gateway_routes": [],
        "gateway_s3_upstream": "",
        "gateway_acme_directory": DIRECTORY,
        "gateway_acme_email": "ops@example.org",
        "gateway_acme_ca": authority,
    }
    made = gated_stack(PLATFORM, PORT, directory, "fraud", **settings)
    hosts = Path(made.inventory) / "hosts.yml"
    known = yaml.safe_load(hosts.read_text())
    known["all"]["children"] = {"gateway": known["all"]["children"]["gateway"]}
    hosts.write_text(yaml.safe_dump(known))
    try:
        # a mistake that only a server that answers shows
        up(made, gateway_acme_ca="")
        yield made
    finally:
        docker("rm", "--force", "--volumes", PEBBLE, check=False)
        made.destroy()


def built(context: Path) -> str:
    """Build Pebble where it is missing, for that takes a minute; its name, by what it is made of.

    It is kept for the next run, without what only building it needs.
    """
    recipe, base = Path(__file__).parent / "pebble/Dockerfile", image_of("base")
    made_of = hashlib.sha256(recipe.read_bytes() + base.encode()).hexdigest()[:12]
    name = f"mlops-test-pebble:{made_of}"
    if not docker("images", "--quiet", name):
        shutil.copyfile(recipe, context / "Dockerfile")
        shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", context / "ca-certificates.crt")
        given = {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}
        options = [word for name in given for word in ("--build-arg", name)]
        on = ("--build-arg", f"BASE_IMAGE={base}")
        docker("build", "--quiet", "--force-rm", "--tag", name, *on, *options, str(context))
        docker("image", "prune", "--force", "--filter", "label=mlops.stage=test-pebble")
    return name


@pytest.fixture(scope="module")
def server(platform: Stack, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """An ACME server that does not answer yet."""
    return Server(platform.directory / "pebble", built(tmp_path_factory.mktemp("image")))


def up(platform: Stack, **settings: object) -> str:
    """Bring it up with other settings than its inventory's."""
    return platform.play("site.yml", *WITHOUT_PIPELINE, **settings)


def shown() -> x509.Certificate:
    """The certificate that who asks for the name is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", PORT), 30) as raw,
        context.wrap_socket(raw, server_hostname=NAME) as greeted,
    ):
        return x509.load_der_x509_certificate(greeted.getpeercert(binary_form=True) or b"")


def is_another(first: x509.Certificate) -> bool:
    """Tell whether another certificate is shown."""
    try:
        return shown() != first
    except OSError:  # while it is started again
        return False


def curl(authority: str, directory: Path, path: str = "/login") -> subprocess.CompletedProcess[str]:
    """Ask as any client would that trusts an authority."""
    (directory / "trusted.pem").write_text(authority)
    words = ["curl", "-sS", "--noproxy", "*", "--cacert", str(directory / "trusted.pem")]
    words += ["--resolve", f"{NAME}:{PORT}:127.0.0.1", f"https://{NAME}:{PORT}{path}"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def own(platform: Stack) -> str:
    """The platform's own authority."""
    return (Path(platform.inventory) / ".secrets" / PLATFORM / "ca.crt").read_text()


def said(platform: Stack, service: str = "gateway-acme") -> str:
    """What a container tells, errors too."""
    words = ["docker", "logs", platform.container(service)]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


def state(platform: Stack) -> dict[str, object]:
    """What is remembered of attempts."""
    name = platform.container("gateway-acme")
    return dict(json.loads(docker("exec", name, "cat", "/acme/state.json")))


def remember(platform: Stack, **changed: object) -> None:
    """Change what is remembered, between two looks at it."""
    name, text = platform.container("gateway-acme"), json.dumps({**state(platform), **changed})
    whole = "cat >/acme/.changed && mv /acme/.changed /acme/state.json"
    docker("exec", "--interactive", name, "sh", "-c", whole, text=text)


def wait_is_over(platform: Stack) -> None:
    """Have the time of the next attempt come."""
    remember(platform, tried_again=0.0)


def plain(path: str, method: str = "GET") -> tuple[int, str]:
    """Ask without TLS; status and where one is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", PLAIN_PORT, timeout=30)
    connection.request(method, path, headers={"Host": NAME})
    reply = connection.getresponse()
    connection.close()
    return reply.status, reply.headers.get("Location", "")


def is_up() -> bool:
    """Tell whether the gateway answers, whatever its names are at the moment."""
    try:
        return plain("/")[0] in (308, 421)
    except (OSError, http.client.HTTPException):  # while it is started
        return False


def test_without_its_server_the_gateway_is_up_and_a_sentence_says_why(
    platform: Stack, tmp_path: Path
) -> None:
    done = curl(own(platform), tmp_path)
    assert done.returncode == 0, done.stderr
    sentence = f"{DIRECTORY} gives no certificate for {NAME}: it cannot be reached ("
    assert sentence in said(platform)
    assert "The gateway goes on with the platform's own; the next attempt is at" in said(platform)
    code, report, _ = platform.verify()
    assert code == 1
    assert sentence in next(one.detail for one in report.checks if one.name == TRUSTED)


def test_who_starts_it_again_and_again_makes_no_further_attempt(platform: Stack) -> None:
    wait_for(lambda: float(str(state(platform)["tried_again"])) > time.time() + 20, "a pause")
    before = state(platform)
    for _ in range(3):
        docker("restart", "--time", "1", platform.container("gateway-acme"))
    assert state(platform) == before
    assert before["failures"]


def test_a_server_that_is_not_trusted_is_told_and_once_it_is_stock_clients_trust_what_it_gives(
    platform: Stack, server: Server, tmp_path: Path
) -> None:
    lives = lives_of(PLATFORM)
    server.start(SHORT)
    wait_is_over(platform)
    sentence = "gateway_acme_ca names its authority"
    wait_for(lambda: sentence in said(platform), sentence)
    assert curl(own(platform), tmp_path).returncode == 0
    # a changed setting is tried at once
    root = server.root()
    up(platform, gateway_acme_authority=root)
    wait_for(lambda: curl(root, tmp_path).returncode == 0, "a certificate of Pebble's", 30)
    assert lives_of(PLATFORM)[platform.container("gateway")] == lives[platform.container("gateway")]
    assert curl(own(platform), tmp_path).returncode == 60
    assert shown().not_valid_after_utc - shown().not_valid_before_utc < timedelta(seconds=2 * SHORT)
    assert curl(root, tmp_path, "/ca.crt").stdout.strip() == root.strip()
    code, _, text = platform.verify("-e", json.dumps({"gateway_acme_authority": root}))
    assert code == 0, text


def test_it_is_renewed_in_time_with_no_restart(server: Server, tmp_path: Path) -> None:
    lives, first = lives_of(PLATFORM), shown()
    wait_for(lambda: is_another(first), "another certificate", SHORT)
    assert datetime.now(UTC) < first.not_valid_after_utc
    assert shown().public_key() != first.public_key()
    assert curl(server.root(), tmp_path).returncode == 0
    assert lives_of(PLATFORM) == lives


def test_a_server_that_was_made_anew_is_given_another_account(
    platform: Stack, server: Server, tmp_path: Path
) -> None:
    # it remembers nobody
    server.start(LONG)
    # as if one of another server was held, so that one is due
    remember(platform, source="")
    wait_for(lambda: "it does not know this account" in said(platform), "a sentence that says so")
    wait_is_over(platform)
    root = server.root()
    wait_for(lambda: curl(root, tmp_path).returncode == 0, "a certificate of the new one")


def test_starting_all_again_changes_nothing_and_asks_for_no_other_certificate(
    platform: Stack, server: Server
) -> None:
    first, trusted = shown(), {"gateway_acme_authority": server.first_root}
    for service in ("gateway-acme", "gateway"):
        docker("restart", "--time", "5", platform.container(service))
    wait_for(is_up, "the gateway")
    assert "changed=0" in up(platform, **trusted)
    assert shown() == first


def accounts(platform: Stack) -> list[str]:
    """What accounts are kept."""
    return docker("exec", platform.container("gateway-acme"), "ls", "/acme/accounts").split()


def test_another_server_that_is_silent_holds_nobody_up_and_gives_one_when_it_answers(
    platform: Stack, server: Server, tmp_path: Path
) -> None:
    first, before, root = shown(), accounts(platform), server.root()
    docker("pause", PEBBLE)
    try:
        up(platform, gateway_acme_directory=ANOTHER, gateway_acme_authority=root)
        assert shown() == first
    finally:
        docker("unpause", PEBBLE)
    wait_for(functools.partial(is_another, first), "another certificate")
    assert curl(root, tmp_path).returncode == 0
    wait_for(lambda: len(accounts(platform)) == 1, "one account")
    assert accounts(platform) != before
    assert server.status(first) == "Valid"


def test_rotation_gives_another_certificate_and_account_and_revokes_the_old_one(
    platform: Stack, server: Server, tmp_path: Path
) -> None:
    first, before, root = shown(), accounts(platform), server.root()
    # it ends with the verdict
    given = {"gateway_acme_directory": ANOTHER, "gateway_acme_authority": root}
    platform.play("playbooks/rotate.yml", **given)
    wait_for(functools.partial(is_another, first), "another certificate")
    assert curl(root, tmp_path).returncode == 0
    wait_for(lambda: server.status(first) == "Revoked", "the old one to be worth nothing")
    assert server.status(shown()) == "Valid"
    assert len(accounts(platform)) == 1
    assert accounts(platform) != before


@pytest.mark.usefixtures("platform")
def test_nothing_but_a_challenge_is_handed_on_without_tls() -> None:
    challenge = "/.well-known/acme-challenge/a-token"
    assert plain(challenge)[0] == 404
    assert plain(challenge, "POST")[0] == 403
    for path in ("/mlflow/", "/.well-known/other", "/.well-known/acme-challenge/../../login"):
        status, location = plain(path)
        assert status == 308, path
        assert location.startswith(f"https://{NAME}:{PORT}/")


def test_the_gateway_reads_what_it_serves_and_neither_writes_nor_sees_the_account(
    platform: Stack,
) -> None:
    shell = "ls /acme/accounts; cat /acme/state.json; touch /acme/served.pem; touch /acme/x; true"
    words = ["docker", "exec", platform.container("gateway"), "sh", "-c", shell]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 4, done.stderr


def test_a_broken_file_is_not_taken_and_another_certificate_is_got(
    platform: Stack, server: Server, tmp_path: Path
) -> None:
    gateway, acme = (platform.container(name) for name in ("gateway", "gateway-acme"))
    first = shown()
    docker("pause", acme)
    try:
        mount = docker(
            "volume", "inspect", "--format", "{{.Mountpoint}}", f"{PLATFORM}_gateway_acme"
        )
        (Path(mount) / "served.pem").write_text("nothing")
        wait_for(lambda: "cannot load certificate" in said(platform, "gateway"), "a look at it")
        assert shown() == first
        docker("restart", "--time", "5", gateway)
        wait_for(lambda: curl(own(platform), tmp_path).returncode == 0, "its own certificate")
    finally:
        docker("unpause", acme)
    wait_for(lambda: curl(server.root(), tmp_path).returncode == 0, "a certificate of Pebble's")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"gateway_acme_email": "no..body@example.org"}, "it does not take gateway_acme_email"),
        ({"gateway_names": ["nowhere.example"]}, "it could not check nowhere.example (connection"),
    ],
    ids=["address", "challenge"],
)
def test_what_a_server_refuses_is_told_and_the_gateway_goes_on(
    platform: Stack, server: Server, given: dict[str, object], sentence: str
) -> None:
    assert server.root()
    first = shown()
    # of another server than the one before, so that one is due
    up(platform, gateway_acme_directory=DIRECTORY, **given)
    wait_for(lambda: sentence in said(platform), sentence)
    assert shown() == first


def test_a_master_that_is_killed_takes_the_container_with_it(platform: Stack) -> None:
    name = platform.container("gateway")
    began = ("inspect", "--format", "{{.State.StartedAt}}", name)
    before = docker(*began)
    # the container may be gone before the answer is
    docker("exec", name, "sh", "-c", "kill -KILL $(cat /tmp/nginx.pid)", check=False)
    wait_for(lambda: docker(*began) != before, "a restart")
    wait_for(is_up, "the gateway to be back")


def test_nothing_is_left_of_it(platform: Stack) -> None:
    docker("rm", "--force", "--volumes", PEBBLE)
    platform.destroy()
    assert left_of(PLATFORM) == ""
