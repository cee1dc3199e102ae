"""Reading the project as its rules see it: roles, tasks, variables, lock files, documents."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import yaml

Node = Any  # what YAML gives: mappings, lists, text, numbers
BARE = ("when", "that", "until", "changed_when", "failed_when")  # expressions without braces
NOT_MODULES = {
    *BARE,
    *("name", "vars", "tags", "register", "loop", "loop_control", "notify", "environment"),
    *("become", "become_user", "delegate_to", "run_once", "no_log", "check_mode", "diff"),
    *("ignore_errors", "retries", "delay", "block", "rescue", "always", "args", "module_defaults"),
    *("async", "poll", "throttle", "timeout", "listen", "connection", "any_errors_fatal"),
    *("delegate_facts", "ignore_unreachable", "with_items", "with_dict", "debugger"),
}
BINARY = (".png", ".ico", ".gz", ".whl", ".pyc")


class Loader(yaml.SafeLoader):
    """A safe loader that takes Ansible's own tags for the plain values behind them."""


def _plain(loader: Loader, _suffix: str, node: yaml.Node) -> Node:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


Loader.add_multi_constructor("!", _plain)


def load(path: Path) -> Node:
    """Read a YAML file; an empty or missing one is an empty mapping."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return yaml.load(text, Loader=Loader) or {}  # noqa: S506 - a SafeLoader


def files(root: Path) -> list[Path]:
    """Every text file that git has or would add; all files where there is no repository."""
    words = ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    names = done.stdout.split("\0") if done.returncode == 0 else []
    found = [root / name for name in names if name] or sorted(root.rglob("*"))
    return [path for path in found if path.is_file() and path.suffix not in BINARY]


def below(root: Path, *places: str) -> list[Path]:
    """The YAML files below `places`, which may hold wildcards."""
    return sorted(
        path
        for place in places
        for start in root.glob(place)
        for path in ([start] if start.is_file() else start.rglob("*"))
        if path.suffix in (".yml", ".yaml") and ".secrets" not in path.parts
    )


def roles(root: Path) -> list[str]:
    """The names of all roles."""
    return sorted(path.name for path in (root / "roles").iterdir() if path.is_dir())


def specs(root: Path, role: str) -> dict[str, Node]:
    """Every entry point of a role, as its argument_specs describe it."""
    found = load(root / "roles" / role / "meta/argument_specs.yml").get("argument_specs", {})
    return dict(found)


def options(root: Path, role: str) -> dict[str, Node]:
    """Every option of a role in its argument_specs, over all entry points."""
    found: dict[str, Node] = {}
    for point in specs(root, role).values():
        found |= point.get("options") or {}
    return found


def declarations(root: Path, role: str) -> list[Node]:
    """What a role hands to container_service, one for each call."""
    return [
        (task.body.get("vars") or {}).get("container_service_spec") or {}
        for task in tasks(root, f"roles/{role}/tasks")
        for module in task.modules
        if module.rpartition(".")[2] in ("import_role", "include_role")
        and task.body[module].get("name") == "container_service"
    ]


def services(root: Path) -> list[str]:
    """The roles that declare a container, which is what makes one a service."""
    return [role for role in roles(root) if declarations(root, role)]


def containers(root: Path, role: str) -> list[str]:
    """The names of the containers that a role declares; a variable in one stands for any word."""
    specs = [spec for spec in declarations(root, role) if isinstance(spec, dict)]
    return [re.sub(r"\{\{.*?\}\}", r"[\\w-]+", str(spec.get("name", role))) for spec in specs]


def flat(options: dict[str, Node], of: str = "") -> Iterator[tuple[str, Node]]:
    """Every option by its name, and each of its own options as `option.name`."""
    for name, option in options.items():
        yield f"{of}{name}", option
        yield from flat(option.get("options") or {}, f"{of}{name}.")


def lines(text: Node) -> list[str]:
    """A description, which is one text or a list of them."""
    return text if isinstance(text, list) else [text]


@dataclass(frozen=True)
class Task:
    """One task, and the file it stands in."""

    path: Path
    body: dict[str, Node]

    @property
    def name(self) -> str:
        return str(self.body.get("name", "a task without a name"))

    @property
    def modules(self) -> list[str]:
        return [key for key in self.body if key not in NOT_MODULES]


def tasks(root: Path, *places: str) -> Iterator[Task]:
    """Every task below `places`, those in blocks and plays too."""
    for path in below(root, *places):
        content = load(path)
        for node in content if isinstance(content, list) else []:
            yield from tasks_in(path, node)


def tasks_in(path: Path, node: dict[str, Node]) -> Iterator[Task]:
    """Every task in a play, a block or a list of tasks."""
    lists = ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")
    inner = [each for key in lists for each in node.get(key) or []]
    for each in inner:
        yield from tasks_in(path, each)
    if "hosts" not in node and "block" not in node:
        yield Task(path, node)


class _Any(dict[str, Any]):
    """Filters and tests of every name: what is read does not depend on what they do."""

    def get(self, _name: str, _default: object = None) -> type[str]:
        return str


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(autoescape=True)
    environment.filters = environment.tests = _Any()
    return environment


def variables(text: str) -> set[str]:
    """The variables that a template reads."""
    if "{{" not in text and "{%" not in text:
        return set()
    return jinja2.meta.find_undeclared_variables(_environment().parse(text))


def read(node: Node, bare: bool = False) -> set[str]:
    """The variables that a YAML value reads, in templates and in bare expressions."""
    if isinstance(node, str):
        return variables("{{ " + node + " }}" if bare and "{{" not in node else node)
    if isinstance(node, dict):
        keys = {name for key in node for name in variables(str(key))}
        return keys.union(*(read(value, key in BARE) for key, value in node.items()))
    if isinstance(node, list):
        return set().union(*(read(each, bare) for each in node))
    return set()


def unconverted(node: Node, wanted: dict[str, str], bare: bool = False) -> set[str]:
    """The variables that a YAML value reads without the filter that `wanted` names for each."""
    if isinstance(node, str):
        text = "{{ " + node + " }}" if bare and "{{" not in node else node
        return _unfiltered(text, wanted) if "{{" in text or "{%" in text else set()
    if isinstance(node, dict):
        return set().union(*(unconverted(each, wanted, key in BARE) for key, each in node.items()))
    if isinstance(node, list):
        return set().union(*(unconverted(each, wanted, bare) for each in node))
    return set()


def _unfiltered(text: str, wanted: dict[str, str]) -> set[str]:
    parsed = _environment().parse(text)
    named = [each for each in parsed.find_all(jinja2.nodes.Name) if each.name in wanted]
    filtered = {
        id(each.node)
        for each in parsed.find_all(jinja2.nodes.Filter)
        if isinstance(each.node, jinja2.nodes.Name) and each.name == wanted.get(each.node.name)
    }
    return {each.name for each in named if id(each) not in filtered}


@dataclass(frozen=True)
class Document:
    """The code in a Markdown file, which is where it names things."""

    path: Path

    @functools.cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[str]:
        return re.findall(r"^```\w*\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)

    @property
    def spans(self) -> list[str]:
        prose = re.sub(r"^```.*?^```", "", self.text, flags=re.DOTALL | re.MULTILINE)
        return re.findall(r"`([^`\n]+)`", prose)

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)#\s]+)", self.text)

    def section(self, title: str) -> str:
        """What stands below a heading, until the next one."""
        found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", self.text, re.DOTALL | re.MULTILINE)
        return found[1] if found else ""

    @property
    def code(self) -> str:
        return "\n".join([*self.blocks, *self.spans])


def documents(root: Path) -> list[Document]:
    """README and docs."""
    return [Document(path) for path in (root / "README.md", *sorted(root.glob("docs/**/*.md")))]
