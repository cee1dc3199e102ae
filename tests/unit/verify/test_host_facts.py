"""What a process of a container is, and what it only is while it starts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from platform_verify import host


def process(at: Path, number: int, uid: int) -> Path:
    """Make what /proc tells of a process."""
    here = at / str(number)
    (here / "ns").mkdir(parents=True)
    (here / "ns/pid").symlink_to("pid:[42]")
    (here / "status").write_text(f"Uid:\t0\t{uid}\t{uid}\t{uid}\n")
    return here


@pytest.mark.parametrize(("starts", "uids"), [(True, [10001]), (False, [0, 10001])])
def test_a_health_check_that_starts_as_root_is_no_process_of_root(
    starts: bool, uids: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(tmp_path, 7, 10001)
    probe = process(tmp_path, 8, 0)
    monkeypatch.setattr(host, "processes", lambda: iter(sorted(tmp_path.iterdir())))
    monkeypatch.setattr(host, "STARTING_SECONDS", 0.4)
    if starts:
        became = "Uid:\t0\t10001\t10001\t10001\n"
        threading.Timer(0.1, (probe / "status").write_text, [became]).start()
    assert host.uids_in("pid:[42]") == uids
