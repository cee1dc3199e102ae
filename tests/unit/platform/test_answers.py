"""What a shell says for its user, who said nothing after -e."""

from __future__ import annotations

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig
from tests.unit.conftest import ROLES

FILES = [ROLES / role / "defaults/main.yml" for role in ("platform", "dvc_runner")]
DEFAULTS = {name: said for file in FILES for name, said in yaml.safe_load(file.read_text()).items()}
ANSWERS = {
    "platform_destroy_confirmed": "CONFIRM",
    "platform_prune_confirmed": "CONFIRM",
    "dvc_runner_prune_confirmed": "CONFIRM",
    "platform_keep_data": "KEEP_DATA",
    "platform_destroy_images": "IMAGES",
}


@pytest.mark.parametrize(("variable", "name"), ANSWERS.items())
@pytest.mark.parametrize(
    ("said", "answer"),
    [("yes", True), ("True", True), ("no", False), ("web db", False), ("", False)],
)
def test_yes_is_a_yes_and_another_programs_word_of_that_name_is_none(
    variable: str, name: str, said: str, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, said)
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()
    default = trust_as_template(DEFAULTS[variable])
    assert Templar(DataLoader()).template(default) is answer
