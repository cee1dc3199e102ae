"""Every rule refuses what it is there to refuse, and names it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contracts import pages, rules, tree

Files = dict[str, str]
HASH = "--hash=sha256:" + "0" * 64
TASKS = "roles/minio/tasks/main.yml"
SPECS = "roles/minio/meta/argument_specs.yml"
DEFAULTS = "roles/minio/defaults/main.yml"
MINIO_PAGE = "docs/roles/minio.md"
GIVEN_MAKEFILE = (
    ".PHONY: help docs\nhelp: ## this\n\t@printf ' help  this\\n docs  that\\n'\n"
    "docs: ## that\n\t@true\n"
)


def specs(**options: dict[str, Any]) -> str:
    """An argument_specs file, which is YAML as JSON is."""
    described = {name: {"description": "It.", **option} for name, option in options.items()}
    point = {"short_description": "It", "description": ["It."], "options": described}
    return str({"argument_specs": {"main": point}}).replace("True", "true")


def task(text: str) -> str:
    return f"- name: Do it\n  {text}\n"


def declaring(role: str, name: str = "") -> Files:
    """A role that is a service, for it declares a container."""
    spec = f"{{container_service_spec: {{name: '{name or role}'}}}}"
    return {
        f"roles/{role}/tasks/main.yml": task(
            f"ansible.builtin.import_role: {{name: container_service}}\n  vars: {spec}"
        )
    }


def what_runs(*containers: str) -> Files:
    """A README with the table of what runs, and the role that names the platform."""
    rows = "".join(f"| it | http://127.0.0.1 | `{name}` |\n" for name in containers)
    return {
        "README.md": f"# It\n\n## What runs\n\n| a | b | c |\n|---|---|---|\n{rows}\n## Next\n",
        "roles/platform/meta/argument_specs.yml": specs(platform_name={"default": "mlops"}),
    }


# rule, the files that break it, what the violation says
EXAMPLES: list[tuple[Callable[[Path], list[str]], Files, str]] = [
    (
        rules.roles_read_only_their_own_variables,
        {TASKS: task('ansible.builtin.debug: {msg: "{{ mlflow_port }}"}')},
        "reads mlflow_port",
    ),
    (
        rules.roles_read_only_their_own_variables,
        {TASKS: task("ansible.builtin.debug:\n  when: mlflow_port | int > 1")},
        "reads mlflow_port",
    ),
    (
        rules.roles_read_only_their_own_variables,
        {TASKS: task("ansible.builtin.debug: {msg: \"{{ groups['mlflow'] }}\"}")},
        "reads groups",
    ),
    (
        rules.roles_read_only_their_own_variables,
        {DEFAULTS: 'minio_port: "{{ container_service_declared }}"\n'},
        "reads container_service_declared",
    ),
    (
        rules.roles_set_only_their_own_variables,
        {TASKS: task("ansible.builtin.set_fact: {port: 1}")},
        "sets port",
    ),
    (
        rules.roles_set_only_their_own_variables,
        {TASKS: "- block:\n  - name: Do it\n    ansible.builtin.debug:\n    register: result\n"},
        "sets result",
    ),
    (
        rules.roles_set_only_their_own_variables,
        {TASKS: task("ansible.builtin.import_role: {name: platform}\n  vars: {minio_x: 1}")},
        "its prefix is not platform_",
    ),
    (rules.roles_set_only_their_own_variables, {DEFAULTS: "port: 1\n"}, "sets port"),
    (
        rules.plugins_have_their_roles_prefix,
        {"roles/minio/filter_plugins/a.py": "def filters(self):\n    return {'policy': 1}\n"},
        "filter 'policy'",
    ),
    (rules.plugins_have_their_roles_prefix, {"roles/minio/library/s3.py": ""}, "module s3"),
    (
        rules.services_name_no_other_service,
        {
            "roles/mlflow/defaults/main.yml": "mlflow_s3_endpoint: http://minio:9000\n",
            **declaring("mlflow"),
            **declaring("minio"),
        },
        "names minio",
    ),
    (
        rules.services_name_no_other_service,
        {
            **declaring("dvc_runner"),
            **declaring("minio"),
            "roles/minio/vars/main.yml": "minio_x: \"{{ groups['dvc_runner'] }}\"\n",
        },
        "names dvc_runner",
    ),
    (
        rules.shared_roles_name_no_service,
        {
            "roles/platform/tasks/main.yml": "- name: Start MinIO\n  ansible.builtin.debug:\n",
            **declaring("minio"),
        },
        "names MinIO",
    ),
    (
        rules.playbooks_only_say_which_roles_in_what_order,
        {"playbooks/a.yml": "- name: P\n  hosts: all\n  vars: {a: 1}\n"},
        "sets a",
    ),
    (
        rules.playbooks_only_say_which_roles_in_what_order,
        {"playbooks/a.yml": "- name: P\n  hosts: all\n  tasks:\n  - name: T\n    when: a\n"},
        "'T' has a condition",
    ),
    (
        rules.plays_clean_the_environment,
        {"playbooks/a.yml": "- name: P\n  hosts: all\n"},
        "'P' runs in any environment",
    ),
    (
        rules.defaults_equal_argument_specs,
        {DEFAULTS: "minio_a: 1\n", SPECS: specs(minio_a={"default": 2})},
        "minio_a is 1, and 2 in the spec",
    ),
    (
        rules.defaults_equal_argument_specs,
        {DEFAULTS: "minio_a: 1\n", SPECS: specs()},
        "minio_a is in no argument_specs",
    ),
    (
        rules.defaults_equal_argument_specs,
        {DEFAULTS: "", SPECS: specs(minio_a={"default": 1})},
        "minio_a is 'nothing', and 1",
    ),
    (
        rules.defaults_equal_argument_specs,
        {DEFAULTS: "minio_a: x\n", SPECS: specs(minio_a={"required": True})},
        "has a default all the same",
    ),
    (
        rules.defaults_equal_argument_specs,
        {DEFAULTS: "", SPECS: specs(minio_a={})},
        "neither required nor",
    ),
    (rules.defaults_equal_argument_specs, {DEFAULTS: "minio_a: 1\n"}, "has no meta/argument_specs"),
    *(
        (
            rules.specs_describe_every_option,
            {SPECS: specs(minio_a={"description": text})},
            "minio_a has no sentence",
        )
        for text in ("", "port", ["It.", "port"])
    ),
    (
        rules.specs_describe_every_option,
        {SPECS: specs(minio_a={"options": {"name": {}}})},
        "minio_a.name has no sentence",
    ),
    (
        rules.specs_describe_every_option,
        {SPECS: "argument_specs: {main: {}, run: {short_description: It}}\n"},
        "entry point main has no short_description",
    ),
    (
        rules.specs_describe_every_option,
        {SPECS: "argument_specs: {main: {}, run: {short_description: It}}\n"},
        "entry point run has no sentence",
    ),
    (rules.defaults_carry_values_only, {DEFAULTS: "# Port.\nminio_a: 1\n"}, "line 1 explains"),
    (rules.defaults_carry_values_only, {DEFAULTS: "minio_a: 1 # port\n"}, "line 1 explains"),
    (
        rules.role_pages_are_written_from_specs,
        {SPECS: specs(), MINIO_PAGE: pages.page("minio", {}) + "more\n"},
        "is not what the role's argument_specs make",
    ),
    (
        rules.role_pages_are_written_from_specs,
        {"docs/roles/gone.md": "# gone\n"},
        "gone.md: is no role's page",
    ),
    (
        rules.numbers_and_truths_are_converted_where_they_are_used,
        {
            SPECS: specs(minio_a={"type": "int"}),
            TASKS: task("ansible.builtin.debug:\n  when: 3 > minio_a"),
        },
        "reads minio_a as it is: say minio_a | int",
    ),
    (
        rules.numbers_and_truths_are_converted_where_they_are_used,
        {
            SPECS: specs(minio_b={"type": "bool"}),
            "roles/minio/vars/main.yml": "__minio_c: '{{ minio_b | bool and not minio_b }}'\n",
        },
        "reads minio_b as it is: say minio_b | bool",
    ),
    (
        rules.numbers_and_truths_are_converted_where_they_are_used,
        {
            SPECS: specs(minio_a={"type": "int"}),
            "roles/minio/templates/a.conf.j2": "workers = {{ minio_a | string }}\n",
        },
        "reads minio_a as it is: say minio_a | int",
    ),
    (rules.nothing_floats, {DEFAULTS: "minio_image: minio:latest\n"}, "line 1 floats"),
    (
        rules.nothing_floats,
        {"roles/minio/files/image/Dockerfile": "FROM debian:trixie\n"},
        "FROM debian:trixie",
    ),
    (
        rules.nothing_floats,
        {"roles/minio/files/image/Dockerfile": "FROM ${BASE_IMAGE} AS one\nFROM two\n"},
        "FROM two",
    ),
    (
        rules.nothing_floats,
        {"roles/minio/files/image/Dockerfile": "RUN pip install \\\n  minio==1\n"},
        "without --require-hashes",
    ),
    (
        rules.images_are_pinned_by_digest,
        {DEFAULTS: "minio_image: quay.io/minio/minio:1\n"},
        "pin it with @sha256",
    ),
    (
        rules.modules_are_pinned,
        {"roles/minio/files/image/Dockerfile": 'RUN go install "m.example/x@main"\n'},
        "m.example/x is at 'main'",
    ),
    (
        rules.modules_are_pinned,
        {"roles/minio/files/image/Dockerfile": "ARG V=latest\nRUN go install m.example/x@${V}\n"},
        "m.example/x is at 'latest'",
    ),
    (rules.lock_files_hold_what_is_asked_for_by_hash, {"a.in": "web\n"}, "has no lock file a.txt"),
    (
        rules.lock_files_hold_what_is_asked_for_by_hash,
        {"a.in": "web\n", "a.txt": "web==1\n"},
        "web==1 has no hash",
    ),
    (
        rules.lock_files_hold_what_is_asked_for_by_hash,
        {"a.in": "web\ndb\n", "a.txt": f"web==1 \\\n    {HASH}\n"},
        "lacks db",
    ),
    (
        rules.lock_files_hold_what_is_asked_for_by_hash,
        {"a.in": "web>=2\n", "a.txt": f"web==1 \\\n    {HASH}\n"},
        "has web 1, and a.in asks web>=2",
    ),
    (
        rules.lock_files_hold_what_is_asked_for_by_hash,
        {"a.in": "web\n", "a.txt": f"web==1 \\\n    {HASH}\ndb @ https://example.invalid/db\n"},
        "is no pinned requirement: db",
    ),
    (
        rules.lock_files_hold_what_is_asked_for_by_hash,
        {"a.in": "-r roles/minio/files/b.in\n", "roles/minio/files/b.in": "db\n", "a.txt": "#\n"},
        "lacks db",
    ),
    (
        rules.every_lock_is_a_subset_of_the_developers,
        {"a.in": "", "a.txt": "web==1\n", "requirements-dev.txt": "web==2\n"},
        "has web 1, requirements-dev.txt 2",
    ),
    (
        rules.every_lock_is_a_subset_of_the_developers,
        {"a.in": "# apart:\n", "a.txt": "web==1\n", "requirements-dev.txt": "web==2\n"},
        "has web 1, requirements-dev.txt 2",
    ),
    (
        rules.modules_have_their_full_name_or_are_the_roles_own,
        {TASKS: task("debug: {}")},
        "calls debug",
    ),
    (
        rules.modules_have_their_full_name_or_are_the_roles_own,
        {TASKS: task("mlflow_x: {}"), "roles/mlflow/library/mlflow_x.py": ""},
        "calls mlflow_x",
    ),
    *(
        (rules.a_task_name_begins_with_a_verb, {TASKS: text}, says)
        for text, says in [
            ("- name: What runs\n  ansible.builtin.debug:\n", "'What runs' begins with no verb"),
            ("- ansible.builtin.debug:\n", "'a task without a name' begins with no verb"),
        ]
    ),
    (
        rules.no_task_runs_a_shell_or_hides_an_error,
        {TASKS: task("ansible.builtin.shell: ls | wc")},
        "uses shell",
    ),
    (
        rules.no_task_runs_a_shell_or_hides_an_error,
        {TASKS: task("ansible.builtin.command: ls")},
        "runs a command: say above it why",
    ),
    (
        rules.no_task_runs_a_shell_or_hides_an_error,
        {TASKS: task("ansible.builtin.debug:\n  ignore_errors: true")},
        "ignores errors",
    ),
    (
        rules.tasks_of_the_control_machine_run_as_its_user,
        {TASKS: task("ansible.builtin.debug:\n  delegate_to: localhost\n  become: false")},
        "'Do it' runs on localhost: give it vars {'ansible_become': False",
    ),
    (
        rules.tasks_of_the_control_machine_run_as_its_user,
        {
            TASKS: task(
                "ansible.builtin.include_tasks: {file: a.yml, apply: {delegate_to: localhost}}"
            )
        },
        "'Do it' runs on localhost",
    ),
    (rules.exceptions_carry_their_reason, {"src/a.py": "import os  # noqa\n"}, "silences every"),
    (rules.roles_stay_in_their_directories, {TASKS: task("x: ../../src")}, "leaves the role"),
    (rules.no_secret_has_a_default, {DEFAULTS: "minio_root_password: abc\n"}, "no default"),
    (
        rules.no_secret_has_a_default,
        {"inventory/local/group_vars/all/minio.yml": "minio_users: [{secret_key: abc}]\n"},
        "secret_key is 'abc'",
    ),
    (rules.no_secret_has_a_default, {"README.md": "log in as minioadmin\n"}, "everybody knows"),
    (
        rules.secrets_are_files_and_nothing_else,
        {
            TASKS: task(
                "x.y.z:\n  vars:\n    container_service_spec:\n      name: minio\n"
                '      environment: {KEY: "{{ minio_root_password }}"}'
            )
        },
        "environment of minio reads minio_root_password",
    ),
    (
        rules.secrets_are_files_and_nothing_else,
        {
            TASKS: task(
                "x.y.z:\n  vars:\n    container_service_spec:\n      name: minio\n"
                '      command: "{{ __minio_words }}"'
            ),
            "roles/minio/vars/main.yml": "__minio_words: ['{{ minio_secret_key }}']\n",
        },
        "command of minio reads minio_secret_key",
    ),
    (
        rules.secrets_are_files_and_nothing_else,
        {
            TASKS: task(
                "x.y.z:\n  vars:\n    container_service_spec:\n      name: minio\n"
                '      environment: {MINIO_ROOT_PASSWORD: "{{ minio_x }}"}'
            )
        },
        "sets MINIO_ROOT_PASSWORD",
    ),
    (
        rules.generated_secrets_are_kept_out_of_git,
        {"inventory/local/hosts.yml": "", ".gitignore": "/reports/\n"},
        "would be committed",
    ),
    (
        rules.no_file_knows_the_machine_it_was_written_on,
        {"src/a.py": "DATA = '/home/somebody/wine.csv'\n"},
        "knows /home/somebody",
    ),
    (
        rules.no_file_knows_the_machine_it_was_written_on,
        {"docs/a.md": "cd /work/main\n"},
        "knows /work",
    ),
    (rules.make_help_lists_every_verb, {"README.md": ""}, "Makefile: is missing"),
    (
        rules.make_help_lists_every_verb,
        {"Makefile": GIVEN_MAKEFILE + ".PHONY: up\nup: ## it\n\t@true\n"},
        "target up is not in",
    ),
    (
        rules.make_help_lists_every_verb,
        {"Makefile": GIVEN_MAKEFILE + ".PHONY: up\nup:\n\t@true\n"},
        "target up is not in",
    ),
    *(
        (rules.readme_lists_what_runs, {**declaring("toy", name), **what_runs(*containers)}, says)
        for name, containers, says in [
            ("toy", [], "lacks container mlops-toy of role toy"),
            ("toy-{{ toy_part }}", ["mlops-toy"], "of role toy"),
            ("toy", ["mlops-toy`, `mlops-gone"], "names mlops-gone, which no role declares"),
        ]
    ),
    (rules.readme_lists_what_runs, declaring("toy"), "of role toy"),
    *(
        (
            rules.systems_that_are_built_are_tested_on_a_host,
            {"README.md": f"# It\n\n## Systems\n\n| `{name}` | it | built; here |\n"},
            f"calls {name} built, which molecule/{scenario}",
        )
        for name, scenario in [("lab", "lab"), ("local", "default")]
    ),
    (rules.documents_name_only_what_exists, {"Makefile": ""}, "README.md: is missing"),
    *(
        (rules.documents_name_only_what_exists, {"README.md": readme, **given}, says)
        for given in [
            {
                "Makefile": GIVEN_MAKEFILE,
                "docs/a.md": "",
                "roles/minio/library/minio_x.py": "",
                SPECS: specs(minio_api_port={"default": "9000"}),
            }
        ]
        for readme, says in [
            ("`make fly`\n", "names `make fly`"),
            ("```\nmake help WINGS=2\n```\n", "names WINGS= of `make help`"),
            ("`docs/missing.md`\n", "names path docs/missing.md"),
            ("[this](docs/missing.md)\n", "names path docs/missing.md"),
            ("`missing.yml`\n", "names path missing.yml"),
            ("```\nrun docs/missing.yml\n```\n", "names path docs/missing.yml"),
            ("```\nrun --page=docs/missing.md\n```\n", "names path docs/missing.md"),
            ("`minio_missing`\n", "names variable minio_missing"),
            ("http://127.0.0.1:9009\n", "names port 9009"),
        ]
    ),
    (
        rules.tests_are_sentences_without_mocks,
        {"tests/test_a.py": "def test_it():\n    assert f()\n"},
        "test_it is no sentence",
    ),
    (
        rules.tests_are_sentences_without_mocks,
        {"tests/test_a.py": "from unittest.mock import patch\n"},
        "imports a mock",
    ),
    (
        rules.tests_are_sentences_without_mocks,
        {"tests/test_a.py": "def test_that_it_is_so():\n    assert True\n"},
        "asserts a constant",
    ),
    (
        rules.tests_are_sentences_without_mocks,
        {"tests/test_a.py": "def test_that_it_is_so():\n    x = 1\n"},
        "can not fail",
    ),
]
GOOD: Files = {
    DEFAULTS: "# renovate: datasource=docker\nminio_api_port: '9000'\n",
    SPECS: specs(minio_api_port={"default": "9000"}, minio_root_password={"required": True}),
    TASKS: task(
        "ansible.builtin.import_role: {name: container_service}\n  vars:\n"
        "    container_service_spec:\n      name: minio\n      ports: ['{{ minio_api_port }}']\n"
        "      environment: {MINIO_ROOT_PASSWORD_FILE: /run/secrets/p}\n"
        "      secrets: {p: '{{ minio_root_password }}'}"
    )
    + "# nothing else tells\n"
    + task("ansible.builtin.command: date\n  when: docker_host.uid == 0")
    + "- name: Call it\n  minio_x:\n  register: __minio_y\n",
    "roles/minio/library/minio_x.py": "",
    "roles/minio/filter_plugins/a.py": "def filters(self):\n    return {'minio_policy': 1}\n",
    "roles/minio/files/image/Dockerfile": (
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG V=v1.2.3\nRUN go install m.example/x@${V}\n"
        "RUN pip install --require-hashes \\\n  -r a.txt\n"
    ),
    "roles/container_service/meta/argument_specs.yml": specs(
        container_service_spec={"required": True, "options": {"name": {"description": "It."}}}
    ),
    "playbooks/a.yml": "- name: P\n  hosts: minio\n  roles: [minio]\n"
    "  environment: \"{{ lookup('clean_shell') }}\"\n",
    "inventory/local/hosts.yml": "all: {}\n",
    ".gitignore": ".secrets/\n/reports/\n",
    "a.in": "web>=1\n",
    "a.txt": f"web==1 \\\n    {HASH}\n",
    "requirements-dev.txt": f"web==1 \\\n    {HASH}\n",
    "Makefile": GIVEN_MAKEFILE,
    **what_runs("mlops-minio"),
    "roles/platform/defaults/main.yml": "platform_name: mlops\n",
    "docs/a.md": "`make help` writes `reports/a.json`; `minio_api_port` is http://127.0.0.1:9000.\n",
    "tests/test_a.py": "def test_that_it_is_so():\n    assert f()\n",
}


def plant(root: Path, files: Files) -> Path:
    """Write files of a project into a git repository."""
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    (root / "roles").mkdir()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("rule", "files", "says"), EXAMPLES, ids=[f"{each[0].__name__}-{each[2]}" for each in EXAMPLES]
)
def test_a_rule_refuses_its_example_and_names_it(
    rule: Callable[[Path], list[str]], files: Files, says: str, tmp_path: Path
) -> None:
    violations = rule(plant(tmp_path, files))
    assert [each for each in violations if says in each], violations


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_rule_lets_a_good_project_pass(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    plant(tmp_path, GOOD)
    pages.write(tmp_path)
    assert rule(tmp_path) == []


def test_every_rule_is_in_the_list_and_has_an_example() -> None:
    assert {example[0] for example in EXAMPLES} == set(rules.RULES)
    written = [
        each
        for name, each in vars(rules).items()
        if getattr(each, "__annotations__", {}) == {"root": "Path", "return": "list[str]"}
        and not name.startswith("_")
    ]
    assert set(written) == set(rules.RULES)


@pytest.mark.parametrize(
    ("node", "names"),
    [
        ("{{ a | combine(b) }} {% if c is changed %}{% endif %}", {"a", "b", "c"}),
        ({"when": "a and not b"}, {"a", "b"}),
        ({"ansible.builtin.assert": {"that": ["a", "b > 1"]}}, {"a", "b"}),
        ({"loop": "{{ a }}", "x": ["{{ b.c }}"]}, {"a", "b"}),
        ("no template", set()),
        ("{{ query('x', 'y') | x.y.z(a) }}", {"query", "a"}),
    ],
    ids=str,
)
def test_what_yaml_reads_is_found_in_templates_and_in_bare_expressions(
    node: object, names: set[str]
) -> None:
    assert tree.read(node) == names
