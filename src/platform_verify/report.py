"""The verdict as a record for programs and as a table for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

WIDTH = 100
NARROW = 80
NAME_WIDTH = 40
SECONDS_WIDTH = 7
MOST_LINES = 6
SYNTHETIC = "synthetic (a generated sample; for real measurements: `make up DATA=<file>`)"


@dataclass(frozen=True)
class Check:
    """One promise and what became of it; `ok` is None where this platform does not make it."""

    name: str
    ok: bool | None
    detail: str
    seconds: float
    hint: str


@dataclass(frozen=True)
class Report:
    """The whole verdict; `error` says why none could be reached, else it is empty.

    `seal` tells what was judged, so that what is proven need not be proven again.
    """

    ok: bool
    error: str
    platform: str
    data_source: str
    metrics: Mapping[str, Any]
    seconds: float
    checks: Sequence[Check] = field(default_factory=tuple)
    seal: str = ""
    data_name: str = ""

    @property
    def code(self) -> int:
        """Exit code: 0 every promise holds, 1 one does not, 2 no verdict."""
        return 2 if self.error else 0 if self.ok else 1


def write(report: Report, path: Path) -> None:
    """Write the report as JSON, by a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def read(path: Path) -> Report | None:
    """Read a report back; None where there is none, or one that this version did not write."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Report(**{**found, "checks": tuple(Check(**row) for row in found["checks"])})
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def speaks_unicode(stream: TextIO) -> bool:
    """Tell whether a stream can show more than ASCII."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def scores(metrics: Mapping[str, Any]) -> str:
    """Name the numbers of the test part, or those at the top where there is no such part."""
    part = metrics.get("test", metrics)
    found = [
        f"{name} {value:.3f}"
        for name, value in (part.items() if isinstance(part, Mapping) else ())
        if isinstance(value, float)
    ]
    return f"test {', '.join(found)}" if found else ""


def data(report: Report) -> str:
    """Say which data it was: where it came from, and its name there."""
    if report.data_source == "synthetic":
        return SYNTHETIC
    return " ".join(f"{report.data_source} {report.data_name}".split())


def verdict(report: Report) -> str:
    """Say it in one line."""
    if report.error:
        return f"No verdict: {report.error}"
    failed = sum(check.ok is False for check in report.checks)
    judged = sum(check.ok is not None for check in report.checks)
    said = f"{failed} of {judged} checks failed" if failed else f"all {judged} checks passed"
    end = "OK" if report.ok else "FAILED"
    return f"{end}: {said} on platform {report.platform} in {report.seconds:.0f} s"


def table(report: Report, width: int = WIDTH, *, unicode: bool = True) -> str:
    """Draw one row per check, then which data it was and the verdict.

    Args:
        report: what to draw.
        width: columns to draw in; below NARROW details have no room, so NARROW is the least.
        unicode: draw with more than ASCII.
    """
    width = max(width, NARROW)
    marks = (
        {True: "\u2714", False: "\u2718", None: "-"}
        if unicode
        else {True: "ok", False: "NO", None: "-"}
    )
    room = width - 2 - 1 - NAME_WIDTH - 1 - SECONDS_WIDTH - 1
    lines = []
    for check in report.checks:
        names = textwrap.wrap(check.name, NAME_WIDTH) or [""]
        details = textwrap.wrap(check.detail, room, max_lines=MOST_LINES, placeholder=" ...") or [
            ""
        ]
        for at in range(max(len(names), len(details))):
            mark, seconds = (marks[check.ok], f"{check.seconds:.1f} s") if at == 0 else ("", "")
            name = names[at] if at < len(names) else ""
            detail = details[at] if at < len(details) else ""
            lines.append(
                f"{mark:2} {name:{NAME_WIDTH}} {detail:{room}} {seconds:>{SECONDS_WIDTH}}".rstrip()
            )
        if check.ok is False and check.hint:
            lines += textwrap.wrap(
                check.hint, width - 8, initial_indent="     -> ", subsequent_indent=" " * 8
            )
    foot = []
    if report.data_source:
        foot += [part for part in (f"data: {data(report)}", scores(report.metrics)) if part]
    foot.append(verdict(report))
    wrapped = [part for line in foot for part in textwrap.wrap(line, width)]
    text = "\n".join([*lines, *([""] if lines else []), *wrapped])
    return text if unicode else text.encode("ascii", "replace").decode()
