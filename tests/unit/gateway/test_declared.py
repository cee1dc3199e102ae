"""What the role's variables make of the gateway's certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from tests.unit.conftest import ROLES, load

lookup = load("platform/lookup_plugins/platform_certificate.py")
VARIABLES = yaml.safe_load((ROLES / "gateway/vars/main.yml").read_text())


def test_what_clients_trust_is_declared_to_the_verdict_as_it_is_offered() -> None:
    declared = yaml.safe_load((ROLES / "gateway/verify/declared.yml").read_text())
    assert declared["gateway"]["authority"] == VARIABLES["__gateway_authority"]


def test_a_renewed_certificate_of_the_platform_is_no_rotation_and_another_authority_is(
    tmp_path: Path,
) -> None:
    def generation(tls: dict[str, str]) -> str:
        said = trust_as_template(VARIABLES["__gateway_acme_settings"]["generation"])
        return str(Templar(DataLoader(), {"gateway_tls": tls}).template(said))

    def made(term: str, directory: str) -> dict[str, str]:
        return dict(lookup.server(tmp_path / directory, term, ["lab.example"], "lab"))

    first, renewed, rotated = made("a", "own"), made("b", "own"), made("a", "other")
    assert first["certificate"] != renewed["certificate"]
    assert generation(renewed) == generation(first) != generation(rotated)


@pytest.mark.parametrize("without", [{}, {"authority": ""}])
def test_a_given_certificate_without_an_authority_is_taken_for_it(without: dict[str, str]) -> None:
    said = trust_as_template(VARIABLES["__gateway_acme_settings"]["generation"])
    one, other = (
        Templar(DataLoader(), {"gateway_tls": {"certificate": text, **without}}).template(said)
        for text in ("one", "other")
    )
    assert one != other
