"""What `python -m platform_verify` makes of Ansible's answers and of an inventory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from platform_verify import __main__ as entry
from platform_verify.declared import Port, Service, declared


def answer(**result: object) -> str:
    """Output of Ansible's JSON callback for one task on one host."""
    plays = [{"tasks": [{"hosts": {"lab": result}}]}]
    return f"a warning\n{json.dumps({'plays': plays})}"


@pytest.mark.parametrize(
    ("output", "errors", "said"),
    [
        (answer(failed=True, msg="too\nshort"), "", "lab: too short"),
        (answer(unreachable=True, msg="no route"), "", "lab: no route"),
        (
            answer(failed=True, msg="One failed", results=[{"failed": True, "msg": "this one"}]),
            "",
            "lab: this one",
        ),
        (
            answer(
                failed=True,
                msg="Task failed: Action failed: The lookup plugin 'platform_secret' failed: "
                "/x: Not a directory. Let it be one.",
            ),
            "",
            "lab: /x: Not a directory. Let it be one.",
        ),
        (
            answer(failed=True, msg="wrong", argument_errors=["a is no list", "b is missing"]),
            "",
            "lab: a is no list b is missing",
        ),
        # what a run shows besides is for who sees it go by
        (answer(failed=True, msg="it ended", rc=2, stderr="a trace"), "", "lab: it ended"),
        (answer(failed=True, msg="'x' is undefined"), "", "lab: 'x' is undefined"),
        ("", "[WARNING]: old\n[ERROR]: no such inventory\n", "no such inventory"),
        ("", "Traceback:\n  x\nImportError: ansible\n", "ImportError: ansible"),
        (answer(failed=False, msg="fine"), "", "the inventory has no host to judge"),
    ],
)
def test_why_there_is_no_verdict_is_one_sentence(output: str, errors: str, said: str) -> None:
    found = entry.why(output, errors)
    assert found.startswith(said)
    assert "\n" not in found
    assert not {"trace", "ARGS=-v"} & set(found.split())


@pytest.mark.parametrize(
    "words",
    [
        ["-e", "verify_report=/x/y.json"],
        ["-everify_report=/x/y.json"],
        ["--extra-vars=verify_report=/x/y.json"],
    ],
)
def test_the_report_goes_where_the_user_says(words: list[str]) -> None:
    assert entry.where(words) == Path("/x/y.json")
    assert entry.where(["-i", "inventory/local"]).parts[-2:] == ("reports", "verify.json")


def test_the_usage_is_told_and_nothing_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--help"]) == 0
    assert "Ends with 0" in capsys.readouterr().out


EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared with, not bound
SERVICES = {
    "minio": {
        "user": "10001:10001",
        "memory": "1g",
        "ports": [{"inside": 9000, "address": EVERYWHERE, "port": 9100}],
    }
}
EMPTY = {"platform": "lab", "directory": "/opt/lab", "services": {}, "promised": {}}


def test_a_platform_is_read_from_the_hosts_that_run_something() -> None:
    store = EMPTY | {
        "services": SERVICES,
        "promised": {"buckets": {"data": True}},
    }
    found = declared({"idle": {"verdict": EMPTY}, "store": {"verdict": store, "ansible_port": 22}})
    assert (found.name, set(found.hosts)) == ("lab", {"store"})
    assert found.services["minio"].container == "lab-minio"
    assert found.services["minio"].host == "store"
    assert found.promised == {"buckets": {"data": True}}
    assert declared({"idle": {"verdict": EMPTY}}).services == {}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9100"),
        (EVERYWHERE, "http://127.0.0.1:9100"),
        ("::", "http://[::1]:9100"),
        ("192.0.2.7", "http://192.0.2.7:9100"),
    ],
)
def test_a_port_has_an_address_that_can_be_asked(address: str, url: str) -> None:
    one = Service("minio", "lab", "lab-minio", "1:1", "1g", (Port(9000, address, 9100),))
    assert one.url(9000) == url
    with pytest.raises(LookupError, match="minio declares no port 1"):
        one.url(1)
