"""Parameters of one run alone, spelled as for `dvc exp run --set-param`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError
from dvc_runner.parameters import OTHERS, YAML, with_points


def said(error: BaseException) -> str:
    """Return what is wrong with an override, which is behind DVC's own error."""
    return " ".join(str(error.__cause__ or error).split())


def by_file(items: Iterable[str]) -> dict[str, list[str]]:
    """Group overrides by the file of the parameter."""
    from dvc.utils.cli_parse import to_path_overrides  # noqa: PLC0415 - comes with DVC

    found: dict[str, list[str]] = to_path_overrides(list(items))
    return found


def combinations(items: Iterable[str]) -> list[list[str]]:
    """List what each run of a grid sets: `lr=0.1,0.01 depth=3,5` are four.

    Raises:
        RunnerError: DVC can not read one.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - comes with DVC
    from dvc.utils.hydra import get_hydra_sweeps  # noqa: PLC0415 - as above
    from hydra.errors import HydraException  # noqa: PLC0415 - as above

    wanted = list(items)
    try:
        sweeps = get_hydra_sweeps(by_file(wanted))
    except (DvcException, HydraException) as error:
        raise RunnerError(
            f"{' '.join(wanted)} is no parameters as `dvc exp run --set-param` takes them "
            f"({said(error)}): write file:key=value, or key=value for params.yaml."
        ) from error
    return [
        [named(file, item) for file, found in sweep.items() for item in found] for sweep in sweeps
    ]


def named(file: str, item: str) -> str:
    """Spell an override with its file where that is not the usual one."""
    return item if file == "params.yaml" else f"{file}:{item}"


def one_run(items: Iterable[str]) -> list[str]:
    """Return overrides that are for one run.

    Raises:
        RunnerError: they are several runs', or DVC can not read one.
    """
    wanted = list(items)
    if not wanted:
        return []
    found = combinations(wanted)
    if len(found) != 1:
        raise RunnerError(
            f'SET="{" ".join(wanted)}" is {len(found)} runs: use GRID, or give one value each.'
        )
    return found[0]


def names_of(items: Iterable[str]) -> list[str]:
    """Name the parameters of overrides, as `override` in parameters.py takes them."""
    return [
        f"{file}:{item.lstrip('+~').partition('=')[0]}"
        for file, found in by_file(items).items()
        for item in found
    ]


def apply(project: Path, items: Iterable[str]) -> None:
    """Set parameters in the project's files.

    Raises:
        RunnerError: a file or a key is not there, or the value is none for it.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - comes with DVC
    from dvc.utils.hydra import apply_overrides  # noqa: PLC0415 - as above

    for file, found in by_file(items).items():
        path = project / file
        if not path.resolve().is_relative_to(project.resolve()) or not path.is_file():
            raise RunnerError(f"SET {file}:{found[0]}: the project has no {file}: correct it.")
        if path.suffix.lower() not in (*YAML, *OTHERS):
            raise RunnerError(
                f"SET {file}:{found[0]}: only parameters in {', '.join((*YAML, *OTHERS))} files "
                "can be set: correct it."
            )
        before = path.read_text()
        try:
            apply_overrides(str(path), found)
        except (DvcException, ValueError, TypeError, AssertionError) as error:
            raise RunnerError(
                f"SET {' '.join(named(file, item) for item in found)}: {said(error)}: correct it."
            ) from error
        if path.suffix.lower() in YAML:
            path.write_text(with_points(before, path.read_text()))


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Lay out rows below a head, every column as wide as it must be."""
    lines = [[*head], *([spelled(cell) for cell in row] for row in rows)]
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(size) for cell, size in zip(line, wide, strict=True)).rstrip()
        for line in lines
    )


def spelled(value: Any) -> str:  # noqa: ANN401 - a parameter's or metric's
    """Spell a cell for people: numbers in six digits, and nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
