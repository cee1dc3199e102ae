"""A role's page says all that its argument_specs say, in words that Markdown leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contracts import pages

SPECS: dict[str, Any] = {
    "main": {
        "short_description": "A store",
        "description": ["Keeps 'a b' <safe>.", "Twice."],
        "options": {
            "store_kind": {
                "description": "Its kind.",
                "type": "str",
                "choices": ["fast", ""],
                "default": "",
            },
            "store_shelves": {
                "description": "The store's shelves, 'name' or '*'.",
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "deep": {"description": "It is deep.", "type": "bool", "default": False}
                },
            },
        },
    },
    "empty": {"short_description": "Empty it", "description": "Removes all of it."},
}
SPECS["fill"] = SPECS["main"] | {"short_description": "Fill it"}
PAGE = """\
# store

<!-- Written by `make docs` from roles/store/meta/argument_specs.yml: edit that. -->

## Entry point `main`

A store.

- Keeps `a b` \\<safe>.
- Twice.

Variables:

- **`store_kind`** (str; one of `fast`, `""`; default `""`):
  Its kind.
- **`store_shelves`** (list of dict; required):
  The store's shelves, `name` or `*`.
  - **`deep`** (bool; default `false`):
    It is deep.

## Entry point `empty`

Empty it.

- Removes all of it.

It takes no variables.

## Entry point `fill`

Fill it.

- Keeps `a b` \\<safe>.
- Twice.

It takes the variables of `main`.
"""


def test_a_page_tells_every_option_with_its_type_choices_default_and_text() -> None:
    assert pages.page("store", SPECS) == PAGE


def test_a_code_span_is_never_broken_over_two_lines() -> None:
    text = pages.marked("x" * pages.WIDTH + " 'docker compose ps'")
    assert "`docker compose ps`" in pages.wrapped(text).splitlines()


def test_writing_the_pages_removes_that_of_a_role_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "roles/store/meta").mkdir(parents=True)
    (tmp_path / "docs/roles").mkdir(parents=True)
    (tmp_path / "docs/roles/gone.md").write_text("# gone\n")
    pages.write(tmp_path)
    assert [path.name for path in (tmp_path / "docs/roles").iterdir()] == ["store.md"]
