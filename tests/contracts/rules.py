"""The rules that hold each line to its room: every rule reads a tree and returns its violations.

A violation is a sentence: where, what, and what would be right. A rule has an example of what it
refuses in test_rules_can_fail.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.contracts import pages, tree
from tests.contracts.tree import Node

# what one role leaves for others while a playbook runs, and who may read it
HANDED = {
    "docker_host": "*",  # the facts of the one call that looks at the host
    "container_service_spec": "container_service",
    "container_service_declared": "container_service platform",
    "base_image_references": "base_image platform",
    "base_image_unused": "base_image platform",
    "platform_promises": "platform",
    "groups": "platform",  # who runs what is the platform's matter, and no service's
    "group_names": "platform",
    "hostvars": "base_image",  # what was found on the machine that builds for this one
}
# the one call that looks at a host; images are built on a host too
HANDED_MODULES = {"docker_engine"}
ANSIBLES = re.compile(
    r"ansible_\w+|inventory_hostname|inventory_dir|playbook_dir|role_path|role_name|item|omit"
    r"|lookup|query|q|now|undef|range|dict"
)
NO_VERB = re.compile(
    r"(the|an?|what|which|who|how|where|when|it|its|all|each|every|no)\b", re.IGNORECASE
)
LEAST_WORDS = 3  # of a test's name, after `test`
SENTENCE = re.compile(r"[A-Z].*\.", re.DOTALL)
PINNED = r"[\w.-]+(?:\[[\w,-]+\])?=="
SECRET = re.compile(r"(password|passwd|secret_key|secret|token|passphrase)$", re.IGNORECASE)
KNOWN_DEFAULTS = re.compile(
    r"minioadmin|changeme|change_me|supersecure|hunter2|password123|admin[:/]admin"
)


def at(root: Path, path: Path, what: str) -> str:
    """A violation, its file named from the root."""
    return f"{path.relative_to(root)}: {what}"


# --- rooms


def own(name: str, role: str) -> bool:
    """Tell whether a variable is a role's own."""
    return name.startswith((f"{role}_", f"__{role}_"))


def may_read(name: str, role: str) -> bool:
    """Tell whether a role may read a variable."""
    readers = HANDED.get(name, "").split()
    return bool(own(name, role) or ANSIBLES.fullmatch(name) or role in readers or "*" in readers)


def roles_read_only_their_own_variables(root: Path) -> list[str]:
    """In roles/X only X_*, __X_*, what is handed over, and Ansible's own."""
    return [
        at(root, path, f"reads {name}, which is not {role}'s: hand it over in the inventory")
        for role in tree.roles(root)
        for path in tree.below(root, *(f"roles/{role}/{each}" for each in ("tasks", "handlers")))
        + tree.below(root, f"roles/{role}/defaults", f"roles/{role}/vars")
        for name in sorted(tree.read(tree.load(path)))
        if not may_read(name, role)
    ]


def defined(task: tree.Task) -> Iterator[tuple[str, str]]:
    """Every variable that a task sets, with the role whose prefix it must have ('' is its own)."""
    callee = ""
    for module in task.modules:
        if module.rpartition(".")[2] in ("import_role", "include_role"):
            callee = task.body[module]["name"]
        if module.rpartition(".")[2] == "set_fact":
            yield from ((name, "") for name in task.body[module] if name != "cacheable")
    yield from ((name, callee) for name in task.body.get("vars") or {})
    if "register" in task.body:
        yield task.body["register"], ""
    if "loop_var" in (task.body.get("loop_control") or {}):
        yield task.body["loop_control"]["loop_var"], ""


def roles_set_only_their_own_variables(root: Path) -> list[str]:
    """What a role sets has its prefix; what it hands to a role it calls has that one's."""
    found = []
    for role in tree.roles(root):
        for path in tree.below(root, f"roles/{role}/defaults", f"roles/{role}/vars"):
            found += [
                at(root, path, f"sets {name}, which has no prefix {role}_")
                for name in tree.load(path)
                if not own(name, role)
            ]
        for task in tree.tasks(root, f"roles/{role}/tasks", f"roles/{role}/handlers"):
            found += [
                at(root, task.path, f"{task.name!r} sets {name}: its prefix is not {for_role}_")
                for name, callee in defined(task)
                for for_role in [callee or role]
                if not own(name, for_role) and not ANSIBLES.fullmatch(name)
            ]
    return found


def plugins_have_their_roles_prefix(root: Path) -> list[str]:
    """Filters, modules and actions of all roles share one space of names."""
    found = []
    for role in tree.roles(root):
        base = root / "roles" / role
        for path in sorted(base.glob("filter_plugins/*.py")):
            # the keys of the mapping that `filters` returns
            module = ast.parse(path.read_text(encoding="utf-8"))
            found += [
                at(root, path, f"filter {key.value!r} has no prefix {role}_")
                for function in ast.walk(module)
                if isinstance(function, ast.FunctionDef) and function.name == "filters"
                for mapping in ast.walk(function)
                if isinstance(mapping, ast.Dict)
                for key in mapping.keys
                if isinstance(key, ast.Constant) and not own(str(key.value), role)
            ]
        first = role.partition("_")[0]
        found += [
            at(root, path, f"module {path.stem} does not begin with {first}_, as its role does")
            for kind in ("library", "action_plugins")
            for path in sorted(base.glob(f"{kind}/*.py"))
            if not path.stem.startswith(f"{first}_")
            and (role, path.stem[:6]) != ("base_image", "image_")
        ]
    return found


def called(service: str) -> list[str]:
    """What a service goes by: its role's name and that of its container."""
    return [service, service.replace("_", "-")]


def services_name_no_other_service(root: Path) -> list[str]:
    """A service's neighbours are known to the inventory alone."""
    found = []
    services = tree.services(root)
    for role in services:
        others = [name for other in services if other != role for name in called(other)]
        if not others:
            continue
        named = re.compile(rf"(://|@|\b(groups|hostvars)\W+)({'|'.join(others)})\b")
        for path in tree.below(root, f"roles/{role}"):
            found += [
                at(
                    root,
                    path,
                    f"line {number} names {match[3]}: only the inventory knows neighbours",
                )
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                if (match := named.search(line))
            ]
    return found


def shared_roles_name_no_service(root: Path) -> list[str]:
    """How any container runs, and any image is built, is said without naming one."""
    names = [name for service in tree.services(root) for name in called(service)]
    named = re.compile(rf"\b({'|'.join(names)})\b", re.IGNORECASE)
    return [
        at(root, path, f"line {number} names {match[1]}: say it in that service's role")
        for role in ("container_service", "platform", "base_image", "docker")
        for path in tree.below(
            root, *(f"roles/{role}/{each}" for each in ("tasks", "defaults", "vars"))
        )
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if names and (match := named.search(line))
    ]


def playbooks_only_say_which_roles_in_what_order(root: Path) -> list[str]:
    """No variables and no conditions in playbooks, but for what the verdict is told."""
    found = []
    for path in tree.below(root, "playbooks", "site.yml"):
        content = tree.load(path)
        for play in content if isinstance(content, list) else []:
            for node in [play, *(task.body for task in tree.tasks_in(path, play))]:
                names = [
                    name
                    for key in ("vars", "ansible.builtin.set_fact")
                    for name in node.get(key) or {}
                    # the verdict is judged by a module beside the playbooks: these are no role's
                    if not name.startswith("verify_")
                ]
                found += [
                    at(root, path, f"{node.get('name')!r} sets {name}: set it in the inventory")
                    for name in names + node.get("vars_files", []) + node.get("vars_prompt", [])
                ]
                if "when" in node:
                    found.append(
                        at(root, path, f"{node.get('name')!r} has a condition: an empty group does")
                    )
    return found


def plays_clean_the_environment(root: Path) -> list[str]:
    """Every play says it: what its programs find in their environment is nobody's shell."""
    clean = "{{ lookup('clean_shell') }}"
    return [
        at(root, path, f"{play.get('name')!r} runs in any environment: add environment: {clean!r}")
        for path in tree.below(root, "playbooks", "site.yml")
        for play in tree.load(path) or []
        if "hosts" in play and play.get("environment") != clean
    ]


# --- interfaces


def defaults_equal_argument_specs(root: Path) -> list[str]:
    """Every default stands in both files, with one value; a required option has none."""
    found = []
    for role in tree.roles(root):
        path = root / "roles" / role / "defaults/main.yml"
        if not (root / "roles" / role / "meta/argument_specs.yml").is_file():
            found.append(f"roles/{role}: has no meta/argument_specs.yml")
            continue
        defaults, options = tree.load(path), tree.options(root, role)
        found += [
            at(root, path, f"{name} is in no argument_specs of {role}")
            for name in sorted(defaults.keys() - options.keys())
        ]
        for name, option in options.items():
            if "default" in option and defaults.get(name, "(nothing)") != option["default"]:
                seen = defaults.get(name, "nothing")
                found.append(
                    at(root, path, f"{name} is {seen!r}, and {option['default']!r} in the spec")
                )
            if option.get("required") and name in defaults:
                found.append(at(root, path, f"{name} is required and has a default all the same"))
            if not option.get("required") and "default" not in option:
                found.append(at(root, path, f"{name} is neither required nor has it a default"))
    return found


def specs_describe_every_option(root: Path) -> list[str]:
    """Each entry point and each option, nested ones too, has a text that is a sentence."""
    found = []
    for role in tree.roles(root):
        path = root / "roles" / role / "meta/argument_specs.yml"
        for point, spec in tree.specs(root, role).items():
            if not spec.get("short_description"):
                found.append(at(root, path, f"entry point {point} has no short_description"))
            told = [(f"entry point {point}", spec), *tree.flat(spec.get("options") or {})]
            found += [
                at(root, path, f"{name} has no sentence as its description: {text!r}")
                for name, each in told
                for text in [each.get("description", "")]
                if not all(SENTENCE.fullmatch(line) for line in tree.lines(text))
            ]
    return found


def defaults_carry_values_only(root: Path) -> list[str]:
    """A variable is described in argument_specs alone; a comment in defaults speaks to a tool."""
    return [
        at(root, path, f"line {number} explains: say it in meta/argument_specs.yml: {line.strip()}")
        for path in tree.below(root, "roles/*/defaults")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"(^|\s)#(?! (renovate:|noqa|yamllint ))", line)
    ]


def role_pages_are_written_from_specs(root: Path) -> list[str]:
    """Each role has the page that its argument_specs make, and no other page is there."""
    due = pages.due(root)
    found = [
        at(root, path, "is not what the role's argument_specs make: run `make docs`")
        for path, text in due.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    strays = sorted(set((root / pages.PAGES).glob("*")) - due.keys())
    return found + [at(root, path, "is no role's page: run `make docs`") for path in strays]


def numbers_and_truths_are_converted_where_they_are_used(root: Path) -> list[str]:
    """`-e name=value` is text: whoever reads an int or a bool says so, `| int` or `| bool`."""
    wanted = {
        name: option["type"]
        for role in tree.roles(root)
        for name, option in tree.options(root, role).items()
        if option.get("type") in ("int", "bool")
    }
    found = []
    for path in tree.below(root, "roles", "playbooks", "inventory", "molecule"):
        if path.name != "argument_specs.yml":
            found += [
                at(root, path, f"reads {name} as it is: say {name} | {wanted[name]}")
                for name in sorted(tree.unconverted(tree.load(path), wanted))
            ]
    for path in sorted(root.glob("roles/*/templates/**/*.j2")):
        found += [
            at(root, path, f"reads {name} as it is: say {name} | {wanted[name]}")
            for name in sorted(tree.unconverted(path.read_text(encoding="utf-8"), wanted))
        ]
    return found


# --- pins


def nothing_floats(root: Path) -> list[str]:
    """No `latest`, every Dockerfile stands on the base, every pip install demands hashes."""
    floating = re.compile(r"(:|@)latest\b|\bversion: *[\"']?latest|\bstate: latest", re.IGNORECASE)
    found = []
    places: tuple[str, ...] = ("roles", "playbooks", "inventory", "molecule", "Makefile", ".ci")
    places += ("notebooks", "examples")
    for path in tree.files(root):
        parts = path.relative_to(root).parts
        if parts[0] not in places or path.suffix == ".py":
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if floating.search(line):
                found.append(
                    at(root, path, f"line {number} floats: name a version: {line.strip()}")
                )
            if re.search(r"\bpip3? install\b", line) and not is_hashed(path, number):
                found.append(at(root, path, f"line {number} installs without --require-hashes"))
        if path.name == "Dockerfile":
            stages = re.findall(r"^FROM \S+ AS (\S+)", path.read_text(), re.MULTILINE)
            found += [
                at(root, path, f"FROM {image}: images stand on ${{BASE_IMAGE}} or an own stage")
                for image in re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE)
                if image not in {"${BASE_IMAGE}", *stages}
            ]
    return found


def is_hashed(path: Path, number: int) -> bool:
    """Tell whether the command that line `number` is part of demands hashes."""
    lines = path.read_text(errors="replace").splitlines()
    last = number - 1
    while lines[last].endswith("\\") and last + 1 < len(lines):
        last += 1
    statement = "\n".join(lines[number - 1 : last + 1])
    # in the Makefile the tool and its options are one variable; what is from git has its commit
    return "--require-hashes" in statement or "/git-requirements.txt" in statement


def images_are_pinned_by_digest(root: Path) -> list[str]:
    """An image of a registry is named by its digest in defaults; empty means built here."""
    return [
        at(root, path, f"{name} is {value!r}: pin it with @sha256:<digest>")
        for path in tree.below(root, "roles/*/defaults")
        for name, value in tree.load(path).items()
        if re.search(r"_image$|_registry$", name)
        and value
        and not re.search(r"@sha256:[0-9a-f]{64}$", str(value))
    ]


def modules_are_pinned(root: Path) -> list[str]:
    """A Go module is installed by the version that an ARG above it names."""
    found = []
    for path in sorted(root.glob("roles/*/files/**/Dockerfile")):
        text = path.read_text(encoding="utf-8")
        for module, version in re.findall(r"go install [^\n]*?([\w./-]+)@(\S+?)\"?\s", text):
            name = re.fullmatch(r"\$\{(\w+)\}", version)
            value = re.search(rf"^ARG {name[1]}=(\S+)$", text, re.MULTILINE) if name else None
            pinned = value[1] if value else version
            if not re.fullmatch(r"v\d+\.\d+\.\d+\S*", pinned):
                found.append(at(root, path, f"{module} is at {pinned!r}: name its version"))
    return found


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """Every list of requirements with its lock file."""
    inputs = [
        path for at in ("*", "roles/*/files/**/*", "examples/*/*") for path in root.glob(f"{at}.in")
    ]
    return [(path, path.with_suffix(".txt")) for path in sorted(inputs)]


def asked(path: Path) -> list[Requirement]:
    """What a list of requirements asks for, with the lists that it includes."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.partition(" #")[0].strip()
        if words.startswith("-r "):
            root = next(each for each in path.parents if (each / words[3:]).is_file())
            found += asked(root / words[3:])
        elif words and not words.startswith("#"):
            found.append(Requirement(words))
    return found


def locked(path: Path) -> dict[str, set[str]]:
    """What a lock file holds: each name with its versions, which differ by Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;\\]+)", path.read_text(), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def lock_files_hold_what_is_asked_for_by_hash(root: Path) -> list[str]:
    """Every list has a lock, whose every line has hashes and which satisfies the list."""
    found = []
    for source, lock in pairs(root):
        if not lock.is_file():
            found.append(at(root, source, f"has no lock file {lock.name}: run `make lock`"))
            continue
        entries = re.split(rf"^(?={PINNED})", lock.read_text(), flags=re.MULTILINE)[1:]
        found += [
            at(root, lock, f"{entry.split()[0]} has no hash")
            for entry in entries
            if "--hash=sha256:" not in entry
        ]
        odd = re.findall(rf"^(?!#|\s|{PINNED})\S.*$", lock.read_text(), re.MULTILINE)
        found += [at(root, lock, f"is no pinned requirement: {line}") for line in odd]
        has = locked(lock)
        for wanted in asked(source):
            versions = has.get(canonicalize_name(wanted.name), set())
            if not versions:
                found.append(
                    at(root, lock, f"lacks {wanted.name} of {source.name}: run `make lock`")
                )
            found += [
                at(root, lock, f"has {wanted.name} {version}, and {source.name} asks {wanted}")
                for version in sorted(versions)
                if not wanted.specifier.contains(version, prereleases=True)
            ]
    return found


def every_lock_is_a_subset_of_the_developers(root: Path) -> list[str]:
    """What tests ran with is what runs: one version of a package in all lock files.

    A list whose packages cannot be those of the others says so, and why, in a line `# apart: ...`.
    """
    developers = root / "requirements-dev.txt"
    has = locked(developers)
    return [
        at(root, lock, f"has {name} {version}, requirements-dev.txt {', '.join(sorted(there))}")
        for source, lock in pairs(root)
        if lock.is_file() and not re.search(r"^# apart: \w", source.read_text(), re.MULTILINE)
        for name, versions in sorted(locked(lock).items())
        for there in [has.get(name, {"none"})]
        for version in sorted(versions - there)
    ]


# --- tasks


def modules_have_their_full_name_or_are_the_roles_own(root: Path) -> list[str]:
    """A module's name says where it comes from."""
    found = []
    for task in tree.tasks(root, "roles/*/tasks", "roles/*/handlers", "playbooks", "molecule"):
        room = next(p for p in task.path.parents if p.parent.name == "roles" or p.parent == root)
        plugins = [*room.glob("library/*.py"), *room.glob("action_plugins/*.py")]
        mine = {path.stem for path in plugins} | HANDED_MODULES
        found += [
            at(root, task.path, f"{task.name!r} calls {module}: give its full name")
            for module in task.modules
            if module.count(".") < 2 and module not in mine
        ]
    return found


def a_task_name_begins_with_a_verb(root: Path) -> list[str]:
    """Who watches a run reads what is done: `Create the volume`, not `The volume`."""
    return [
        at(root, task.path, f"{task.name!r} begins with no verb: say what is done")
        for task in tree.tasks(root, "roles/*/tasks", "roles/*/handlers", "playbooks", "molecule")
        # a playbook that is imported is a room, not a deed
        if NO_VERB.match(task.name) and "ansible.builtin.import_playbook" not in task.body
    ]


def no_task_runs_a_shell_or_hides_an_error(root: Path) -> list[str]:
    """No shell, no raw, no script, no ignored error; each command says above it why."""
    found = []
    for task in tree.tasks(root, "roles", "playbooks", "molecule"):
        for module in task.modules:
            short = module.rpartition(".")[2]
            if short in ("shell", "raw", "script", "expect"):
                found.append(at(root, task.path, f"{task.name!r} uses {short}: use a module"))
            if short == "command" and not is_explained(task):
                found.append(at(root, task.path, f"{task.name!r} runs a command: say above it why"))
        if task.body.get("ignore_errors"):
            found.append(at(root, task.path, f"{task.name!r} ignores errors: say which are none"))
    return found


def tasks_of_the_control_machine_run_as_its_user(root: Path) -> list[str]:
    """What is delegated to localhost is neither root's nor sent over the host's connection.

    A keyword does not do: the variables that an inventory has for its hosts win over it.
    """
    return [
        at(root, task.path, f"{task.name!r} runs on localhost: give it vars {wanted}")
        for task in tree.tasks(root, "roles", "playbooks")
        for wanted in [
            {"ansible_become": False, "ansible_connection": "local"}
            | {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        ]
        for delegated in [task.body, (task.body.get(task.modules[0]) or {}) if task.modules else {}]
        if isinstance(delegated, dict)
        if (delegated.get("apply") or delegated).get("delegate_to") in ("localhost", "127.0.0.1")
        if not wanted.items() <= (task.body.get("vars") or {}).items()
    ]


def is_explained(task: tree.Task) -> bool:
    """Tell whether a comment stands above a task or between its name and its command."""
    lines = task.path.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip() == f"- name: {task.name}")
    above = next((line.strip() for line in reversed(lines[:start]) if line.strip()), "")
    until = next(n for n in range(start, len(lines)) if re.search(r"\bcommand:", lines[n]))
    return above.startswith("#") or any("#" in line for line in lines[start : until + 1])


def exceptions_carry_their_reason(root: Path) -> list[str]:
    """A `noqa` or an ignored type names its rule and says why, in roles, playbooks and src."""
    bare = re.compile(r"#\s*(noqa|type: ignore)(?!\s*(:\s*[A-Z]+\d+|\[))")
    return [
        at(root, path, f"line {number} silences every rule: name one: {line.strip()}")
        for path in tree.files(root)
        if path.suffix == ".py" and "contracts" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bare.search(line)
    ]


def roles_stay_in_their_directories(root: Path) -> list[str]:
    """No `../` in a role: it would know where it lies."""
    # where an input lies beside the work tree, inside the runner's container
    allowed = ("../inputs/",)
    return [
        at(root, path, f"line {number} leaves the role: {line.strip()}")
        for path in tree.files(root)
        if path.relative_to(root).parts[0] == "roles" and path.suffix != ".md"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if re.search(r"(?<!\.)\.\./", line) and not any(each in line for each in allowed)
    ]


# --- secrets


def no_secret_has_a_default(root: Path) -> list[str]:
    """A secret is generated or given; no file holds one."""
    found = []
    for path in tree.below(root, "roles", "inventory", "playbooks", "molecule"):
        found += [
            at(root, path, f"{name} is {value!r}: a secret has no default")
            for name, value in leaves(tree.load(path))
            if SECRET.search(name) and isinstance(value, str) and value and "{{" not in value
        ]
    for path in tree.files(root):
        if "contracts" in path.parts or path.name.startswith("requirements"):
            continue
        found += [
            at(root, path, f"line {number} holds a password that everybody knows")
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
            if KNOWN_DEFAULTS.search(line)
        ]
    return found


def leaves(node: Node) -> Iterator[tuple[str, Node]]:
    """Every key of a YAML value with what it holds, where that is no mapping or list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key), value
            yield from leaves(value)
    elif isinstance(node, list):
        for each in node:
            yield from leaves(each)


def secrets_are_files_and_nothing_else(root: Path) -> list[str]:
    """A secret is named under `secrets` of a declaration, never where `docker inspect` shows it."""
    found = []
    for task in tree.tasks(root, "roles/*/tasks"):
        spec = (task.body.get("vars") or {}).get("container_service_spec") or {}
        role = task.path.parents[1].name
        private = tree.load(root / "roles" / role / "vars/main.yml")
        for key, value in spec.items():
            if key == "secrets":
                continue
            # a variable of the role's own may hold another one
            names = tree.read(value)
            names |= {n for name in names for n in tree.read(private.get(name, ""))}
            found += [
                at(root, task.path, f"{key} of {spec.get('name')} reads {name}: put it in secrets")
                for name in sorted(names)
                if SECRET.search(name)
            ]
            found += [
                at(root, task.path, f"{key} of {spec.get('name')} sets {name}: give it as a file")
                for name, _ in leaves(value)
                if re.search(r"(PASSWORD|SECRET|TOKEN|ACCESS_KEY)\w*$", name)
                and not name.endswith("_FILE")
            ]
    return found


def generated_secrets_are_kept_out_of_git(root: Path) -> list[str]:
    """What an inventory generates is ignored by git and by Ansible's reading of the directory."""
    found = []
    for inventory in sorted(path.parent for path in root.glob("inventory/*/hosts.yml")):
        place = inventory / ".secrets/mlops/some_password"
        words = ["git", "-C", str(root), "check-ignore", "--quiet", "--no-index", str(place)]
        if subprocess.run(words, check=False).returncode:
            found.append(at(root, place, "would be committed: ignore it in .gitignore"))
    return found


def no_file_knows_the_machine_it_was_written_on(root: Path) -> list[str]:
    """No path of one machine: of root's home, of somebody's, of a work directory."""
    machine = re.compile(r"(?<![\w.$}/-])/(work|root|Users|home/\w+)(?=/|[\"'`\s]|$)")
    found = []
    for path in tree.files(root):
        parts = path.relative_to(root).parts
        # inside an image /root is the image's; on the throw-away host its user has a home
        inside = path.name == "Dockerfile" or parts[0] == "molecule"
        if inside or "contracts" in parts:
            continue
        found += [
            at(root, path, f"line {number} knows {match[0]}: take it as an argument")
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
            if (match := machine.search(line))
        ]
    return found


# --- documents and verbs


def targets(root: Path) -> dict[str, str]:
    """Every phony target of the Makefile with its help, or an empty text."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    phony = " ".join(re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)).split()
    helps = dict(re.findall(r"^([\w-]+):[^#\n]*## (.+)$", text, re.MULTILINE))
    return {name: helps.get(name, "") for name in phony}


def make_help_lists_every_verb(root: Path) -> list[str]:
    """`make help` shows every target that is not only a step of others."""
    if not (root / "Makefile").is_file():
        return ["Makefile: is missing"]
    text = (root / "Makefile").read_text(encoding="utf-8")
    done = subprocess.run(
        ["make", "-s", "-C", str(root), "help"], capture_output=True, text=True, check=False
    )
    shown = set(re.findall(r"^ *([a-z][\w-]*) ", done.stdout, re.MULTILINE))
    found = [f"Makefile: `make help` fails: {done.stderr.strip()}"] if done.returncode else []
    for name, help_text in targets(root).items():
        is_step = re.search(rf"^(?!\.PHONY)[\w./-]+:[^#\n]*\b{name}\b", text, re.MULTILINE)
        if name not in shown and (help_text or not is_step):
            found.append(f"Makefile: target {name} is not in `make help`: give it a `## text`")
    return found


def readme_lists_what_runs(root: Path) -> list[str]:
    """The table `What runs` of the README names every container of each service, and no other."""
    path = root / "README.md"
    platform = tree.options(root, "platform").get("platform_name", {}).get("default")
    table = tree.Document(path).section("What runs") if path.is_file() else ""
    cells = re.findall(r"\|([^|\n]*)\|$", table, re.MULTILINE)
    shown = [name for cell in cells for name in re.findall(rf"`{platform}-([\w-]+)`", cell)]
    declared = {name: role for role in tree.services(root) for name in tree.containers(root, role)}
    return [
        *(
            at(root, path, f"`What runs` lacks container {platform}-{name} of role {role}")
            for name, role in declared.items()
            if not any(re.fullmatch(name, each) for each in shown)
        ),
        *(
            at(root, path, f"`What runs` names {platform}-{each}, which no role declares")
            for each in shown
            if not any(re.fullmatch(name, each) for name in declared)
        ),
    ]


def systems_that_are_built_are_tested_on_a_host(root: Path) -> list[str]:
    """A system that the README's table `Systems` calls built has a molecule scenario."""
    path = root / "README.md"
    table = tree.Document(path).section("Systems") if path.is_file() else ""
    built = re.findall(r"^\| `([\w-]+)` \|[^|\n]*\| built\b", table, re.MULTILINE)
    scenarios = {name: "default" if name == "local" else name for name in built}
    return [
        at(root, path, f"calls {name} built, which molecule/{scenario} is to show: add it")
        for name, scenario in scenarios.items()
        if not (root / "molecule" / scenario / "molecule.yml").is_file()
    ]


def documents_name_only_what_exists(root: Path) -> list[str]:
    """README and docs: every target, path, variable and port that they name is there."""
    if not (root / "README.md").is_file():
        return ["README.md: is missing: say what this is and how to start it"]
    if not (root / "Makefile").is_file():
        return ["Makefile: is missing"]
    every = {name for role in tree.roles(root) for name in tree.options(root, role)}
    for kind in ("library", "action_plugins", "lookup_plugins"):
        every |= {path.stem for path in root.glob(f"roles/*/{kind}/*.py")}
    found = []
    for document in tree.documents(root):
        seen = [
            *unknown_targets(root, document),
            *unknown_paths(root, document),
            *(f"variable {name}" for name in unknown_variables(root, document, every)),
            *(f"port {port}" for port in unknown_ports(root, document)),
        ]
        found += [at(root, document.path, f"names {what}, which does not exist") for what in seen]
    return found


def unknown_targets(root: Path, document: tree.Document) -> Iterator[str]:
    """Targets and variables of `make` that the Makefile lacks."""
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    known = targets(root)
    for line in document.code.splitlines():
        for name, rest in re.findall(r"\bmake (?:-s )?([a-z][a-z-]*)([^#|]*)", line):
            if name not in known:
                yield f"`make {name}`"
            for variable in re.findall(r"\b([A-Z][A-Z_]+)=", rest):
                if not re.search(rf"^{variable} +\?=|\$\({variable}\)", makefile, re.MULTILINE):
                    yield f"{variable}= of `make {name}`"


def unknown_paths(root: Path, document: tree.Document) -> Iterator[str]:
    """Paths of the project that are not there; what git ignores is made by a run."""
    tops = {path.name for path in root.iterdir()} - {".git"}
    spans = [word for span in document.spans for word in span.split()]
    typed = [word for block in document.blocks for word in re.split(r"[\s=]", block)]
    named = [(root, word) for word in spans + typed if "/" in word and word.split("/")[0] in tops]
    named += [(root, w) for w in spans if re.fullmatch(r"[\w-]+\.(ya?ml|md|py|toml|cfg|txt|in)", w)]
    named += [(document.path.parent, link) for link in document.links if "://" not in link]
    for start, word in named:
        name = word.rstrip("/").rstrip(",.;:")
        if re.search(r"[<>{}$]", name):
            name = re.sub(r"<\w+>", "*", name)
        if list(start.glob(name)) or list(root.glob(f"**/{name}" if "/" not in name else name)):
            continue
        ignored = ["git", "-C", str(root), "check-ignore", "--quiet", "--no-index", name]
        if subprocess.run(ignored, check=False, capture_output=True).returncode:
            yield f"path {word}"


def unknown_variables(root: Path, document: tree.Document, known: set[str]) -> list[str]:
    """Variables with a role's prefix that no role has."""
    prefixes = "|".join(tree.roles(root))
    named = set(re.findall(rf"(?<![\w/<-])((?:{prefixes})_[a-z0-9_]+)\b", document.code))
    exempt = set(tree.roles(root)) | HANDED.keys()
    return sorted(named - known - exempt)


def unknown_ports(root: Path, document: tree.Document) -> list[str]:
    """Ports in addresses that no role publishes by default, or exposes to its neighbours."""
    exposed = [
        spec.get("expose") or [] for r in tree.roles(root) for spec in tree.declarations(root, r)
    ]
    ports = {str(port) for each in exposed for port in each} | {
        str(option.get("default"))
        for role in tree.roles(root)
        for name, option in tree.options(root, role).items()
        if name.endswith("_port")
    }
    named = set(re.findall(r"(?:://[\w.-]+|127\.0\.0\.1):(\d{2,5})\b", document.text))
    return sorted(named - ports)


# --- tests


def tests_are_sentences_without_mocks(root: Path) -> list[str]:
    """A test's name is its promise, nothing pretends to be the real thing, none always passes."""
    found = []
    for path in sorted([*root.glob("tests/**/*.py"), *root.glob("roles/*/verify/check_*.py")]):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and is_test(node):
                if node.name.count("_") < LEAST_WORDS:
                    found.append(at(root, path, f"{node.name} is no sentence"))
                if ast.get_docstring(node):
                    found.append(at(root, path, f"{node.name} says it twice: its name is enough"))
                if not any(isinstance(each, ast.Assert | ast.Call) for each in ast.walk(node)):
                    found.append(at(root, path, f"{node.name} can not fail"))
            if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant):
                found.append(at(root, path, f"line {node.lineno} asserts a constant"))
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.Import | ast.ImportFrom) and "mock" in (
                *names,
                str(getattr(node, "module", "")).rpartition(".")[2],
            ):
                found.append(
                    at(root, path, f"line {node.lineno} imports a mock: run the real thing")
                )
    return found


def is_test(node: ast.FunctionDef) -> bool:
    """Tell whether pytest runs a function as a test; a fixture may have such a name too."""
    return node.name.startswith("test_") and not any(
        "fixture" in ast.unparse(decorator) for decorator in node.decorator_list
    )


RULES = [
    roles_read_only_their_own_variables,
    roles_set_only_their_own_variables,
    plugins_have_their_roles_prefix,
    services_name_no_other_service,
    shared_roles_name_no_service,
    playbooks_only_say_which_roles_in_what_order,
    plays_clean_the_environment,
    defaults_equal_argument_specs,
    specs_describe_every_option,
    defaults_carry_values_only,
    role_pages_are_written_from_specs,
    numbers_and_truths_are_converted_where_they_are_used,
    nothing_floats,
    images_are_pinned_by_digest,
    modules_are_pinned,
    lock_files_hold_what_is_asked_for_by_hash,
    every_lock_is_a_subset_of_the_developers,
    modules_have_their_full_name_or_are_the_roles_own,
    a_task_name_begins_with_a_verb,
    no_task_runs_a_shell_or_hides_an_error,
    tasks_of_the_control_machine_run_as_its_user,
    exceptions_carry_their_reason,
    roles_stay_in_their_directories,
    no_secret_has_a_default,
    secrets_are_files_and_nothing_else,
    generated_secrets_are_kept_out_of_git,
    no_file_knows_the_machine_it_was_written_on,
    make_help_lists_every_verb,
    readme_lists_what_runs,
    systems_that_are_built_are_tested_on_a_host,
    documents_name_only_what_exists,
    tests_are_sentences_without_mocks,
]
