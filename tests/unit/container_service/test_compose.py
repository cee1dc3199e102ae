"""What a declaration becomes: a Compose service with the house rules, or a refusal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from tests.unit.conftest import load

compose = load("container_service/filter_plugins/compose.py")
engine = load("docker/library/docker_engine.py")

Spec = dict[str, Any]
MINIMAL: Spec = {
    "name": "web",
    "image": "example/web:1.2",
    "user": "10001:10001",
    "healthcheck": ["true"],
    "memory": "512m",
}


def project(*specs: Spec, images: dict[str, str] | None = None, api: str = "1.41") -> Spec:
    """The project of declarations, on a platform called `plat`."""
    declared = {spec["name"]: spec for spec in specs}
    made: Spec = compose.compose_project(declared, images or {}, "plat", "127.0.0.1", api)
    return made


def service(spec: Spec, images: dict[str, str] | None = None, api: str = "1.41") -> Spec:
    """The one service of a project."""
    made: Spec = project(spec, images=images, api=api)["services"][spec["name"]]
    return made


def digest(spec: Spec) -> str:
    """The label that tells whether a container is the declared one."""
    text: str = service(spec)["labels"][compose.DIGEST]
    return text


# --- the house rules


def test_a_container_runs_with_a_read_only_root_no_capabilities_and_no_new_privileges() -> None:
    made = service(MINIMAL)
    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert made["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in made
    assert "cap_add" not in made


def test_a_container_is_limited_in_memory_swap_processes_and_log() -> None:
    made = service(MINIMAL)
    assert made["mem_limit"] == made["memswap_limit"] == "512m"
    assert made["pids_limit"] > 0
    assert made["logging"]["options"].keys() == {"max-size", "max-file"}


def test_a_container_comes_back_after_a_reboot_but_not_after_a_stop() -> None:
    assert service(MINIMAL)["restart"] == "unless-stopped"


def test_a_container_carries_the_label_that_destroy_looks_for() -> None:
    made = project({**MINIMAL, "volumes": ["data:/data"]})
    assert made["services"]["web"]["labels"]["mlops.platform"] == "plat"
    assert made["networks"]["default"]["labels"] == {"mlops.platform": "plat"}
    assert made["volumes"]["data"]["labels"] == {"mlops.platform": "plat"}


def test_two_platforms_share_no_name() -> None:
    specs = {"web": {**MINIMAL, "volumes": ["data:/data"]}}
    one, other = (
        compose.compose_project(specs, {}, name, "127.0.0.1", "1.41") for name in ("one", "other")
    )
    for left, right in (
        (one["services"]["web"]["container_name"], other["services"]["web"]["container_name"]),
        (one["networks"]["default"]["name"], other["networks"]["default"]["name"]),
        (one["volumes"]["data"]["name"], other["volumes"]["data"]["name"]),
    ):
        assert left != right


@pytest.mark.parametrize(
    ("declared", "published"),
    [
        ("9000:80", "127.0.0.1:9000:80"),
        ("0.0.0.0:9000:80", "0.0.0.0:9000:80"),
        ("[::1]:9000:80", "[::1]:9000:80"),
    ],
)
def test_a_port_is_open_on_loopback_unless_the_inventory_names_an_address(
    declared: str, published: str
) -> None:
    assert service({**MINIMAL, "ports": [declared]})["ports"] == [published]


def test_what_can_be_judged_from_outside_is_told_of_each_service() -> None:
    spec = FULL | {"ports": ["8080:80", "10.0.0.2:81:82", "[::1]:83:84"]}
    assert compose.promises({"web": spec, "db": MINIMAL}, "127.0.0.1") == {
        "web": {
            "user": FULL["user"],
            "memory": FULL["memory"],
            "ports": [
                {"inside": 80, "address": "127.0.0.1", "port": 8080},
                {"inside": 82, "address": "10.0.0.2", "port": 81},
                {"inside": 84, "address": "::1", "port": 83},
            ],
        },
        "db": {"user": MINIMAL["user"], "memory": MINIMAL["memory"], "ports": []},
    }


def test_a_service_without_ports_publishes_none() -> None:
    assert "ports" not in service(MINIMAL)


def test_volumes_tmpfs_and_host_paths_are_told_apart() -> None:
    volumes = ["data:/data", "/srv/in:/in:ro", "tmpfs:/cache"]
    made = project({**MINIMAL, "volumes": volumes})
    assert list(made["volumes"]) == ["data"]
    assert made["services"]["web"]["volumes"] == ["data:/data", "/srv/in:/in:ro"]
    assert made["services"]["web"]["tmpfs"] == ["/tmp", "/cache"]  # noqa: S108


def test_files_are_mounted_read_only() -> None:
    made = service({**MINIMAL, "files": {"web.conf": "a = 1\n"}})
    assert made["volumes"] == ["./services/web/files:/config:ro"]


def test_a_secret_is_a_file_and_stands_nowhere_in_the_project() -> None:
    made = project({**MINIMAL, "secrets": {"key": "do-not-show"}})
    assert made["services"]["web"]["secrets"] == [{"source": "web_key", "target": "key"}]
    assert made["secrets"] == {"web_key": {"file": "./services/web/secrets/key"}}
    assert "do-not-show" not in str(made)


@pytest.mark.parametrize(("api", "fast"), [("1.41", False), ("1.44", True), ("1.51", True)])
def test_a_start_interval_is_asked_only_of_an_engine_that_has_it(api: str, fast: bool) -> None:
    assert ("start_interval" in service(MINIMAL, api=api)["healthcheck"]) is fast


def test_a_service_that_builds_its_image_gets_the_reference_of_what_was_built() -> None:
    spec = {**MINIMAL, "image": "", "build": {"context": "files/image"}}
    assert service(spec, images={"web": "local/web:abc"})["image"] == "local/web:abc"


def test_a_build_context_is_found_in_the_role_that_declares_it() -> None:
    spec = {**MINIMAL, "image": "", "build": {"context": "files/image", "files": {"a": "/b"}}}
    resolved = compose.resolve(spec, "/roles/web")
    assert resolved["build"] == {"context": "/roles/web/files/image", "files": {"a": "/b"}}
    assert compose.resolve(MINIMAL, "/roles/web") == MINIMAL


# --- refusals


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "Web_1"),
        ("name", "web\n"),
        ("name", "w" * 42),
        ("image", "example/web:latest"),
        ("image", "example/web"),
        ("image", "registry:5000/web"),
        ("memory", "512"),
        ("memory", "lots"),
        ("memory", "0m"),
        ("memory", None),
        ("user", "root"),
        ("user", "0:0"),
        ("user", "00"),
        ("user", "minio:minio"),
        ("user", None),
        ("healthcheck", []),
    ],
)
def test_a_bad_value_is_refused_with_its_service_its_key_and_itself(
    key: str, value: object
) -> None:
    spec = {**MINIMAL, key: value}
    with pytest.raises(AnsibleFilterError) as refusal:
        project(spec)
    said = str(refusal.value)
    assert f"container_service_spec.{key} of {spec['name']!r} is {value!r}: " in said
    assert said.endswith(".")


@pytest.mark.parametrize(
    "port",
    ["9000", "0:80", "65536:80", "9000:65536", "a:80", "9000:80/udp", "host:9000:80", "9000:80\n"],
)
def test_a_bad_port_is_refused_with_itself(port: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"container_service_spec\.ports") as refusal:
        project({**MINIMAL, "ports": ["8000:80", port]})
    assert repr(port) in str(refusal.value)


@pytest.mark.parametrize("image", ["example/web:1", "h:5000/web:1", "web@sha256:" + "0" * 64])
def test_an_image_with_a_version_or_a_digest_is_taken(image: str) -> None:
    assert service({**MINIMAL, "image": image})["image"] == image


@pytest.mark.parametrize("build", [{}, {"context": "files/image"}])
def test_neither_or_both_of_image_and_build_is_refused(build: Spec) -> None:
    spec = {**MINIMAL, "image": "example/web:1" if build else "", "build": build}
    with pytest.raises(AnsibleFilterError, match="either image"):
        project(spec)


@pytest.mark.parametrize("kind", ["files", "secrets"])
@pytest.mark.parametrize("name", ["../key", "a/b", ".hidden"])
def test_a_file_can_not_be_placed_outside_of_its_directory(kind: str, name: str) -> None:
    with pytest.raises(AnsibleFilterError, match="plain file name"):
        project({**MINIMAL, kind: {name: "x"}})


def test_an_empty_secret_is_refused_by_its_name() -> None:
    with pytest.raises(AnsibleFilterError, match=r"secrets\.key of 'web' is '': it is empty"):
        project({**MINIMAL, "secrets": {"key": ""}})


def test_a_refusal_never_shows_a_secret() -> None:
    spec = {**MINIMAL, "secrets": {"key": "do-not-show"}, "memory": "lots"}
    with pytest.raises(AnsibleFilterError) as refusal:
        project(spec)
    assert "do-not-show" not in str(refusal.value)


# --- a container is recreated when it must be, and only then

CHANGES: list[Spec] = [
    {"files": {"web.conf": "a = 2\n"}},
    {"files": {"other.conf": "a = 1\n"}},
    {"secrets": {"key": "two"}},
    {"secrets": {"other": "one"}},
    {"image": "example/web:1.3"},
    {"command": ["serve"]},
    {"environment": {"A": "2"}},
    {"memory": "1g"},
    {"user": "10002:10002"},
    {"ports": ["9001:80"]},
    {"healthcheck": ["false"]},
    {"volumes": ["tmpfs:/cache"]},
]
FULL: Spec = {
    **MINIMAL,
    "files": {"web.conf": "a = 1\n"},
    "secrets": {"key": "one"},
    "environment": {"A": "1", "B": "2"},
    "ports": ["9000:80"],
}


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_declaration_has_another_digest(change: Spec) -> None:
    assert digest({**FULL, **change}) != digest(FULL)


def test_the_order_of_keys_does_not_change_the_digest() -> None:
    turned = dict(reversed(FULL.items())) | {"environment": {"B": "2", "A": "1"}}
    assert digest(turned) == digest(FULL)


def test_a_neighbour_does_not_change_the_digest() -> None:
    beside = project(FULL, {**MINIMAL, "name": "db"})["services"]["web"]
    assert beside["labels"][compose.DIGEST] == digest(FULL)


def test_the_digest_does_not_give_a_secret_away() -> None:
    assert "one" not in digest(FULL)
    assert len(digest(FULL)) == len(digest(MINIMAL))


# --- what runs already


def running(made: Spec, **changes: object) -> Spec:
    """A host on which every service of a project runs healthy, but for `changes`."""
    containers = [
        {
            "name": each["container_name"],
            "state": "running",
            "health": "healthy",
            "labels": dict(each["labels"]),
            "ports": [],
        }
        | changes
        for each in made["services"].values()
    ]
    return {"containers": containers, "listeners": [], "projects": {"/opt/plat": "tree"}}


def settled(made: Spec, host: Spec) -> bool:
    """Whether a host on which the project's files are as declared needs nothing."""
    return bool(compose.settled(made, host, "/opt/plat", "tree"))


def test_a_project_that_runs_as_declared_is_settled() -> None:
    made = project(FULL, {**MINIMAL, "name": "db"})
    assert settled(made, running(made))


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "exited"},
        {"health": "unhealthy"},
        {"health": "starting"},
        {"labels": {"mlops.platform": "plat", "mlops.digest": "of another time"}},
        {"labels": {"mlops.platform": "somebody's"}},
    ],
    ids=str,
)
def test_a_container_that_is_stopped_sick_or_outdated_is_not_settled(changes: Spec) -> None:
    made = project(FULL)
    assert not settled(made, running(made, **changes))


def test_a_missing_container_is_not_settled() -> None:
    assert not settled(project(FULL), {"containers": [], "projects": {"/opt/plat": "tree"}})


def test_a_container_that_is_no_longer_declared_is_not_settled() -> None:
    before = project(FULL, {**MINIMAL, "name": "db"})
    assert not settled(project(FULL), running(before))


def test_a_stopped_container_that_is_no_longer_declared_is_not_settled() -> None:
    host = running(project(FULL))
    left = {
        "name": "plat-db",
        "state": "exited",
        "health": "",
        "labels": {"mlops.platform": "plat"},
    }
    host["containers"].append(left)
    assert not settled(project(FULL), host)


def test_containers_of_other_platforms_do_not_matter() -> None:
    made = project(FULL)
    host = running(made)
    host["containers"].append(
        {"name": "x", "state": "exited", "health": "", "labels": {"mlops.platform": "other"}}
    )
    assert settled(made, host)


@pytest.mark.parametrize("projects", [{}, {"/opt/plat": ""}, {"/opt/plat": "another"}], ids=str)
def test_a_project_whose_files_are_not_those_declared_is_not_settled(projects: Spec) -> None:
    made = project(FULL)
    assert not settled(made, running(made) | {"projects": projects})


# --- ports that are taken


def conflicts(*specs: Spec, host: Spec) -> list[str]:
    """The sentences about taken ports."""
    declared = {spec["name"]: spec for spec in specs}
    found: list[str] = compose.port_conflicts(declared, host, "plat", "127.0.0.1")
    return found


def listening(address: str, port: int, process: str = "nginx (pid 7)") -> Spec:
    return {
        "containers": [],
        "listeners": [{"address": address, "port": port, "process": process}],
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])  # noqa: S104
def test_a_taken_port_names_the_service_the_address_and_the_holder(address: str) -> None:
    (said,) = conflicts(FULL, host=listening(address, 9000))
    assert said.startswith("web wants 127.0.0.1:9000, which nginx (pid 7) has: ")


def test_a_port_that_a_container_of_another_platform_holds_names_that_container() -> None:
    host = listening("127.0.0.1", 9000, "docker-proxy (pid 8)")
    host["containers"] = [
        {"name": "their-web", "state": "running", "labels": {}, "ports": [9000]},
    ]
    (said,) = conflicts(FULL, host=host)
    assert said.startswith("web wants 127.0.0.1:9000, which container their-web has: ")


def test_the_platforms_own_running_container_is_no_conflict() -> None:
    host = listening("127.0.0.1", 9000, "docker-proxy (pid 8)")
    host["containers"] = [
        {
            "name": "plat-web",
            "state": "running",
            "labels": {"mlops.platform": "plat"},
            "ports": [9000],
        }
    ]
    assert conflicts(FULL, host=host) == []


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 9001), ("192.0.2.1", 9000)])
def test_another_port_or_another_address_is_no_conflict(address: str, port: int) -> None:
    assert conflicts(FULL, host=listening(address, port)) == []


def test_publishing_everywhere_conflicts_with_a_listener_on_one_address() -> None:
    spec = {**FULL, "ports": ["0.0.0.0:9000:80"]}
    assert len(conflicts(spec, host=listening("192.0.2.1", 9000))) == 1


def test_two_services_that_want_one_port_are_both_named() -> None:
    rival = {**MINIMAL, "name": "db", "ports": ["0.0.0.0:9000:5432"]}
    nobody: Spec = {"containers": [], "listeners": []}
    (said,) = conflicts(FULL, rival, host=nobody)
    assert said.startswith("db wants 0.0.0.0:9000, which web wants too: ")
    apart = {**rival, "ports": ["192.0.2.1:9000:5432"]}
    assert conflicts(FULL, apart, host=nobody) == []


def test_every_fault_of_a_declaration_is_told_before_ports_are_compared() -> None:
    wrong = {**FULL, "ports": ["nine:80"], "memory": "lots"}
    said = conflicts(wrong, host=listening("127.0.0.1", 9000))
    assert len(said) == 2
    assert "'lots'" in said[0]
    assert "'nine:80'" in said[1]


# --- files on the host


def test_files_as_declared_have_the_digest_that_the_host_tells_of_them(tmp_path: Path) -> None:
    entries: list[Spec] = [
        {"path": "compose.yaml", "content": "name: \u00fc\n", "mode": "0644", "owner": os.getuid()},
        {"path": "bin/web", "content": "#!/bin/sh\n", "mode": "0755", "owner": os.getuid()},
        {"path": "s/key", "content": "", "mode": "0600", "owner": os.getuid()},
    ]
    for entry in entries:
        path = tmp_path / str(entry["path"])
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(entry["content"]))
        path.chmod(int(str(entry["mode"]), 8))
    seen = engine.tree_digest(tmp_path)
    assert compose.tree_digest(entries) == seen
    changes: list[Spec] = [{"content": "x"}, {"mode": "0700"}, {"owner": 7}, {"path": "s/k"}]
    for change in changes:
        assert compose.tree_digest([*entries[:2], entries[2] | change]) != seen, change
    assert compose.tree_digest(entries[:2]) != seen


def test_the_host_tells_the_projects_that_carry_the_label_of_ours() -> None:
    assert f"default: {compose.LABEL}\n" in engine.DOCUMENTATION


def test_secret_files_are_readable_by_the_containers_user_alone() -> None:
    (entry,) = compose.project_secrets({"web": FULL})
    assert (entry["path"], entry["content"]) == ("services/web/secrets/key", "one")
    assert (entry["mode"], entry["owner"]) == ("0600", 10001)


def test_no_secret_is_among_the_files_that_a_diff_may_show() -> None:
    files = compose.project_files({"web": FULL}, "name: plat\n", "plat")
    assert {entry["path"] for entry in files} == {
        "compose.yaml",
        "bin/web",
        "services/web/files/web.conf",
    }
    assert all(entry["owner"] == 0 for entry in files)
    assert not any(entry["content"] == "one" for entry in files)


def test_a_dollar_in_a_value_reaches_the_container_as_it_was_declared() -> None:
    files = compose.project_files({"web": FULL}, "command: [$HOME, a$$b]\n", "plat")
    text = next(entry["content"] for entry in files if entry["path"] == "compose.yaml")
    assert text == "command: [$$HOME, a$$$$b]\n"


def test_only_services_that_build_are_built() -> None:
    spec = {**MINIMAL, "name": "db", "image": "", "build": {"context": "/c"}}
    assert compose.builds({"web": MINIMAL, "db": spec}) == {"db": {"context": "/c"}}
