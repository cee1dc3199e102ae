"""`make prune` shows what nothing uses, asks, and removes exactly that."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.conftest import Stack, stack
from tests.infra.faults_support import LABEL, docker

PREFIX = "localhost/mlops-prune"
STRANGER = "localhost/mlops-prune-stranger:1"
MIB = 2**20


def make(reference: str, place: Path, size: int, label: str = "mlops.image=true") -> None:
    """Make an image of one layer of `size` MiB."""
    archive = place / "image.tar"
    with tarfile.open(archive, "w") as output:
        entry = tarfile.TarInfo(reference)
        entry.size = size * MIB
        output.addfile(entry, io.BytesIO(bytes(size * MIB)))
    docker("import", "--change", f"LABEL {label}", str(archive), reference)


def there() -> set[str]:
    """Every image of this test's that the engine has."""
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    return {name.removeprefix(f"{PREFIX}/") for name in names if name.startswith(PREFIX)}


def volumes() -> set[str]:
    """Every volume of this test's that the engine has."""
    ours = f"label={LABEL}=mlops-prune"
    return set(docker("volume", "ls", "--filter", ours, "--format", "{{.Name}}").splitlines())


@pytest.fixture
def unused(tmp_path: Path) -> Iterator[Stack]:
    """A host with superseded images of 3, 2 and 1 MiB, two in use, a stranger's, two volumes."""
    # what builds left on this machine saves other tests their time: named, it is no leftover
    label = ["--filter", "label=mlops.stage"]
    left = docker("images", "--quiet", "--filter", "dangling=true", *label).splitlines()
    for number, image in enumerate(left):
        docker("tag", image, f"localhost/mlops-test-left:{number}")
    make(f"{PREFIX}/base:old", tmp_path, 3)
    make(f"{PREFIX}/used:1", tmp_path, 2)
    make(STRANGER, tmp_path, 1)
    for size, name in ((2, "web:old"), (1, "web:older")):
        (tmp_path / "part").write_bytes(bytes([size]) * size * MIB)
        (tmp_path / "Dockerfile").write_text(f"FROM {PREFIX}/base:old\nCOPY part /\n")
        docker("build", "--quiet", "--tag", f"{PREFIX}/{name}", str(tmp_path))
    for name in ("minio", "dvc-runner-gone"):
        docker("volume", "create", "--label", f"{LABEL}=mlops-prune", f"mlops-prune_{name}")
    docker("create", "--name", "mlops-prune-user", f"{PREFIX}/used:1", "none")
    try:
        yield stack("mlops-prune", 9220, tmp_path)
    finally:
        docker("rm", "mlops-prune-user")
        docker("volume", "rm", *volumes())
        for name in there():
            docker("rmi", STRANGER if name == STRANGER else f"{PREFIX}/{name}", check=False)
        for number in range(len(left)):
            docker("rmi", f"localhost/mlops-test-left:{number}", check=False)


def prune(unused: Stack, *words: str, **variables: object) -> str:
    """Prune the images of this test alone."""
    own = {"base_image_prefix": PREFIX, **variables}
    return " ".join(unused.play("playbooks/prune.yml", *words, **own).split())


def test_prune_shows_what_nothing_uses_and_removes_exactly_that_once_it_may(unused: Stack) -> None:
    everything = there()
    for words in (["--check"], []):  # shown only; asked with nobody there to answer
        said = prune(unused, *words)
        # more only where a build on this machine has left something meanwhile
        assert "to remove them frees 6 MiB" in said or "sha256:" in said, said
        shown = re.findall(rf"{PREFIX}/(\w+:\w+)", said)
        assert shown in (["web:older", "web:old", "base:old"], ["web:old", "web:older", "base:old"])
        assert "to remove them loses the data in them:" in said
        assert "- volume mlops-prune_dvc-runner-gone" in said
        assert "- volume mlops-prune_minio" not in said
        assert there() == everything
        assert volumes() == {"mlops-prune_minio", "mlops-prune_dvc-runner-gone"}
    said = prune(unused, platform_prune_confirmed=True)
    assert "changed=2" in said
    assert volumes() == {"mlops-prune_minio"}
    assert there() == {"used:1", STRANGER}
    assert "Nothing is unused." in prune(unused, platform_prune_confirmed=True)
