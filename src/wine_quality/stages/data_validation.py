"""Stage 2: judge the raw table against schema.yaml; nothing runs on a table that fails."""

import difflib
import sys
from collections.abc import Sequence

from wine_quality.config import Column, Project, Schema
from wine_quality.dataset import NULLS, NUMBER, Table, read
from wine_quality.runtime import PipelineError, log, run_stage, write_atomic


def violations(table: Table, schema: Schema) -> list[str]:
    """One line per way in which a column breaks its rule: column, value, number of rows."""
    found = [
        f"column {name!r}: missing{_similar(name, set(table.header) - set(schema.columns))}"
        for name in schema.columns
        if name not in table.header
    ]
    found += [
        f"column {name!r}: not in schema.yaml"
        for name in table.header
        if name not in schema.columns
    ]
    for name, rule in schema.columns.items():
        if name in table.header:
            place = table.header.index(name)
            cells = [row[place] for row in table.rows]
            found += [f"column {name!r}: {text}" for text in _judge(cells, table.lines, rule)]
    return found


def _similar(name: str, others: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(others), n=1)
    return f" (is {close[0]!r} meant?)" if close else ""


def _judge(cells: list[str], lines: list[int], rule: Column) -> list[str]:
    failed: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        fault = _fault(cell, rule)
        if fault:
            failed.setdefault(fault, []).append(i)
    return [
        f"{cells[rows[0]]!r} is {fault} (rows: {len(rows)}, first in line {lines[rows[0]]})"
        for fault, rows in failed.items()
    ]


def _fault(cell: str, rule: Column) -> str | None:
    if cell.lower() in NULLS:
        return None if rule.nullable else "no value"
    if not NUMBER.fullmatch(cell):
        return "not a number"
    value = float(cell)  # may be inf, which is neither whole nor in any range
    if rule.dtype == "integer" and not value.is_integer():
        return "not a whole number"
    if not rule.min <= value <= rule.max:
        return f"not from {rule.min:g} to {rule.max:g}"
    return None


def report(found: Sequence[str]) -> str:
    """Content of the status file."""
    return "\n".join([f"Validation status: {not found}", *found]) + "\n"


def _work(project: Project) -> None:
    raw, status = project.path("raw"), project.path("status")
    table = read(raw.read_bytes(), raw.name)
    found = violations(table, project.schema_)
    write_atomic(status, report(found).encode())
    for line in found:
        log.warning("%s", line)
    if found:
        raise PipelineError(
            f"{project.config.paths.raw}: breaks schema.yaml in {len(found)} way(s), first:"
            f" {found[0]}; all are in {project.config.paths.status}: mend the data or widen the"
            " schema, and run again"
        )
    log.info("%d rows keep every rule of schema.yaml", len(table.rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage in a project directory."""
    return run_stage("data_validation", _work, argv)


if __name__ == "__main__":
    sys.exit(main())
