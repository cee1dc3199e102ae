"""An inventory that cannot be read is told with the file and the line, by whichever program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from platform_inventory import new
from platform_inventory.reason import reason

ROOT = Path(__file__).parents[3]
TWICE = "all:\n  hosts:\n    lab:\n      a: 1\n      a: 2\n"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this project, wherever the tests run."""
    monkeypatch.setenv("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """An inventory that can be read."""
    (tmp_path / "group_vars/all").mkdir(parents=True)
    (tmp_path / "hosts.yml").write_text("all:\n  hosts:\n    lab:\n")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("hosts.yml", TWICE, "line 5: Found duplicate mapping key 'a'."),
        ("group_vars/all/web.yml", "a: 1\nb: 2\na: 3\n", "line 3: "),
        ("group_vars/all/web.yml", "a: 1\nb: {{ a }}\n", "line 2: "),
        ("host_vars/lab.yml", "a:\n\tb: 1\n", "line 2: "),
    ],
    ids=["twice in hosts", "twice in variables", "unquoted", "tab"],
)
def test_what_cannot_be_read_is_told_with_file_and_line(
    file: str, text: str, says: str, inventory: Path
) -> None:
    (inventory / file).parent.mkdir(exist_ok=True)
    (inventory / file).write_text(text)
    with pytest.raises(ValueError, match=f"{file}, {says}") as refused:
        new.listing(inventory)
    assert "\n" not in str(refused.value)
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, "playbooks/site.yml"],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_BECOME": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    # not an empty platform
    assert done.returncode != 0
    line = says.split()[1].rstrip(":")
    assert f"{file}:{line}" in done.stderr or f"{file}, line {line}: " in done.stderr


def test_an_inventory_that_can_be_read_is(inventory: Path) -> None:
    (inventory / "group_vars/all/web.yml").write_text("a: 1\n")
    assert new.of_hosts(new.listing(inventory)) == {"a": 1}


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ("[WARNING]: old\n[ERROR]: no such\n  inventory\n", "no such"),
        ("Traceback:\n  x\nImportError: ansible\n", "ImportError: ansible"),
        ("", ""),
        (
            "[ERROR]: YAML parsing failed: A tab.\nOrigin: /a b/c.yml:4:1\n\n4 \tx\n",
            "/a b/c.yml, line 4: A tab.",
        ),
    ],
)
def test_the_reason_is_one_sentence(errors: str, said: str) -> None:
    assert reason(errors) == said


def test_a_certificate_beside_it_is_no_inventory(inventory: Path) -> None:
    (inventory / "files").mkdir()
    for name in ("tls.pem", "files/lab.crt", "files/lab.key"):
        (inventory / name).write_text("-----BEGIN CERTIFICATE-----\nabc\n")
    assert "lab" in str(new.listing(inventory))
