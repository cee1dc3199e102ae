"""A platform behind its gateway, by the clients that users have."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.infra.conftest import ROOT, Stack
from tests.infra.faults_support import WITHOUT_PIPELINE, docker, lives_of, wait_for
from tests.unit.conftest import load

lookup = load("platform/lookup_plugins/platform_certificate.py")
CLIENTS = Path(__file__).parent / "clients"
PORT, PLAIN_PORT = 9743, 9780
MIB = 2**20
REMEMBERED = 2.5  # seconds after which a program's password is asked for anew
LIFE = "{{.RestartCount}} {{.State.StartedAt}}"
EXPERIMENT = "/mlflow/api/2.0/mlflow/experiments/get?experiment_id=0"


@pytest.fixture
def platform(gated: Stack) -> Stack:
    """The platform behind its gateway."""
    return gated


@pytest.fixture
def environment(gated_env: Path) -> Path:
    """What `make env` prints."""
    return gated_env


def secret(platform: Stack, name: str) -> str:
    """A generated secret of the platform."""
    return (Path(platform.inventory) / ".secrets" / platform.name / name).read_text().strip()


def as_admin(platform: Stack, name: str = "admin") -> str:
    """The header of the user that every platform has, or of another."""
    given = f"{name}:{secret(platform, f'{name}_password')}"
    return f"Basic {base64.b64encode(given.encode()).decode()}"


def connected(platform: Stack) -> http.client.HTTPSConnection:
    """Connect to its gateway as a client does that trusts the authority."""
    context = ssl.create_default_context(cadata=secret(platform, "ca.crt"))
    port = int(platform.variables["gateway_port"])
    return http.client.HTTPSConnection("localhost", port, context=context, timeout=60)


def ask(platform: Stack, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Send a path as it is, by a client that trusts the authority: status, location, body."""
    connection = connected(platform)
    try:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, headers=named)
        reply = connection.getresponse()
        return reply.status, reply.headers.get("Location", ""), reply.read().decode()
    finally:
        connection.close()


def client(environment: Path, script: Path, *words: str, first: str = ":") -> tuple[int, str]:
    """Run a program in a shell that took in what `make env` prints; exit code, output."""
    lines = f'. {environment}; {first}; exec "$0" "$@"'
    done = subprocess.run(
        ["bash", "-c", lines, sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr[-3000:]


def test_the_verdict_finds_its_promises_kept_and_a_second_run_changes_nothing(
    platform: Stack,
) -> None:
    # the fraud project runs, and everything is judged
    address = f"  {'mlflow':<12} https://localhost:{PORT}/mlflow/\n"
    assert address in platform.play("site.yml")
    again = platform.play("site.yml")
    assert "changed=0" in again
    assert address in again
    code, report, text = platform.verify()
    assert code == 0, text
    kept = {check.name for check in report.checks if check.ok}
    assert kept >= {
        "The gateway lets no stranger in",
        "One log-in at the gateway opens what is behind it",
        "The gateway's certificate is trusted",
        "Nothing but the gateway is published",
    }, text


def test_nothing_but_its_two_ports_is_open(platform: Stack) -> None:
    form = ("ps", "--filter", f"label=mlops.platform={platform.name}", "--format", "{{.Ports}}")
    shown = docker(*form)
    open_ports = {
        part.split("->")[0] for part in shown.replace("\n", ", ").split(", ") if "->" in part
    }
    assert open_ports == {f"127.0.0.1:{PORT}", f"127.0.0.1:{PLAIN_PORT}"}


def test_mlflows_own_client_sends_and_fetches_files(environment: Path) -> None:
    code, said = client(environment, CLIENTS / "transfer.py", str(40 * MIB))
    assert code == 0, said


def test_boto3_stores_and_fetches_and_presigned_addresses_work_for_who_has_none_of_the_keys(
    platform: Stack, environment: Path
) -> None:
    code, said = client(environment, CLIENTS / "storage.py", "dvc-storage", str(40 * MIB))
    assert code == 0, said
    for address in said.split():
        asked = urllib.parse.urlsplit(address)
        assert asked.netloc == f"localhost:{PORT}"
        assert ask(platform, f"{asked.path}?{asked.query}") == (200, "", "Größe.txt")


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("unset MLFLOW_TRACKING_SERVER_CERT_PATH", "certificate verify failed"),
        ("unset MLFLOW_TRACKING_PASSWORD", "Log in first"),
        ("export MLFLOW_TRACKING_PASSWORD=wrong", "This name and password do not belong"),
    ],
)
def test_mlflows_client_is_told_what_it_lacks(environment: Path, shell: str, said: str) -> None:
    shell += "; export MLFLOW_HTTP_REQUEST_MAX_RETRIES=0"
    code, text = client(environment, CLIENTS / "transfer.py", "1000", first=shell)
    assert code != 0
    assert said in text


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("unset AWS_CA_BUNDLE", "certificate verify failed"),
        ("export AWS_SECRET_ACCESS_KEY=wrong", "SignatureDoesNotMatch"),
    ],
)
def test_boto3_is_told_what_it_lacks(environment: Path, shell: str, said: str) -> None:
    code, text = client(environment, CLIENTS / "storage.py", "dvc-storage", "1", first=shell)
    assert code != 0
    assert said in text


def test_a_browser_logs_in_once_for_all_pages_and_out_again(platform: Stack) -> None:
    status, location, _ = ask(platform, "/mlflow/?x=1&y=2", Accept="text/html")
    assert (status, location) == (302, "/login?next=%2Fmlflow%2F%3Fx%3D1%26y%3D2")
    cookie = session(platform)
    for path in ("/", "/mlflow/", "/minio/"):
        status, _, text = ask(platform, path, Cookie=cookie)
        assert status == 200, (path, text)
    states = json.loads(ask(platform, "/state", Cookie=cookie)[2])
    assert {one["state"] for one in states.values()} == {"up"}
    assert states["/mlflow/"]["version"].startswith("3.")
    # a page of elsewhere in the same browser may look, and do nothing
    made = "/mlflow/api/2.0/mlflow/experiments/create"
    for origin, refused in (("https://evil.example", True), (f"https://localhost:{PORT}", False)):
        status, _, _ = ask(platform, made, "POST", Cookie=cookie, Origin=origin)
        assert (status == 403) is refused
    # nor be made of what is here, also where it is of this host
    for site, mode, wanted in (
        ("same-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("cross-site", "navigate", 200),
        ("same-origin", "cors", 200),
    ):
        looks = {"Cookie": cookie, "Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode}
        assert ask(platform, "/mlflow/version", **looks)[0] == wanted, (site, mode)
    assert ask(platform, "/logout", "POST", Cookie=cookie)[0] == 303
    assert ask(platform, "/mlflow/", Cookie=cookie)[0] == 401


def logged(platform: Stack) -> str:
    """What the gateway wrote, errors too."""
    words = ["docker", "logs", platform.container("gateway")]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


def session(platform: Stack) -> str:
    """The cookie of a browser that logged in."""
    connection = connected(platform)
    password = secret(platform, "admin_password")
    form = urllib.parse.urlencode({"name": "admin", "password": password, "next": "/mlflow/"})
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", form, kind)
    reply = connection.getresponse()
    connection.close()
    assert (reply.status, reply.headers["Location"]) == (303, "/mlflow/")
    return str(reply.headers["Set-Cookie"].partition(";")[0])


def mlflow_runs(platform: Stack) -> list[str]:
    """The runs of all experiments."""
    path = "/mlflow/api/2.0/mlflow/runs/search"
    body = json.dumps({"experiment_ids": ["0", "1", "2", "3"], "max_results": 1000})
    context = ssl.create_default_context(cadata=secret(platform, "ca.crt"))
    connection = http.client.HTTPSConnection("localhost", PORT, context=context, timeout=60)
    headers = {"Authorization": as_admin(platform), "Content-Type": "application/json"}
    connection.request("POST", path, body, headers)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return sorted(run["info"]["run_id"] for run in found["runs"])


def as_owner(platform: Stack, password: str) -> str:
    """What MariaDB answers the owner of MLflow's database."""
    asked = (
        "exec mariadb --host=mysql --user=mlflow --database=mlflow --batch --skip-column-names "
        "--execute 'select 1'"
    )
    words = ("exec", "--interactive", platform.container("mysql"), "sh", "-c")
    script = f"read -r MYSQL_PWD; export MYSQL_PWD; {asked} 2>&1"
    return docker(*words, script, text=f"{password.strip()}\n", check=False)


def interrupted(platform: Stack, playbook: str, when: Callable[[], bool]) -> bool:
    """Kill a playbook when a condition holds; False where it ended before."""
    words = ["ansible-playbook", playbook, "-i", platform.inventory]
    running = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while running.poll() is None and not when():
        time.sleep(0.05)
    if running.poll() is not None:
        return False
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return True


def test_a_user_opens_the_pages_of_their_groups_alone(platform: Stack) -> None:
    guest = as_admin(platform, "guest")
    for path, status in (("/", 200), ("/mlflow/version", 200), ("/minio/", 403)):
        assert ask(platform, path, Authorization=guest)[0] == status
        assert ask(platform, path, Authorization=as_admin(platform))[0] == 200
    assert "/minio/" not in ask(platform, "/", Authorization=guest)[2]


def test_who_was_just_let_in_opens_the_way_for_nobody_else(platform: Stack) -> None:
    admin, guest, browser = as_admin(platform), as_admin(platform, "guest"), session(platform)
    wrong = f"Basic {base64.b64encode(b'admin:wrong').decode()}"
    for _ in range(3):
        assert ask(platform, "/minio/", Authorization=admin)[0] == 200
        for other, status in ((guest, 403), (wrong, 401), ("", 401)):
            assert ask(platform, "/minio/", Authorization=other)[0] == status
        assert ask(platform, "/minio/", Cookie=browser)[0] == 200
        assert ask(platform, "/minio/")[0] == 401


def test_a_guesser_waits_whatever_address_they_say_and_nobody_else_does(platform: Stack) -> None:
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    wrong = base64.b64encode(b"a-guesser:wrong").decode()
    statuses = [
        ask(platform, "/mlflow/", Authorization=f"Basic {wrong}", X_Real_IP=f"10.0.0.{number}")[0]
        for number in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
    assert ask(platform, "/login", "POST", X_Real_IP="10.0.0.1", **kind)[0] == 401
    assert ask(platform, EXPERIMENT, Authorization=as_admin(platform))[0] == 200


# from a container, so by an address of its own
GUESSES = """
import http.client, json, ssl, sys
host, *headers = json.load(sys.stdin)
context = ssl._create_unverified_context()
statuses = []
for header in headers:
    gateway = http.client.HTTPSConnection(host, context=context, timeout=60)
    sent = {"Host": "localhost", "Authorization": header}
    gateway.request("GET", "/mlflow/version", headers=sent)
    statuses.append(gateway.getresponse().status)
print(json.dumps(statuses))
"""


def test_a_guesser_is_not_told_of_a_right_password_which_its_user_elsewhere_goes_on_with(
    platform: Stack,
) -> None:
    right = as_admin(platform, "guest")
    wrong = [f"Basic {base64.b64encode(f'guest:{n}'.encode()).decode()}" for n in range(11)]

    def guess(*headers: str) -> object:
        sent = json.dumps([platform.container("gateway"), *headers])
        inside = ("exec", "--interactive", platform.container("mlflow"), "python3", "-c", GUESSES)
        return json.loads(docker(*inside, text=sent))

    assert guess(right, *wrong) == [200] + [401] * 10 + [429]
    time.sleep(REMEMBERED)
    for _ in range(3):
        assert ask(platform, "/mlflow/version", Authorization=right)[0] == 200
        assert guess(right, wrong[0]) == [429, 429]


@pytest.mark.parametrize(
    "path",
    [
        "/mlflow/../minio/",
        "/mlflow/%2e%2e/minio/",
        "/mlflow/..%2fminio/",
        "//mlflow/version",
        "/./mlflow/version",
        "/nothing",
        "/.check",
        "/.s3",
        "/mlflow/static-files/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_a_path_written_otherwise_opens_nothing(platform: Stack, path: str) -> None:
    assert ask(platform, path)[0] in (400, 401, 404)
    assert ask(platform, path, Authorization=as_admin(platform))[0] in (400, 404)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/minio/admin/v3/info", {"Authorization": "AWS4-HMAC-SHA256 x"}),
        ("//minio/admin/v3/info?X-Amz-Signature=0", {}),
        ("/%6dinio/admin/v3/info?X-Amz-Signature=0", {}),
        ("/b/k?X-Amz-Signature=0", {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}),
        ("/b/k?X-Amz-Signature=0", {"x-amz-meta-snowball-auto-extract": "true"}),
        ("/b/k?select&select-type=2&X-Amz-Signature=0", {}),
        ("/b/k?%73elect=&select-type=2&X-Amz-Signature=0", {}),
    ],
)
def test_what_a_hole_of_the_store_needs_does_not_reach_it(
    platform: Stack, path: str, headers: dict[str, str]
) -> None:
    for method in ("PUT", "POST"):
        status, _, text = ask(platform, path, method, **headers)
        assert (status, text) == (403, "The gateway lets no such request through to S3.\n")


@pytest.mark.usefixtures("platform")
def test_a_strangers_name_is_refused_and_plain_http_is_sent_to_tls() -> None:
    for name, status in (("evil.example", 421), ("localhost", 308)):
        connection = http.client.HTTPConnection("127.0.0.1", PLAIN_PORT, timeout=60)
        connection.request("GET", "/mlflow/?x=1", headers={"Host": name})
        reply = connection.getresponse()
        connection.close()
        assert reply.status == status
    assert reply.headers["Location"] == f"https://localhost:{PORT}/mlflow/?x=1"


def test_a_path_without_its_last_slash_is_sent_to_the_same_port(platform: Stack) -> None:
    status, location, _ = ask(platform, "/mlflow", Authorization=as_admin(platform))
    assert (status, location) == (308, "/mlflow/")


def test_old_versions_of_tls_are_refused_and_http_2_is_spoken(platform: Stack) -> None:
    authority = Path(platform.inventory) / ".secrets" / platform.name / "ca.crt"
    words = ["curl", "-sS", "-o", "/dev/null", "--noproxy", "*", "--cacert", str(authority)]
    words += ["--http2", "-w", "%{http_version}"]
    for most, code, spoken in (("1.1", 35, b"0"), ("1.2", 0, b"2")):
        done = subprocess.run(
            [*words, "--tls-max", most, f"https://localhost:{PORT}/login"],
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, spoken), done.stderr


def test_the_log_has_a_line_of_json_for_a_request_and_nothing_that_is_secret(
    platform: Stack,
) -> None:
    ask(platform, "/mlflow/version?token=a-secret-of-this-test", Authorization=as_admin(platform))
    lines = logged(platform).splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    mine = [one for one in told if one["path"] == "/mlflow/version" and one["user"] == "admin"]
    assert mine
    assert mine[-1]["status"] == 200
    assert len(mine[-1]["request_id"]) == 32
    assert "a-secret-of-this-test" not in "\n".join(lines)


def kept(gateway: str) -> int:
    """KiB of what a gateway may write to; a file that has no name any more counts too."""
    return int(docker("exec", gateway, "df", "--output=used", "/tmp").split()[-1])  # noqa: S108 - its


def test_an_artifact_is_at_no_time_on_the_gateways_disk_however_slow_its_reader(
    platform: Stack,
) -> None:
    name, size = platform.container("gateway"), 200 * MIB
    path = "/mlflow/api/2.0/mlflow-artifacts/artifacts/0/tests/streamed.bin"
    seen: list[int] = []

    def look(passed: int) -> None:
        # the other side has time to send on
        if passed % (50 * MIB) == 0:
            seen.append(kept(name))

    def blocks() -> Iterator[bytes]:
        for number in range(size // MIB):
            look(number * MIB)
            yield bytes(MIB)

    who, connection = as_admin(platform), connected(platform)
    sent = {"Authorization": who, "Content-Length": str(size)}
    connection.request("PUT", path, body=blocks(), headers=sent)
    reply = connection.getresponse()
    reply.read()
    assert reply.status == 200
    connection.request("GET", path, headers={"Authorization": who})
    reply, found = connection.getresponse(), 0
    while part := reply.read(MIB):
        found += len(part)
        look(found)
    connection.close()
    assert found == size
    assert len(seen) == 8
    assert max(seen) < 1024


def test_a_large_upload_is_at_no_time_on_the_gateways_disk(
    platform: Stack, environment: Path
) -> None:
    name = platform.container("gateway")
    seen: list[int] = []
    lines = f'. {environment}; exec "$0" "$@"'
    words = [sys.executable, str(CLIENTS / "storage.py"), "dvc-storage", str(400 * MIB)]
    sending = subprocess.Popen(["bash", "-c", lines, *words], stdout=subprocess.DEVNULL)
    while sending.poll() is None:
        seen.append(kept(name))
    assert sending.returncode == 0
    assert max(seen) < 1024
    state = json.loads(docker("inspect", name))[0]["State"]
    assert (state["OOMKilled"], state["Restarting"]) == (False, False)


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("PUT", "/mlflow/api/2.0/mlflow-artifacts/artifacts/0/t/x", 401, "do not belong together"),
        ("POST", "/login", 413, "Too Large"),
    ],
)
def test_a_strangers_large_upload_is_answered_and_ends_nothing(
    platform: Stack, method: str, path: str, status: int, said: str
) -> None:
    names = [platform.container(name) for name in ("gateway", "gateway-portal")]
    browser, before = session(platform), docker("inspect", *names, "--format", LIFE)
    size = 300 * MIB  # more than either may have of memory
    wrong = f"Basic {base64.b64encode(b'stranger:wrong').decode()}"
    connection = connected(platform)
    sent = {"Authorization": wrong, "Content-Length": str(size)}
    connection.request(method, path, (bytes(MIB) for _ in range(size // MIB)), sent)
    reply = connection.getresponse()
    assert (reply.status, said in reply.read().decode()) == (status, True)
    connection.close()
    assert kept(names[0]) < 1024
    assert docker("inspect", *names, "--format", LIFE) == before
    assert "exited on signal" not in logged(platform)
    assert ask(platform, "/", Cookie=browser)[0] == 200


def test_a_neighbour_that_is_down_is_told_and_one_that_is_made_anew_is_found(
    platform: Stack,
) -> None:
    name, header = platform.container("mlflow"), as_admin(platform)
    docker("stop", "--time", "1", name)
    try:
        asked = f"{EXPERIMENT}&token=a-secret-of-a-request-that-fails"
        status, _, text = ask(platform, asked, Authorization=header)
        assert (status, "does not answer" in text) == (503, True)
        assert "a-secret-of-a-request-that-fails" not in logged(platform)
        states = json.loads(ask(platform, "/state", Authorization=header)[2])
        assert states["/mlflow/"]["state"] == "down"
        # its address goes to another
        holder = (f"--network={platform.name}", "--rm", "--detach", "--entrypoint", "sleep")
        image = json.loads(docker("inspect", name))[0]["Config"]["Image"]
        other = docker("run", *holder, image, "60")
    finally:
        docker("start", name)
    try:
        wait_for(
            lambda: ask(platform, EXPERIMENT, Authorization=header)[0] == 200,
            "MLflow to be found again",
        )
    finally:
        docker("rm", "--force", "--volumes", other)


HEARS = """\
import http.server, json

class Hearer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = json.dumps(self.headers.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

http.server.ThreadingHTTPServer(("", 5000), Hearer).serve_forever()
"""


def test_no_spelling_of_a_header_tells_a_neighbour_of_another_user(platform: Stack) -> None:
    name, guest = platform.container("mlflow"), as_admin(platform, "guest")
    image = json.loads(docker("inspect", name))[0]["Config"]["Image"]
    docker("stop", "--time", "1", name)
    place = (f"--network={platform.name}", "--network-alias=mlflow", "--rm", "--detach")
    other = docker("run", *place, "--entrypoint=python3", image, "-c", HEARS)
    # many programs take an underscore for a hyphen
    spellings = ("X_Forwarded_User", "X_Forwarded-User", "x-forwarded_USER", "X-Forwarded-User")
    headers = {"Authorization": guest, **dict.fromkeys(spellings, "admin")}
    said: list[list[str]] = []

    def hears() -> bool:
        connection = connected(platform)
        connection.request("GET", "/mlflow/heard", headers=headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        said[:] = json.loads(text) if reply.status == 200 else []
        return bool(said)

    try:
        wait_for(hears, "what hears in MLflow's place to be found")
    finally:
        docker("rm", "--force", "--volumes", other)
        docker("start", name)
    told = {key: value for key, value in said if "user" in key.lower()}
    assert told == {"X-Forwarded-User": "guest"}
    wait_for(
        lambda: ask(platform, EXPERIMENT, Authorization=guest)[0] == 200,
        "MLflow to be found again",
    )


def test_many_requests_take_few_connections_to_a_neighbour(platform: Stack) -> None:
    connection = connected(platform)
    for number in range(300):
        # what S3 is to answer, and does so with a refusal
        connection.request("GET", f"/bucket/key?X-Amz-Signature=none&number={number}")
        reply = connection.getresponse()
        assert "<Error>" in reply.read().decode()
        assert reply.status == 403
    connection.close()
    # those to it that are closed, and whose ports are taken for a minute more
    table = docker("exec", platform.container("gateway"), "cat", "/proc/net/tcp")
    rows = [line.split() for line in table.splitlines()[1:]]
    assert sum(row[2].endswith(f":{9000:04X}") and row[3] == "06" for row in rows) < 30


def test_a_stopped_portal_lets_nobody_in(platform: Stack) -> None:
    name = platform.container("gateway-portal")
    docker("stop", "--time", "1", name)
    try:
        # what it let in a moment ago is still let in
        time.sleep(REMEMBERED)
        assert ask(platform, EXPERIMENT, Authorization=as_admin(platform))[0] == 503
        assert ask(platform, EXPERIMENT)[0] == 503
    finally:
        docker("start", name)
    wait_for(
        lambda: ask(platform, EXPERIMENT, Authorization=as_admin(platform))[0] == 200,
        "the portal to answer again",
    )


def test_rotation_makes_every_secret_anew_the_old_are_worth_nothing_and_no_data_is_lost(
    platform: Stack, environment: Path
) -> None:
    secrets = Path(platform.inventory) / ".secrets" / platform.name
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    old, cookie = as_admin(platform), session(platform)
    runs = mlflow_runs(platform)
    assert ask(platform, "/", Cookie=cookie)[0] == 200
    # killed when all are forgotten, and begun again
    docker("pause", platform.container("minio"))
    try:
        killed = interrupted(platform, "playbooks/rotate.yml", lambda: not secrets.exists())
    finally:
        docker("unpause", platform.container("minio"))
    assert killed
    platform.play("playbooks/rotate.yml")
    after = {path.name: path.read_text() for path in secrets.iterdir()}
    assert {name for name in before if after.get(name) == before[name]} == set()
    assert ask(platform, EXPERIMENT, Authorization=old)[0] == 401
    assert ask(platform, "/", Cookie=cookie)[0] == 401
    trusts = f"export AWS_CA_BUNDLE={secrets}/ca.crt"
    code, said = client(environment, CLIENTS / "storage.py", "dvc-storage", "1", first=trusts)
    assert code != 0
    assert "SignatureDoesNotMatch" in said
    assert "Access denied" in as_owner(platform, before["mlflow_backend_password"])
    assert as_owner(platform, after["mlflow_backend_password"]).split() == ["1"]
    assert mlflow_runs(platform) == runs
    assert "changed=0" in platform.play("site.yml")
    platform.play("playbooks/env.yml", ansible_become=False, dvc_runner_env_file=str(environment))


def test_a_run_renews_a_certificate_with_a_third_of_its_days_left_and_restarts_the_gateway_alone(
    platform: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = Path(platform.inventory) / ".secrets" / platform.name
    (secrets / "gateway.crt").unlink()
    today = lookup.now()
    with monkeypatch.context() as then:
        then.setattr(lookup, "now", lambda: today - timedelta(days=270))
        old = lookup.server(secrets, "gateway", ["localhost", "127.0.0.1"], platform.name)
    lives = lives_of(platform.name)
    platform.play("site.yml", "--tags", "platform")
    new = (secrets / "gateway.crt").read_text()
    assert new != old["certificate"]
    assert ssl.get_server_certificate(("localhost", PORT)) == new
    assert ask(platform, EXPERIMENT, Authorization=as_admin(platform))[0] == 200
    changed = {name for name, life in lives_of(platform.name).items() if lives[name] != life}
    assert changed == {platform.container("gateway")}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gateway_users": []}, "gateway_users is empty, so nobody could log in: name a user."),
        (
            {"gateway_tls": {"certificate": "x", "key": ""}},
            "gateway_tls has a certificate without its key: give both.",
        ),
        ({"gateway_names": []}, "gateway_names is empty: give one entry or more, or leave it out."),
        ({"gateway_http_port": ""}, "gateway_http_port is '': give a port of the host"),
        (
            {"gateway_names": ["lab.example"]},
            "",
        ),
    ],
    ids=["no user", "no key", "no name", "no port", "another name"],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_touched(
    platform: Stack, given: dict[str, object], said: str
) -> None:
    one = replace(platform, variables={**platform.variables, **given})
    if not said:
        # the platform's own authority makes one for any name
        assert "failed=0" in one.play("site.yml", "--check", *WITHOUT_PIPELINE, **given)
        return
    text = " ".join(one.attempt("site.yml", *WITHOUT_PIPELINE, **given).split())
    assert said in text
    assert "changed=0" in text
