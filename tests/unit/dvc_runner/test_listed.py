"""The pipeline projects of an inventory, and which of them a run is about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from tests.unit.conftest import ROLES, load

projects: Any = load("dvc_runner/filter_plugins/projects.py")
GIVEN: dict[str, Any] = {
    "platform": "mlops",
    "params": {},
    "data": "",
    "set": [],
    "grid": [],
    "environment": {"A": "1"},
    "memory": "2g",
    "timeout": 60,
    "api": False,
}


def listed(entries: dict[str, Any], asked: str = "", **given: object) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in projects.listed(entries, asked, {**GIVEN, **given})}


def chosen(entries: dict[str, Any], asked: str = "") -> list[str]:
    return [name for name, one in listed(entries, asked).items() if one["chosen"]]


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "churn").mkdir()
    return {
        "wine": {"source": "https://host/wine.git"},
        "churn": {"source": str(tmp_path / "churn")},
    }


def test_each_entry_has_a_runner_of_its_own_and_all_are_run(entries: dict[str, Any]) -> None:
    found = listed(entries)
    assert [one["container"] for one in found.values()] == [
        "mlops-dvc-runner-wine",
        "mlops-dvc-runner-churn",
    ]
    assert chosen(entries) == ["wine", "churn"]


def test_a_name_chooses_one_and_the_others_keep_their_runners(entries: dict[str, Any]) -> None:
    assert chosen(entries, "churn") == ["churn"]
    assert list(listed(entries, "churn")) == ["wine", "churn"]


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("https://host/team/Fraud_Model.git", "fraud-model"),
        ("git@host:team/fraud.git", "fraud"),
        ("ssh://git@host/fraud", "fraud"),
    ],
)
def test_another_project_is_named_after_where_it_is(
    where: str, name: str, entries: dict[str, Any]
) -> None:
    assert chosen(entries, where) == [name]
    assert list(listed(entries, where)) == ["wine", "churn", name]


def test_a_directory_is_a_project_too(tmp_path: Path, entries: dict[str, Any]) -> None:
    (tmp_path / "Sales 2026").mkdir()
    assert chosen(entries, str(tmp_path / "Sales 2026")) == ["sales-2026"]


def test_an_entrys_own_directory_is_that_entry(tmp_path: Path, entries: dict[str, Any]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "churn")
    assert chosen(entries, str(tmp_path / "link")) == ["churn"]
    assert list(listed(entries, str(tmp_path / "churn") + "/")) == ["wine", "churn"]


def test_what_an_entry_says_of_itself_wins_over_what_holds_for_all(tmp_path: Path) -> None:
    entry = {
        "source": str(tmp_path),
        "memory": "8g",
        "timeout": 0,
        "environment": {"A": "2", "B": "3"},
    }
    one = listed({"churn": entry})["churn"]
    assert (one["memory"], one["timeout"]) == ("8g", 0)
    assert one["environment"] == {"A": "2", "B": "3"}
    assert listed({"churn": {"source": str(tmp_path)}})["churn"]["memory"] == "2g"


def test_what_is_given_for_a_run_wins_over_the_entry_of_the_project_that_is_run(
    entries: dict[str, Any],
) -> None:
    entries["churn"] |= {"params": {"p:a": 1, "p:b": 2}, "data": "old.csv"}
    found = listed(entries, "churn", params={"p:a": 9}, data="new.csv")
    assert (found["churn"]["params"], found["churn"]["data"]) == ({"p:a": 9, "p:b": 2}, "new.csv")
    assert (found["wine"]["params"], found["wine"]["data"]) == ({}, "")


@pytest.mark.parametrize(
    "given", [{"data": "wine.csv"}, {"params": {"p:a": 1}}, {"set": ["a=1"]}, {"grid": ["a=1,2"]}]
)
def test_what_is_for_one_project_is_refused_where_several_would_get_it(
    given: dict[str, Any], entries: dict[str, Any]
) -> None:
    with pytest.raises(AnsibleFilterError, match=r"is for one project and wine, churn would be"):
        listed(entries, **given)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"churn": {"sorce": "/x"}}, "dvc_runner_projects.churn has sorce, which means nothing"),
        ({"churn": None}, "dvc_runner_projects.churn has no source"),
        (
            {"churn": {"source": "/nowhere"}},
            "churn.source /nowhere is no directory on this machine",
        ),
        (
            {"churn": {"source": "https://h/x", "memory": 4}},
            "^dvc_runner_projects.churn.memory is 4, which is no size: give one such as 512m or 4g",
        ),
        ({"Churn": {"source": "https://h/x"}}, "dvc_runner_projects.Churn is no name"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_by_name(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnsibleFilterError, match=sentence):
        listed(entry)


def test_a_memory_of_its_own_is_kept_as_it_is_written(entries: dict[str, Any]) -> None:
    entries["churn"]["memory"] = "512m"
    assert listed(entries)["churn"]["memory"] == "512m"


@pytest.mark.parametrize(
    "schedule",
    [
        *("", "@daily", "@hourly", "0 6 * * *", "*/15 0-6,20-23/2 * * *", "30 6 * * mon-fri"),
        *(
            "0 0 1 JAN,jul *",
            "05 04 * * sun",
            "0 0 29 2 *",
            "0 0 31 2 mon",
            "0 0 31 1,2 *",
            "5/20 * * * 7",
        ),
    ],
)
def test_a_schedule_is_kept_as_it_is_written(schedule: str, entries: dict[str, Any]) -> None:
    entries["churn"]["schedule"] = schedule
    found = listed(entries)
    assert (found["churn"]["schedule"], found["wine"]["schedule"]) == (schedule, "")


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        ("0 6 * *", "which has 4 fields and not 5"),
        ("0 0 6 * * *", "which has 6 fields and not 5"),
        ("@daly", "which has 1 fields and not 5"),
        (5, "which has 0 fields and not 5"),
        (["0 6 * * *"], "which has 0 fields and not 5"),
        ("60 6 * * *", "whose minute '60' is nothing from 0 to 59"),
        ("0 24 * * *", "whose hour '24' is nothing from 0 to 23"),
        ("0 6 0 * *", "whose day of the month '0' is nothing from 1 to 31"),
        ("0 6 * january *", "whose month 'january' is nothing from 1 to 12"),
        ("0 6 * * mon-sun", "whose day of the week 'mon-sun' is nothing from 0 to 7"),
        ("0 6 * * 1,", "whose day of the week '1,' is nothing from 0 to 7"),
        ("*/0 6 * * *", r"whose minute '\*/0' is nothing from 0 to 59"),
        ("0 6 ? * *", r"whose day of the month '\?' is nothing from 1 to 31"),
        ("0 6 31 2,4 *", "a day that no such month has"),
        ("\uff10 6 * * *", "whose minute"),
    ],
)
def test_a_schedule_that_names_no_times_is_refused_in_a_sentence(
    schedule: object, wrong: str, entries: dict[str, Any]
) -> None:
    entries["churn"]["schedule"] = schedule
    said = (
        rf"dvc_runner_projects\.churn\.schedule is .*, {wrong}.*: write a cron expression such as"
    )
    with pytest.raises(AnsibleFilterError, match=said) as raised:
        listed(entries)
    assert str(raised.value).count("\n") == 0


def test_two_entries_of_one_name_are_refused_with_it(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("localhost\n")
    (tmp_path / "group_vars").mkdir()
    entries = "  churn: {source: https://host/one}\n  churn: {source: https://host/other}\n"
    (tmp_path / "group_vars/all.yml").write_text(f"dvc_runner_projects:\n{entries}")
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-inventory", "-i", tmp_path, "--list"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROLES.parent / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "duplicate mapping key 'churn'" in done.stderr


def test_a_project_of_an_entrys_name_from_elsewhere_is_refused(entries: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="gives no name of its own"):
        listed(entries, "https://elsewhere/churn")


def test_a_project_that_is_nowhere_is_refused_with_the_names_there_are(
    entries: dict[str, Any],
) -> None:
    with pytest.raises(AnsibleFilterError, match=r"\(it has wine, churn\)"):
        listed(entries, "chrun")


@pytest.mark.parametrize("count", [0, "0"])
def test_without_gpus_nothing_is_reserved(count: object) -> None:
    assert projects.gpu_devices(count) == {}


def test_gpus_are_reserved_as_compose_says_it() -> None:
    devices = projects.gpu_devices("2")["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}]


def test_the_api_reads_every_workspace_and_writes_into_inboxes_alone(
    entries: dict[str, Any],
) -> None:
    volumes = projects.api_volumes(listed(entries).values())
    assert volumes == [
        "dvc-runner_queue:/queue:ro",
        "dvc-runner-wine:/projects/wine/workspace:ro",
        "dvc-runner-churn:/projects/churn/workspace:ro",
        "dvc-runner-wine_inbox:/projects/wine/inbox",
        "dvc-runner-churn_inbox:/projects/churn/inbox",
    ]


def test_where_the_api_is_on_no_project_is_called_as_it_is(entries: dict[str, Any]) -> None:
    entries["api"] = entries["wine"]
    assert "api" in listed(entries)
    with pytest.raises(
        AnsibleFilterError, match=r"dvc_runner_projects\.api would be called as the"
    ):
        listed(entries, api=True)
