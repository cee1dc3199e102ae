"""What a declaration becomes: a Compose service with the house rules, or a refusal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from tests.unit.conftest import load

declaration = load("container_service/filter_plugins/declaration.py")
compose = load("container_service/filter_plugins/compose.py")
hosts = load("container_service/filter_plugins/host.py")
engine = load("docker/library/docker_engine.py")

Spec = dict[str, Any]
MINIMAL: Spec = {
    "name": "web",
    "image": "example/web:1.2",
    "user": "10001:10001",
    "healthcheck": {"test": ["CMD", "true"]},
    "mem_limit": "512m",
    "role": "web",
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


def test_a_volume_that_no_service_declares_is_forgotten_and_another_platforms_is_not_ours() -> None:
    def volume(name: str, platform: str) -> dict[str, Any]:
        return {"name": name, "labels": {compose.LABEL: platform} if platform else {}}

    there = [
        volume("plat_data", "plat"),
        volume("plat_gone", "plat"),
        volume("other_gone", "other"),
        volume("plat_by-hand", ""),
    ]
    declared = {"web": {**MINIMAL, "volumes": ["data:/data", "/srv/x:/x", "tmpfs:/run"]}}
    assert compose.forgotten_volumes(declared, "plat", there) == ["plat_gone"]


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
    usual: Spec = {"stage": "app", "replicas": 1, "exposed": [], "exceptions": {}}
    assert declaration.promises({"web": spec, "db": MINIMAL}, "127.0.0.1") == {
        "web": {
            "user": FULL["user"],
            "memory": FULL["mem_limit"],
            "ports": [
                {"inside": 80, "address": "127.0.0.1", "port": 8080, "protocol": "tcp"},
                {"inside": 82, "address": "10.0.0.2", "port": 81, "protocol": "tcp"},
                {"inside": 84, "address": "::1", "port": 83, "protocol": "tcp"},
            ],
            **usual,
        },
        "db": {"user": MINIMAL["user"], "memory": MINIMAL["mem_limit"], "ports": [], **usual},
    }


def test_a_service_without_ports_publishes_none() -> None:
    assert "ports" not in service(MINIMAL)


def test_volumes_tmpfs_and_host_paths_are_told_apart() -> None:
    volumes = ["data:/data", "/srv/in:/in:ro", "tmpfs:/cache"]
    made = project({**MINIMAL, "volumes": volumes})
    assert list(made["volumes"]) == ["data"]
    assert made["services"]["web"]["volumes"] == ["data:/data", "/srv/in:/in:ro"]
    assert made["services"]["web"]["tmpfs"] == ["/tmp", "/cache"]  # noqa: S108


def test_a_volume_at_tmp_stands_in_for_memory_there() -> None:
    spec = {**MINIMAL, "volumes": ["scratch:/tmp", "data:/tmp2", "tmpfs:/cache"]}
    made = project(spec)
    assert made["services"]["web"]["tmpfs"] == ["/cache"]
    assert "scratch:/tmp" in made["services"]["web"]["volumes"]


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
    resolved = declaration.declare({}, spec, "/roles/web")["web"]
    assert resolved["build"] == {"context": "/roles/web/files/image", "files": {"a": "/b"}}
    assert declaration.declare({}, MINIMAL, "/roles/web") == {"web": MINIMAL}


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
        ("mem_limit", "512"),
        ("mem_limit", "lots"),
        ("mem_limit", "0m"),
        ("mem_limit", None),
        ("user", "root"),
        ("user", "0:0"),
        ("user", "00"),
        ("user", "minio:minio"),
        ("user", None),
        ("healthcheck", {}),
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
    ["9000", "0:80", "65536:80", "9000:65536", "a:80", "9000:80/sctp", "host:9000:80", "9000:80\n"],
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


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("files", name) for name in ("../key", "a/../b", "/etc/key", ".hidden", "a/.hidden")),
        *(("secrets", name) for name in ("../key", "a/b", ".hidden")),
    ],
)
def test_a_file_can_not_be_placed_outside_of_its_directory(kind: str, name: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"give a (plain file name|name below)"):
        project({**MINIMAL, kind: {name: "x"}})


def test_an_empty_secret_is_refused_by_its_name() -> None:
    with pytest.raises(AnsibleFilterError, match=r"secrets\.key of 'web' is '': it is empty"):
        project({**MINIMAL, "secrets": {"key": ""}})


def test_a_refusal_never_shows_a_secret() -> None:
    spec = {**MINIMAL, "secrets": {"key": "do-not-show"}, "mem_limit": "lots"}
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
    {"mem_limit": "1g"},
    {"user": "10002:10002"},
    {"ports": ["9001:80"]},
    {"healthcheck": {"test": ["CMD", "false"]}},
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


JOB: Spec = {key: value for key, value in FULL.items() if key not in ("healthcheck", "ports")} | {
    "name": "migrate",
    "stage": "job",
}


def container(service: Spec, **changes: object) -> Spec:
    """A service's container as the host tells of it: healthy, but for `changes`."""
    return {
        "name": service.get("container_name", "plat-web-1"),
        "state": "running",
        "health": "healthy",
        "exit_code": None,
        "labels": dict(service["labels"]),
        "ports": [],
    } | changes


def running(made: list[Spec], **changes: object) -> Spec:
    """A host on which every service of a project runs healthy, but for `changes`."""
    containers = [container(each, **changes) for each in project(*made)["services"].values()]
    return {"containers": containers, "listeners": [], "projects": {"/opt/plat": "tree"}}


def settled(made: list[Spec], host: Spec) -> bool:
    """Whether a host on which the project's files are as declared needs nothing."""
    declared = {spec["name"]: spec for spec in made}
    return bool(hosts.settled(declared, project(*made), host, "/opt/plat", "tree"))


def unsettled(made: list[Spec], host: Spec, stage: str) -> list[str]:
    """The services of a stage that need something."""
    declared = {spec["name"]: spec for spec in made}
    found: list[str] = hosts.unsettled(declared, project(*made), host, stage)
    return found


def test_a_project_that_runs_as_declared_is_settled() -> None:
    made = [FULL, {**MINIMAL, "name": "db"}]
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
    made = [FULL]
    assert not settled(made, running(made, **changes))


def test_a_missing_container_is_not_settled() -> None:
    assert not settled([FULL], {"containers": [], "projects": {"/opt/plat": "tree"}})


def test_a_container_that_is_no_longer_declared_is_not_settled() -> None:
    before = [FULL, {**MINIMAL, "name": "db"}]
    assert not settled([FULL], running(before))


def test_a_stopped_container_that_is_no_longer_declared_is_not_settled() -> None:
    host = running([FULL])
    left = {
        "name": "plat-db",
        "state": "exited",
        "health": "",
        "labels": {"mlops.platform": "plat"},
    }
    host["containers"].append(left)
    assert not settled([FULL], host)


def test_containers_of_other_platforms_do_not_matter() -> None:
    made = [FULL]
    host = running(made)
    host["containers"].append(
        {"name": "x", "state": "exited", "health": "", "labels": {"mlops.platform": "other"}}
    )
    assert settled(made, host)


@pytest.mark.parametrize("projects", [{}, {"/opt/plat": ""}, {"/opt/plat": "another"}], ids=str)
def test_a_project_whose_files_are_not_those_declared_is_not_settled(projects: Spec) -> None:
    made = [FULL]
    assert not settled(made, running(made) | {"projects": projects})


def test_a_job_is_settled_when_it_ended_well_and_only_then() -> None:
    made = [FULL, JOB]
    web, job = project(*made)["services"].values()
    for changes, well in (
        ({"state": "exited", "exit_code": 0}, True),
        ({"state": "exited", "exit_code": 1}, False),
        ({"state": "running"}, False),
        (
            {"state": "exited", "exit_code": 0, "labels": {**job["labels"], "mlops.digest": "x"}},
            False,
        ),
    ):
        host = {
            "containers": [container(web), container(job, health="", **changes)],
            "projects": {"/opt/plat": "tree"},
        }
        assert settled(made, host) is well, changes
        assert unsettled(made, host, "job") == ([] if well else ["migrate"])
        assert unsettled(made, host, "app") == []


def test_replicas_are_settled_when_all_of_them_run_and_no_more() -> None:
    spec = {**MINIMAL, "deploy": {"replicas": 2}}
    web = project(spec)["services"]["web"]
    for count, well in ((1, False), (2, True), (3, False)):
        host = {"containers": [container(web)] * count, "projects": {"/opt/plat": "tree"}}
        assert settled([spec], host) is well, count


def test_what_holds_data_is_looked_at_apart_from_what_uses_it() -> None:
    database = {**MINIMAL, "name": "db", "stage": "data"}
    made = [FULL, database]
    host = running([FULL])
    assert unsettled(made, host, "data") == ["db"]
    assert unsettled(made, host, "app") == []


# --- what is not ours


def strangers(host: Spec) -> list[str]:
    """The sentences about what stands in the platform's way."""
    nothing: Spec = {"containers": [], "networks": [], "volumes": []}
    made = project({**MINIMAL, "volumes": ["data:/data"]})
    found: list[str] = hosts.strangers(made, nothing | host)
    return found


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        ("containers", "plat-web", {}),
        ("containers", "plat-other-1", {"com.docker.compose.project": "plat"}),
        ("networks", "plat", {"com.docker.compose.project": "plat"}),
        ("networks", "plat_backend", {"com.docker.compose.project": "plat"}),
        ("volumes", "plat_data", {}),
        ("volumes", "plat_data", {"mlops.platform": "other"}),
    ],
)
def test_what_has_the_platforms_name_and_not_its_label_is_refused_by_name(
    kind: str, name: str, labels: Spec
) -> None:
    (said,) = strangers({kind: [{"name": name, "labels": labels}]})
    assert f"There is a {kind[:-1]} {name} that is not of platform plat" in said
    own = {"mlops.platform": "plat"}
    assert strangers({kind: [{"name": name, "labels": labels | own}]}) == []


def test_what_has_another_name_is_nobodys_business() -> None:
    other = {"com.docker.compose.project": "theirs"}
    kinds = ("containers", "networks", "volumes")
    assert strangers({kind: [{"name": "theirs_data", "labels": other}] for kind in kinds}) == []


def test_containers_of_another_inventory_are_told_by_its_mark_and_keep_their_secrets() -> None:
    specs = {"web": MINIMAL, "migrate": JOB}
    made = compose.compose_project(specs, {}, "plat", "127.0.0.1", "1.41", 180, "abc")
    labels = [each["labels"] for each in made["services"].values()]
    assert [each["mlops.identity"] for each in labels] == ["abc", "abc"]
    host = {"containers": [{"name": "plat-web", "labels": each} for each in labels]}
    assert hosts.other_inventory(host, "plat", "abc") == []
    (said,) = hosts.other_inventory(host, "plat", "xyz")
    assert "platform plat were made from another inventory" in said
    assert "platform_identity: abc" in said
    assert hosts.other_inventory(host, "other", "xyz") == []


def test_containers_of_before_there_were_marks_are_nobody_elses() -> None:
    host = {"containers": [{"name": "plat-web", "labels": {"mlops.platform": "plat"}}]}
    assert hosts.other_inventory(host, "plat", "xyz") == []


def test_memory_limits_of_long_lived_services_are_added_up() -> None:
    declared = {
        "web": {**MINIMAL, "deploy": {"replicas": 2}},
        "db": {**MINIMAL, "mem_limit": "1g"},
        "migrate": JOB,
    }
    assert hosts.memory_limits(declared) == 2 * 512 + 1024


# --- ports that are taken


def conflicts(*specs: Spec, host: Spec) -> list[str]:
    """The sentences about taken ports."""
    declared = {spec["name"]: spec for spec in specs}
    found: list[str] = hosts.port_conflicts(declared, host, "plat", "127.0.0.1")
    return found


def listening(address: str, port: int, process: str = "nginx (pid 7)") -> Spec:
    row = {"address": address, "port": port, "protocol": "tcp", "process": process}
    return {"containers": [], "listeners": [row]}


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


def test_the_platforms_own_container_that_starts_again_and_again_is_no_conflict() -> None:
    host = listening("127.0.0.1", 9000, "docker-proxy (pid 8)")
    labels = {"mlops.platform": "plat", "mlops.service": "web"}
    one = {"name": "plat-web", "state": "restarting", "labels": labels, "ports": []}
    host["containers"] = [one]
    assert conflicts(FULL, host=host) == []
    one["labels"] = {**labels, "mlops.platform": "theirs"}
    assert len(conflicts(FULL, host=host)) == 1


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
    wrong = {**FULL, "ports": ["nine:80"], "mem_limit": "lots"}
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
    assert hosts.tree_digest(entries) == seen
    changes: list[Spec] = [{"content": "x"}, {"mode": "0700"}, {"owner": 7}, {"path": "s/k"}]
    for change in changes:
        assert hosts.tree_digest([*entries[:2], entries[2] | change]) != seen, change
    assert hosts.tree_digest(entries[:2]) != seen


def test_the_host_tells_the_projects_that_carry_the_label_of_ours() -> None:
    assert engine.LABEL == compose.LABEL


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


# --- the vocabulary


def test_a_sick_container_is_given_up_at_the_same_second_on_every_engine() -> None:
    def seconds(made: Spec) -> int:
        check = made["healthcheck"]
        start, interval = (int(check[key][:-1]) for key in ("start_period", "interval"))
        return start + interval * int(check["retries"])

    slow = {**MINIMAL, "healthcheck": {"test": ["CMD", "true"], "start_period": "400s"}}
    for spec, expected in ((MINIMAL, 210), (slow, 430)):
        for api in ("1.41", "1.44", "1.51"):
            assert seconds(service(spec, api=api)) == expected, api
            assert compose.start_timeout(project(spec, api=api)) > expected


def test_jobs_are_not_started_with_the_rest_nor_restarted() -> None:
    made = project(FULL, JOB)["services"]
    assert [made[name].get("profiles") for name in made] == [None, ["job"]]
    assert made["migrate"]["restart"] == "no"
    assert "healthcheck" not in made["migrate"]


def test_a_job_is_told_with_the_services_that_wait_for_its_end() -> None:
    web = {**FULL, "depends_on": ["db", "migrate"]}
    specs = {"db": {**MINIMAL, "name": "db", "stage": "data"}, "migrate": JOB, "web": web}
    made = project(*specs.values())
    assert made["services"]["web"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    (job,) = compose.project_jobs(["migrate"], specs, made)
    assert (job["service"], job["container"], job["waiting"]) == (
        "migrate",
        "plat-migrate",
        ["web"],
    )
    assert job["digest"] == made["services"]["migrate"]["labels"][compose.DIGEST]


def test_a_dependency_that_is_not_declared_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        AnsibleFilterError, match="depends_on of 'web' is 'dp': declared here are web"
    ):
        project({**MINIMAL, "depends_on": ["dp"]})


def test_replicas_have_no_name_of_their_own_and_publish_no_port() -> None:
    made = service({**MINIMAL, "deploy": {"replicas": 2}})
    assert not {"container_name", "hostname"} & set(made)
    with pytest.raises(AnsibleFilterError, match="several replicas cannot have one port"):
        project({**FULL, "deploy": {"replicas": 2}})


def test_services_with_one_build_share_one_image() -> None:
    build = {"context": "/roles/air/files/image"}
    specs = {
        name: {**MINIMAL, "name": name, "image": "", "build": build} for name in ("api", "worker")
    }
    assert compose.builds(specs) == {"api": build}
    made = compose.compose_project(specs, {"api": "l/air:1"}, "plat", "127.0.0.1", "1.41")
    assert {each["image"] for each in made["services"].values()} == {"l/air:1"}


def test_a_tree_of_files_is_mounted_as_a_tree() -> None:
    spec = {**MINIMAL, "files": {"dashboards/wine.json": "{}"}}
    paths = [row["path"] for row in compose.project_files({"web": spec}, "", "plat")]
    assert "services/web/files/dashboards/wine.json" in paths


def test_a_folder_that_is_to_be_made_belongs_to_the_containers_user() -> None:
    folder = {
        "type": "bind",
        "source": "/srv/dags",
        "target": "/dags",
        "bind": {"create_host_path": True},
    }
    spec = {**MINIMAL, "volumes": [folder, {**folder, "source": "/srv/in", "bind": {}}]}
    assert compose.project_folders({"web": spec}) == [{"path": "/srv/dags", "owner": 10001}]
    assert service(spec)["volumes"] == spec["volumes"]
    with pytest.raises(AnsibleFilterError, match="absolute source"):
        project({**MINIMAL, "volumes": [{**folder, "source": "dags"}]})


def test_keys_of_compose_reach_the_project_as_they_are_declared() -> None:
    keys: Spec = {
        "expose": ["5432"],
        "shm_size": "256m",
        "ulimits": {"nofile": {"soft": 1024, "hard": 2048}},
        "extra_hosts": ["mirror:192.0.2.1"],
        "stop_grace_period": "90s",
        "entrypoint": ["serve"],
        "group_add": ["44"],
        "working_dir": "/srv",
        "deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"]}]}}},
    }
    made = service({**MINIMAL, **keys})
    assert {key: made[key] for key in keys} == keys
    assert set(keys) == set(compose.AS_DECLARED)


def test_a_udp_port_conflicts_with_udp_only() -> None:
    spec = {**MINIMAL, "ports": ["514:514/udp"]}
    assert service(spec)["ports"] == ["127.0.0.1:514:514/udp"]
    host = listening("127.0.0.1", 514)
    assert conflicts(spec, host=host) == []
    host["listeners"][0]["protocol"] = "udp"
    assert len(conflicts(spec, host=host)) == 1


def test_an_exception_replaces_one_house_rule_and_tells_its_reason() -> None:
    excepted = {
        "read_only": {"value": False, "reason": "it unpacks itself"},
        "pid": {"value": "host", "reason": "it counts processes"},
    }
    spec = {**MINIMAL, "exceptions": excepted}
    made = service(spec)
    assert (made["read_only"], made["pid"], made["cap_drop"]) == (False, "host", ["ALL"])
    told = declaration.promises({"web": spec}, "127.0.0.1")["web"]["exceptions"]
    assert told == {"read_only": "it unpacks itself", "pid": "it counts processes"}


@pytest.mark.parametrize(
    ("exceptions", "said"),
    [
        ({"privileged": {"value": True, "reason": "x"}}, "the rules with exceptions are"),
        ({"pid": {"value": "host"}}, "give value and the reason"),
        ({"pid": {"value": "host", "reason": " "}}, "give value and the reason"),
    ],
)
def test_an_exception_without_a_reason_or_of_no_rule_is_refused(
    exceptions: Spec, said: str
) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        project({**MINIMAL, "exceptions": exceptions})


def test_root_is_an_exception_with_a_reason_and_owns_its_secrets() -> None:
    spec = {**FULL, "user": "", "exceptions": {"user": {"value": "0:0", "reason": "it binds"}}}
    assert service(spec)["user"] == "0:0"
    (entry,) = compose.project_secrets({"web": spec})
    assert entry["owner"] == 0


@pytest.mark.parametrize("role", ["/roles/web", "/roles/other"])
def test_a_name_is_declared_once(role: str) -> None:
    once = declaration.declare({}, MINIMAL, "/roles/web")
    with pytest.raises(AnsibleFilterError, match="'web' is declared twice, by role web and by"):
        declaration.declare(once, {**MINIMAL, "image": "example/web:2"}, role)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**MINIMAL, "stage": "data", "depends_on": ["migrate"]}, JOB),
        ({**JOB, "name": "early", "depends_on": ["migrate"]}, JOB),
    ],
    ids=["job", "later job"],
)
def test_a_dependency_that_starts_later_is_refused(first: Spec, second: Spec) -> None:
    with pytest.raises(AnsibleFilterError, match="it starts later, as a"):
        project(first, second)


def test_a_job_may_depend_on_one_before_it_and_is_stopped_for_none() -> None:
    second = {**JOB, "name": "seed", "depends_on": ["migrate"]}
    specs = {"migrate": JOB, "seed": second}
    first, _ = compose.project_jobs(["migrate", "seed"], specs, project(*specs.values()))
    assert first["waiting"] == []


def test_a_job_has_no_replicas_and_who_is_in_the_hosts_network_publishes_nothing() -> None:
    with pytest.raises(AnsibleFilterError, match="a job is one container"):
        project({**JOB, "deploy": {"replicas": 2}})
    excepted = {"network_mode": {"value": "host", "reason": "it counts packets"}}
    with pytest.raises(AnsibleFilterError, match="all its ports are the host's"):
        project({**FULL, "exceptions": excepted})


def test_what_the_digests_are_made_of_cannot_be_tried_by_who_may_not_read_secrets() -> None:
    files = compose.project_files({"web": FULL}, "name: plat\n", "plat")
    (project_file,) = (entry for entry in files if entry["path"] == "compose.yaml")
    assert project_file["mode"] == "0600"


def test_a_variable_of_no_value_is_not_in_the_container_and_an_empty_one_is() -> None:
    made = service({**MINIMAL, "environment": {"A": None, "B": ""}})
    assert made["environment"] == {"B": ""}
