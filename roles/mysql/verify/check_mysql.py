"""Whose databases are whose, and who is let in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts

Verdict = Callable[[Iterable[str], str], None]

AGAIN = "`make up` puts owners, passwords and grants of mysql_databases back"


@pytest.fixture
def judged(platform: Platform, service: Callable[[str], Service]) -> dict[str, str]:
    """The databases that are declared, each with its owner; an image of MySQL is not judged."""
    service("mysql")
    if platform.promised.get("mysql_image"):
        pytest.skip("an image of MySQL has no Python to read it with")
    return dict(platform.promised.get("mysql", {}))


@pytest.mark.promise("A MySQL database is its owner's alone", hint=AGAIN)
def test_every_declared_database_is_there_and_reached_by_its_owner_alone(
    facts: Facts, judged: dict[str, str], verdict: Verdict
) -> None:
    there, grants = facts.of("mysql", "databases"), facts.of("mysql", "grants")
    wrong = []
    for name, owner in judged.items():
        if name not in there:
            wrong.append(f"there is no database {name}")
        if name not in grants.get(owner, ()):
            wrong.append(f"{owner} does not reach {name}")
    for user, reached in grants.items():
        allowed = {name for name, owner in judged.items() if owner == user}
        wrong += [
            f"{user} reaches {name}" for name in reached if name in judged and name not in allowed
        ]
    verdict(wrong, ", ".join(f"{name} of {owner}" for name, owner in judged.items()))


@pytest.mark.promise("MySQL lets in owners with their passwords only", hint=AGAIN)
def test_strangers_are_refused_and_nobody_administers_over_the_network(
    facts: Facts, judged: dict[str, str], verdict: Verdict
) -> None:
    wrong = [f"{who} is let in" for who in facts.of("mysql", "let_in")]
    wrong += [
        f"{name} may do something in every database, and from elsewhere"
        for name in facts.of("mysql", "powers")
        if not name.endswith("@localhost")
    ]
    owners = ", ".join(sorted(set(judged.values())))
    verdict(wrong, f"{owners}; a wrong and no password are refused")
