"""What config/config.yaml may say, and that nothing is said twice."""

import re
from pathlib import Path

import pytest
import yaml

from iris.files import run
from iris.settings import SettingsError, load

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "config/config.yaml"


def changed(at: Path, key: str, value: object) -> Path:
    """Write the shipped settings with one key changed, dots between its parts."""
    content = yaml.safe_load(SHIPPED.read_text())
    *above, last = key.split(".")
    here = content
    for part in above:
        here = here[part]
    here[last] = value
    path = at / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.C", "1.0"),
        ("model.C", 0),
        ("model.C", float("nan")),
        ("model.max_iter", 10.5),
        ("model.max_iter", True),
        ("model.solver", "sgd"),
        ("split.test_size", 0.9),
        ("split.seed", None),
        ("paths.raw", 5),
        ("paths.raw", "/tmp/raw.csv"),  # noqa: S108 - what is refused
        ("paths.raw", "../raw.csv"),
        ("paths", ["data"]),
        ("mlflow.experiment", ""),
        ("remote.url", "dvc-storage/iris"),
        ("remote.url", "s3://dvc-storage/"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_was_seen(
    tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(changed(tmp_path, key, value))
    sentence = str(refused.value)
    assert f"{key} is {value!r}: " in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("key", ["model.c", "learning_rate", "paths.modle"])
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"unknown key {key} \(value 7\)"):
        load(changed(tmp_path, key, 7))


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [", "paths: {}\n"])
def test_a_file_that_is_not_the_settings_is_refused_in_one_sentence(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"config\.yaml: ") as refused:
        load(tmp_path / "config.yaml")
    assert "\n" not in str(refused.value)


def test_a_stage_where_there_are_no_settings_says_so_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(lambda _: "never") == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "run from the project's directory" in said.err
    assert "never" not in said.out


def test_no_path_or_name_of_the_settings_is_written_anywhere_else() -> None:
    settings = load(SHIPPED)
    values = [*settings.paths.model_dump().values(), settings.remote.bucket]
    files = [ROOT / "dvc.yaml", ROOT / "set_up.py", *(ROOT / "iris").glob("*.py")]
    again = [
        f"{path.name}: {value}" for path in files for value in values if value in path.read_text()
    ]
    assert again == []


def test_every_setting_of_the_stages_is_a_parameter_or_a_path_of_the_pipeline() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    params = {
        key
        for stage in stages.values()
        for each in stage.get("params", [])
        for key in each["config/config.yaml"]
    }
    named = set(re.findall(r"\$\{paths\.(\w+)\}", (ROOT / "dvc.yaml").read_text()))
    settings = load(SHIPPED)
    assert params == set(settings.model_dump()) - {"paths", "remote"}
    assert named == set(settings.paths.model_dump())
