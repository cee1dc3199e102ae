"""Reading a table of text: encoding, separator and shape, before any value is judged."""

import codecs
import csv
import io
import re
from dataclasses import dataclass

from wine_quality.runtime import PipelineError

SEPARATORS = (";", ",", "\t")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NULLS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})

# what Excel is told of the separator with, in a line above the header
_DECLARATION = re.compile(r'\A\s*"?sep=([;,\t])"?[ \t]*(\r\n|\r|\n|\Z)', re.IGNORECASE)

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Table:
    """A header and rows of as many cells, all text, without blanks around it."""

    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]  # the line of the file that each row ends in
    separator: str


def decode(raw: bytes, name: str) -> str:
    """Text of a file in UTF-8 or UTF-16, with or without byte order mark.

    Raises:
        PipelineError: the bytes are no text.
    """
    marked = next(((bom, encoding) for bom, encoding in _BOMS if raw.startswith(bom)), None)
    bom, encoding = marked or (b"", _guess(raw))
    body = raw.removeprefix(bom)
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{name}: is not text in UTF-8 or UTF-16 (byte 0x{body[error.start]:02x} at position"
            f" {error.start}); save it as CSV in UTF-8"
        ) from None
    control = re.search(r"[\x00-\x08\x0e-\x1f]", text)
    if control:
        raise PipelineError(
            f"{name}: is not text (control character 0x{ord(control[0]):02x} at position"
            f" {control.start()}); give a CSV file"
        )
    return text


def _guess(raw: bytes) -> str:
    """UTF-16 without a mark shows as a zero in nearly every second byte."""
    half = len(raw[:2000]) // 2
    if half and raw[1:2000:2].count(0) > 0.9 * half:
        return "utf-16-le"
    if half and raw[0:2000:2].count(0) > 0.9 * half:
        return "utf-16-be"
    return "utf-8"


def parse(text: str, name: str) -> Table:
    """Read comma-, semicolon- or tab-separated text; a first line `sep=;` is no part of it.

    Raises:
        PipelineError: the table is empty, has no header, names a column twice, or has a row
            with more or fewer cells than the header.
    """
    declared = _DECLARATION.match(text)
    above = len(declared[0].splitlines()) if declared else 0
    text = undeclared(text)
    if not text.strip():
        raise PipelineError(f"{name}: is empty; give a CSV file with a header and rows")
    separator = _separator(text, name)
    if declared and declared[1] != separator:
        raise PipelineError(
            f"{name}: the first line says sep={declared[1]!r}, the header is separated by"
            f" {separator!r}; mend or remove the first line"
        )
    header: tuple[str, ...] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for cells in reader:
            if not cells:
                continue
            row = [cell.strip() for cell in cells]
            if header is None:
                header = _checked_header(tuple(row), name)
                continue
            if len(row) != len(header):
                raise PipelineError(
                    f"{name}: line {above + reader.line_num} has {len(row)} cells, the header has"
                    f" {len(header)}; mend or remove the line"
                )
            rows.append(row)
            lines.append(above + reader.line_num)
    except csv.Error as error:
        line = above + reader.line_num
        raise PipelineError(f"{name}: line {line} is not CSV: {error}") from None
    if header is None or not rows:
        raise PipelineError(f"{name}: has a header but no rows; give a CSV file with rows")
    return Table(header, rows, lines, separator)


def undeclared(text: str) -> str:
    """Text without a first line `sep=;`, which only Excel knows not to be the header."""
    return _DECLARATION.sub("", text)


def read(raw: bytes, name: str) -> Table:
    """Decode and parse in one step; errors as for `decode` and `parse`."""
    return parse(decode(raw, name), name)


def _separator(text: str, name: str) -> str:
    first = next(line for line in text.splitlines() if line.strip())
    counts = {mark: len(next(csv.reader([first], delimiter=mark))) for mark in SEPARATORS}
    best = max(SEPARATORS, key=lambda mark: counts[mark])
    if counts[best] == 1:
        raise PipelineError(
            f"{name}: no ';', ',' or tab in the first line {first[:60]!r}; give a CSV file"
        )
    return best


def _checked_header(header: tuple[str, ...], name: str) -> tuple[str, ...]:
    if all(NUMBER.fullmatch(cell) or cell.lower() in NULLS for cell in header):
        shown = ", ".join(header[:4])
        raise PipelineError(
            f"{name}: has no header, the first line holds the values {shown}, ...; put the names"
            " of the columns in the first line"
        )
    for column in header:
        if header.count(column) > 1:
            raise PipelineError(f"{name}: column {column!r} is there twice; remove one")
    return header
