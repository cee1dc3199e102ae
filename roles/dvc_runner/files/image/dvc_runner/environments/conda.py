"""Conda's environment files: what pip can install of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dvc_runner.environments.requirement_files import name_of, text_of
from dvc_runner.git import RunnerError

NAMES = ("environment.yml", "environment.yaml", "conda.yaml", "conda.yml")
# what every environment here has, or needs none of
HAS = {"pip", "setuptools", "wheel", "ca-certificates", "certifi", "openssl", "conda"}
# packages of Python that conda and PyPI have under one name
SAME = {name_of(name) for name in (Path(__file__).parent / "conda_names.txt").read_text().split()}
OTHERWISE = {
    "matplotlib-base": "matplotlib",
    "opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "seaborn-base": "seaborn",
    "msgpack-python": "msgpack",
    "dask-core": "dask",
}
NUMBER = re.compile(r"[0-9][0-9A-Za-z.*!+]*")


def read(path: Path) -> tuple[list[str], str]:
    """Return the requirements of a conda environment as pip's, and its Python, empty for any.

    Raises:
        RunnerError: it is no such file, or asks for what conda alone has.
    """
    try:
        content: Any = yaml.safe_load(text_of(path))
    except yaml.YAMLError as error:
        raise RunnerError(
            f"{path.name} is not readable: {' '.join(str(error).split())}."
        ) from error
    listed = content.get("dependencies") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise RunnerError(f"{path.name} has no list of dependencies: correct it.")
    lines: list[str] = []
    python, refused = "", []
    for entry in listed:
        if isinstance(entry, dict):
            lines += [str(line) for line in entry.get("pip") or ()]
            continue
        name, version = parts(str(entry))
        if name == "python":
            python = version
        elif name in OTHERWISE or name_of(name) in SAME:
            lines.append(f"{OTHERWISE.get(name, name)}{version}")
        elif name not in HAS:
            refused.append(name)
    if refused:
        raise RunnerError(
            f"{path.name} asks conda for {', '.join(refused)}, which are not installed here: move "
            "what PyPI has to its pip part, and name what Debian has in the project's "
            "system_packages."
        )
    return lines, python


def parts(entry: str) -> tuple[str, str]:
    """Split conda's `channel::name=1.2=build` into a name and a specifier of the standard."""
    plain = entry.rpartition("::")[2].strip()
    name = re.split(r"[\s<>=!~]", plain, maxsplit=1)[0]
    rest = plain[len(name) :].strip().replace(" ", "")
    if not rest or rest == "*":
        return name.lower(), ""
    if rest.startswith("=") and not rest.startswith("=="):
        version = rest[1:].partition("=")[0]
        return name.lower(), f"=={version}" if version.endswith("*") else f"=={version}.*"
    if NUMBER.match(rest):
        version = rest.partition("=")[0]
        return name.lower(), f"=={version}"
    return name.lower(), rest
