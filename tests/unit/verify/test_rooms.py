"""A service's checks and evidence are found where its role is, and nowhere else are they named."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
from pathlib import Path

from platform_verify import report, rooms

CHECK = """\
import pytest

@pytest.mark.promise("The toy plays", hint="wind it up")
def test_the_toy_plays(service, verdict):
    verdict([], service("toy").container)
"""
EVIDENCE = """\
from platform_verify.evidence import gather
from platform_verify.s3 import bucket_and_key

SERVICE = "toy"
AT_ONCE = {"toy": lambda given: gather({"key": lambda: bucket_and_key(given["url"], "x")})}
"""
TOY = {"user": "1:1", "memory": "1g", "ports": []}
HOST = {"platform": "lab", "directory": "/opt/lab", "services": {"toy": TOY}, "promised": {}}


def toy(roles: Path) -> Path:
    """Make a role that has checks and evidence."""
    room = roles / "toy" / "verify"
    room.mkdir(parents=True)
    (room / "check_toy.py").write_text(CHECK)
    (room / "evidence.py").write_text(EVIDENCE)
    return roles


def test_a_role_brings_its_evidence_by_having_it(tmp_path: Path) -> None:
    host, own = rooms.all_evidence(toy(tmp_path))
    assert (host.service, host.at_once) == ("", ("host",))
    assert (own.service, own.at_once) == ("toy", ("toy",))


def test_evidence_runs_where_nothing_of_this_project_is(tmp_path: Path) -> None:
    _, own = rooms.all_evidence(toy(tmp_path))
    source = gzip.decompress(base64.b64decode(own.packed))
    given = base64.b64encode(json.dumps({"url": "s3://bucket/a"}).encode())
    # -I: no path but the standard library's and the environment's
    command = [sys.executable, "-I", "-", "toy", given.decode()]
    done = subprocess.run(command, input=source, capture_output=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["key"]["value"] == ["bucket", "a/x"]


def test_a_role_brings_its_checks_by_having_them(tmp_path: Path) -> None:
    (room,) = rooms.rooms(toy(tmp_path / "roles"))
    inventory, found = tmp_path / "inventory.json", tmp_path / "verify.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"lab": {"verdict": HOST}}}}))
    words = ["-pplatform_verify.checking", "-pno:cacheprovider", f"--verify-inventory={inventory}"]
    words += [f"--verify-report={found}", "--override-ini=python_files=check_*.py", str(room)]
    root = rooms.ROLES.parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--rootdir={root}", *words],
        env={"PYTHONPATH": str(root / "src"), "PATH": ""},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    judged = report.read(found)
    assert judged, done.stdout + done.stderr
    assert [(one.name, one.detail) for one in judged.checks] == [("The toy plays", "lab-toy")]


def test_evidence_of_several_is_read_in_those_that_are_to_be_judged() -> None:
    (several,) = [one for one in rooms.all_evidence() if one.each == "pipelines"]
    promised = {"pipelines": {"wine": "dvc-runner-wine"}, "users": {"dvc": ["data"]}}
    assert several.services(promised) == ["dvc-runner-wine"]
    assert several.services({"pipelines": {}}) == []
    one = next(one for one in rooms.all_evidence() if one.service)
    assert one.services(promised) == [one.service]
