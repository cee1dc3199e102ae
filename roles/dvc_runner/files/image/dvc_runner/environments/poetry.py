"""Poetry's files, read without poetry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from dvc_runner.environments.requirement_files import Requirements, name_of
from dvc_runner.environments.target import Target
from dvc_runner.git import RunnerError

STALE = "poetry.lock does not fit pyproject.toml"


@dataclass(frozen=True)
class Wish:
    """A package that somebody depends on."""

    name: str
    version: str = "*"
    markers: str = ""
    python: str = "*"
    platform: str = ""
    extras: frozenset[str] = frozenset()
    optional: bool = False
    path: str = ""
    git: str = ""
    url: str = ""


def wishes(name: str, said: Any) -> Iterator[Wish]:  # noqa: ANN401 - as written
    """Read a dependency as poetry writes it: a version, a table, or a list of tables."""
    for each in said if isinstance(said, list) else [said]:
        table = {"version": each} if isinstance(each, str) else each
        address = ""
        if "git" in table:
            revision = next((table[key] for key in ("rev", "tag", "branch") if key in table), "")
            address = f"git+{table['git']}{f'@{revision}' if revision else ''}"
            if "subdirectory" in table:
                address += f"#subdirectory={table['subdirectory']}"
        yield Wish(
            name=name_of(name),
            version=str(table.get("version", "*")),
            markers=table.get("markers", ""),
            python=table.get("python", "*"),
            platform=table.get("platform", ""),
            extras=frozenset(table.get("extras", ())),
            optional=bool(table.get("optional")),
            path=table.get("path", "") or table.get("file", ""),
            git=address,
            url=table.get("url", ""),
        )


def wish_of(requirement: str) -> Wish:
    """Read a dependency as the standard writes it, with the parentheses that poetry adds."""
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement as error:
        raise RunnerError(f"pyproject.toml asks for {requirement!r}: {error}.") from error
    address = parsed.url or ""
    return Wish(
        name=name_of(parsed.name),
        version=str(parsed.specifier) or "*",
        markers=str(parsed.marker or ""),
        extras=frozenset(parsed.extras),
        git=address if address.startswith("git+") else "",
        url="" if address.startswith("git+") else address,
    )


def asked_for(pyproject: Mapping[str, Any]) -> list[Wish]:
    """List what `poetry install` starts from: the project's dependencies and its groups."""
    project, poetry = pyproject.get("project", {}), pyproject.get("tool", {}).get("poetry", {})
    found = [wish_of(line) for line in project.get("dependencies", ())]
    groups = poetry.get("group", {})
    tables = [poetry.get("dependencies", {}), poetry.get("dev-dependencies", {})]
    tables += [
        group.get("dependencies", {}) for group in groups.values() if not group.get("optional")
    ]
    known = {wish.name for wish in found}
    for at, table in enumerate(tables):
        for name, said in table.items():
            # what [project] names, this table says more about: where it comes from
            if name_of(name) != "python" and not (at == 0 and name_of(name) in known):
                found += wishes(name, said)
    for name, lines in pyproject.get("dependency-groups", {}).items():
        if not groups.get(name, {}).get("optional"):
            found += [wish_of(line) for line in lines if isinstance(line, str)]
    return [wish for wish in found if not wish.optional]


def python_of(pyproject: Mapping[str, Any]) -> str:
    """Return which Python the project asks for, as the standard writes it; empty for any."""
    said = pyproject.get("project", {}).get("requires-python", "")
    table = pyproject.get("tool", {}).get("poetry", {}).get("dependencies", {})
    wanted = table.get("python", "") if isinstance(table, dict) else ""
    if said or not wanted or wanted == "*":
        return str(said)
    return "" if "|" in wanted else ",".join(standard(str(wanted)))


def standard(constraint: str) -> list[str]:
    """Write one of poetry's constraints as specifiers of the standard."""
    close = re.sub(r"([<>=!~^]+)\s+", r"\1", constraint)
    return [each for part in re.split(r"[,\s]+", close.strip()) for each in specifiers(part)]


def specifiers(part: str) -> list[str]:
    """Write a part of a constraint, such as ^1.2, as specifiers of the standard."""
    if part in ("", "*"):
        return []
    if part[0] == "^" or (part[0] == "~" and part[1:2] != "="):
        low = part[1:]
        numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[a-z+-]", low)[0])]
        if part[0] == "~":
            place = min(1, len(numbers) - 1)
        else:
            place = next((at for at, number in enumerate(numbers) if number), len(numbers) - 1)
        high = [*numbers[:place], numbers[place] + 1]
        return [f">={low}", f"<{'.'.join(map(str, high))}"]
    if part[0] in "<>!~":
        return [part]
    version = part.lstrip("=")
    return [f"==={version}" if part.startswith("===") else f"=={version}"]


def allows(constraint: str, version: str) -> bool:
    """Tell whether one of poetry's constraints takes a version."""
    try:
        return any(
            SpecifierSet(",".join(standard(part))).contains(version, prereleases=True)
            for part in re.split(r"\|\|?", constraint)
        )
    except (InvalidSpecifier, InvalidVersion):
        return False


def requirement_of(wish: Wish) -> str:
    """Write a wish as the standard does, for uv to lock."""
    extras = f"[{','.join(sorted(wish.extras))}]" if wish.extras else ""
    if address := wish.git or wish.url:
        return f"{wish.name}{extras} @ {address}"
    newest = re.split(r"\|\|?", wish.version)[-1]
    marker = f" ; {wish.markers}" if wish.markers else ""
    return f"{wish.name}{extras}{','.join(standard(newest))}{marker}"


def applies(wish: Wish, target: Target, extras: frozenset[str] = frozenset()) -> bool:
    """Tell whether a dependency is one on the target."""
    return (
        allows(wish.python, target.full)
        and wish.platform in ("", "linux")
        and target.takes(wish.markers, extras)
    )


def locked(lock: Mapping[str, Any], pyproject: Mapping[str, Any], target: Target) -> Requirements:
    """Return what poetry would install, as requirements with hashes.

    Raises:
        RunnerError: the lock is of another format, or lacks something.
    """
    there: dict[str, list[Mapping[str, Any]]] = {}
    for entry in lock.get("package", ()):
        there.setdefault(name_of(entry["name"]), []).append(entry)
    chosen: dict[str, Mapping[str, Any]] = {}
    asked: dict[str, list[Wish]] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    queue = [wish for wish in asked_for(pyproject) if applies(wish, target)]
    while queue:
        wish = queue.pop()
        asked.setdefault(wish.name, []).append(wish)
        entry = choose(there.get(wish.name, ()), asked[wish.name], target)
        known = (wish.name, wish.extras)
        if known in done and chosen[wish.name] is entry:
            continue
        done.add(known)
        chosen[wish.name] = entry
        queue += dependencies(entry, wish.extras, target)
    return requirements(chosen, lock.get("metadata", {}).get("files", {}))


def fits(wish: Wish, version: str) -> bool:
    """Tell whether a version is one that is wished; what is not of an index has none to choose."""
    return bool(wish.path or wish.git or wish.url) or allows(wish.version, version)


def markers_of(entry: Mapping[str, Any]) -> list[str]:
    """Return for whom a package is in the lock: one marker, or that of each group."""
    said = entry.get("markers", "")
    if isinstance(said, str):
        return [said]
    return [said.get(group, "") for group in entry.get("groups", said)]


def choose(
    entries: Iterable[Mapping[str, Any]], wished: Sequence[Wish], target: Target
) -> Mapping[str, Any]:
    """Return the newest entry of a package that is for the target and fits all that is wished."""
    able = [
        entry
        for entry in entries
        if all(fits(wish, str(entry["version"])) for wish in wished)
        and allows(entry.get("python-versions", "*"), target.full)
        and any(target.takes(marker) for marker in markers_of(entry))
    ]
    if able:
        return max(able, key=lambda entry: Version(str(entry["version"])))
    wish = wished[-1]
    there = ", ".join(str(entry["version"]) for entry in entries)
    raise RunnerError(
        f"{STALE}: {wish.name} {wish.version} is wanted for Python {target.python}, and the lock "
        f"has {there or 'none'}: run `poetry lock`."
    )


def dependencies(
    entry: Mapping[str, Any], extras: frozenset[str], target: Target
) -> Iterator[Wish]:
    """Yield what an entry of the lock depends on, on the target and with these extras."""
    table = entry.get("extras", {})
    by_extra = {
        name_of(line) for extra in extras for line in table.get(extra, table.get(extra.lower(), ()))
    }
    for name, said in entry.get("dependencies", {}).items():
        for wish in wishes(name, said):
            if wish.optional and wish.name not in by_extra:
                continue
            if applies(wish, target, extras):
                yield wish


def requirements(chosen: Mapping[str, Mapping[str, Any]], files: Mapping[str, Any]) -> Requirements:
    """Write the chosen entries of a lock as requirements."""
    found = Requirements()
    for name, entry in sorted(chosen.items()):
        source = entry.get("source", {})
        kind, url = source.get("type", ""), source.get("url", "")
        if kind == "git":
            below = f"#subdirectory={source['subdirectory']}" if "subdirectory" in source else ""
            found.git.append(f"{name} @ git+{url}@{source['resolved_reference']}{below}")
            continue
        if kind in ("directory", "file"):
            found.local.append(url)
            continue
        listed = entry.get("files") or files.get(entry["name"]) or files.get(name) or ()
        hashes = sorted({each["hash"] for each in listed if each["hash"].startswith("sha256:")})
        if not hashes:
            raise RunnerError(
                f"poetry.lock has no sha256 of {name} {entry['version']}: run `poetry lock` with "
                "poetry 1.3 or newer."
            )
        if kind == "legacy" and f"--extra-index-url {url}" not in found.options:
            found.options.append(f"--extra-index-url {url}")
        what = f"{name} @ {url}" if kind == "url" else f"{name}=={entry['version']}"
        found.packages.append(" ".join([what, *(f"--hash={each}" for each in hashes)]))
    return found


def is_package(project: Path, pyproject: Mapping[str, Any]) -> bool:
    """Tell whether poetry would install the project itself: its code is where it says."""
    poetry = pyproject.get("tool", {}).get("poetry", {})
    name = pyproject.get("project", {}).get("name") or poetry.get("name", "")
    if poetry.get("package-mode") is False or not name or "build-system" not in pyproject:
        return False
    if poetry.get("packages"):
        return True
    module = re.sub(r"[-.]+", "_", name)
    places = (project / module, project / "src" / module, project / f"{module}.py")
    return any(place.exists() for place in places)
