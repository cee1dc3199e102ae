"""What checks ask for, and the report they end up in.

A plugin of pytest, started by playbooks/verify.yml, which writes the inventory of plain values to
be judged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from platform_verify import report
from platform_verify.declared import Platform, Service, declared
from platform_verify.evidence import CannotRunError
from platform_verify.facts import FactError, Facts


@dataclass
class Session:
    """What is known of the verdict so far."""

    began: float = field(default_factory=time.monotonic)
    checks: list[report.Check] = field(default_factory=list)
    error: str = ""
    platform: str = ""
    facts: Facts | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    several: bool = False


SESSION = pytest.StashKey[Session]()
# sentences that need no name of their type before them
SENTENCES = (FactError, pytest.fail.Exception, pytest.skip.Exception)


def read_platform(config: pytest.Config) -> Platform:
    """Read the platform as declared."""
    path = Path(config.getoption("verify_inventory"))
    return declared(json.loads(path.read_text(encoding="utf-8"))["all"]["hosts"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask a check that takes `each` of every service that its module's role says to be judged.

    The module's EACH is what declared.yml calls these services, by the name a person knows.
    """
    if "each" in metafunc.fixturenames:
        found = read_platform(metafunc.config).promised.get(metafunc.module.EACH)
        names = {"": metafunc.module.EACH} if found is None else found
        metafunc.config.stash[SESSION].several = len(names) > 1
        metafunc.parametrize("each", list(names.values()), ids=list(names))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the checks of services that a role promises, and of which there is none here."""
    found = read_platform(config).promised
    rooms = [getattr(getattr(item, "module", None), "EACH", "") for item in items]
    items[:] = [item for item, room in zip(items, rooms, strict=True) if found.get(room) != {}]


@pytest.fixture(scope="session")
def platform(pytestconfig: pytest.Config) -> Platform:
    """The platform as declared."""
    found = read_platform(pytestconfig)
    if not found.services:
        cannot_run(
            pytestconfig,
            "no host of the inventory runs any service: name another inventory with -i",
        )
    pytestconfig.stash[SESSION].platform = found.name
    return found


@pytest.fixture(scope="session")
def facts(pytestconfig: pytest.Config, platform: Platform) -> Iterator[Facts]:
    """The platform as it runs."""
    try:
        found = Facts(platform, pytestconfig.getoption("verify_inventory"))
    except CannotRunError as error:
        cannot_run(pytestconfig, str(error))
    pytestconfig.stash[SESSION].facts = found
    yield found
    found.close()


@pytest.fixture
def service(platform: Platform) -> Callable[[str], Service]:
    """A declared service by name; a check of one that this platform has not is left out."""

    def find(name: str) -> Service:
        if name not in platform.services:
            pytest.skip(f"{name} is no part of this platform")
        return platform.services[name]

    return find


@pytest.fixture
def verdict(record_property: Callable[[str, object], None]) -> Callable[[Iterable[str], str], None]:
    """Fail with what is wrong, or say what was seen."""

    def judge(wrong: Iterable[str], seen: str) -> None:
        if found := "; ".join(wrong):
            pytest.fail(found, pytrace=False)
        record_property("detail", seen)

    return judge


@pytest.fixture(scope="session")
def tell_metrics(pytestconfig: pytest.Config) -> Callable[[Mapping[str, Any]], None]:
    """Put metrics of what runs on the platform at the end of the verdict."""

    def tell(metrics: Mapping[str, Any]) -> None:
        pytestconfig.stash[SESSION].metrics = metrics

    return tell


def cannot_run(config: pytest.Config, reason: str) -> NoReturn:
    """End the session without a verdict."""
    config.stash[SESSION].error = reason
    pytest.exit(reason, returncode=2)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take what is to be judged, and where the report goes."""
    parser.addoption(
        "--verify-inventory", help="JSON inventory: hosts and what is declared for them"
    )
    parser.addoption("--verify-report", help="path of the JSON report")


def pytest_configure(config: pytest.Config) -> None:
    """Start an empty report."""
    config.addinivalue_line(
        "markers", "promise(name, hint): what a check promises, and the next step where it fails"
    )
    config.stash[SESSION] = Session()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what became of a check."""
    made = yield
    session, promise = item.config.stash[SESSION], item.get_closest_marker("promise")
    failure = call.excinfo.value if call.excinfo else None
    over = made.when == "call" or (made.when == "setup" and failure is not None)
    if promise is None or not over or isinstance(failure, pytest.exit.Exception):
        return made
    detail = str(dict(made.user_properties).get("detail", ""))
    if failure is not None:
        name = "" if isinstance(failure, SENTENCES) else f"{type(failure).__name__}: "
        detail = f"{name}{failure}"
    callspec = getattr(item, "callspec", None)
    of = f" ({callspec.id})" if callspec and session.several else ""
    session.checks.append(
        report.Check(
            name=f"{promise.args[0]}{of}",
            ok=None if made.skipped else made.passed,
            detail=detail,
            seconds=session.facts.spent() if session.facts else 0.0,
            hint=(getattr(failure, "hint", "") or promise.kwargs["hint"]) if made.failed else "",
        )
    )
    return made


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report; none where not one check could be read."""
    found = session.config.stash[SESSION]
    if not found.checks and not found.error:
        return
    metrics = found.metrics
    report.write(
        report.Report(
            ok=not found.error and all(check.ok is not False for check in found.checks),
            error=found.error,
            platform=found.platform,
            data_source=str(metrics.get("data_source", "")),
            data_name=str(metrics.get("data_name", "")),
            metrics={key: value for key, value in metrics.items() if isinstance(value, dict)},
            seconds=round(time.monotonic() - found.began, 1),
            checks=found.checks,
        ),
        Path(session.config.getoption("verify_report")),
    )
