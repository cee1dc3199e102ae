"""One page per role, written from its argument_specs: `make docs`."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.contracts import tree
from tests.contracts.tree import Node

WIDTH = 120
UNBROKEN = "\0"  # a blank in code, while lines are made
PAGES = "docs/roles"


def page(role: str, specs: dict[str, Node]) -> str:
    """The page of a role; an entry point that takes another one's variables names that one."""
    written = [
        f"# {role}\n",
        f"<!-- Written by `make docs` from roles/{role}/meta/argument_specs.yml: edit that. -->\n",
    ]
    told: list[tuple[str, Node]] = []
    for point, spec in specs.items():
        options = spec.get("options") or {}
        written += [f"## Entry point `{point}`\n", f"{spec.get('short_description', '')}.\n"]
        written += [*(item(marked(line)) for line in tree.lines(spec.get("description", []))), ""]
        same = [name for name, others in told if others == options]
        if not options:
            written.append("It takes no variables.\n")
        elif same:
            written.append(f"It takes the variables of `{same[0]}`.\n")
        else:
            written += ["Variables:\n", *entries(options, ""), ""]
        told.append((point, options))
    return "\n".join(written).rstrip() + "\n"


def entries(options: dict[str, Node], indent: str) -> Iterator[str]:
    """A list of options, each with its type, what it may be, its default and its text."""
    for name, option in options.items():
        kind = option.get("type", "str")
        if "elements" in option:
            kind += f" of {option['elements']}"
        facts = [kind]
        if "choices" in option:
            facts.append("one of " + ", ".join(f"`{shown(each)}`" for each in option["choices"]))
        if option.get("required"):
            facts.append("required")
        if "default" in option:
            facts.append(f"default `{shown(option['default'])}`")
        yield f"{indent}- **`{name}`** ({'; '.join(facts)}):"
        for line in tree.lines(option["description"]):
            yield textwrap.indent(wrapped(marked(line)), indent + "  ")
        yield from entries(option.get("options") or {}, indent + "  ")


def shown(value: Node) -> str:
    """A value as YAML takes it."""
    return value if isinstance(value, str) and value else json.dumps(value)


def marked(text: str) -> str:
    """A text in Markdown: what stands in single quotes is code, which breaks nowhere."""
    parts = re.split(r"(?<!\w)'([^']+)'(?!\w)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([<*])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace(" ", UNBROKEN) for part in parts[1::2]]
    return "`".join(parts)


def item(text: str) -> str:
    """A text as one entry of a list."""
    return textwrap.indent(wrapped(text), "  ").replace("  ", "- ", 1)


def wrapped(text: str) -> str:
    """A text in lines that break at blanks only."""
    filled = textwrap.fill(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return filled.replace(UNBROKEN, " ")


def due(root: Path) -> dict[Path, str]:
    """Every page that there is to be, with its text."""
    return {
        root / PAGES / f"{role}.md": page(role, tree.specs(root, role)) for role in tree.roles(root)
    }


def write(root: Path) -> None:
    """Write every page, and remove those of roles that are gone."""
    wanted = due(root)
    (root / PAGES).mkdir(parents=True, exist_ok=True)
    for path in set((root / PAGES).glob("*.md")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[2])
