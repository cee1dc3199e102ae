"""Whose databases are whose, and who is let in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import Facts

Verdict = Callable[[Iterable[str], str], None]

AGAIN = "`make up` puts owners, passwords and grants of postgresql_databases back"
METHODS = {"local": {"peer", "scram-sha-256"}, "host": {"scram-sha-256", "reject"}}


@pytest.mark.promise("A PostgreSQL database is its owner's alone", hint=AGAIN)
def test_every_declared_database_is_its_owners_and_nobody_elses(
    platform: Platform, facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("postgresql")
    there = facts.of("postgresql", "databases")
    roles = facts.of("postgresql", "roles")
    wanted = platform.promised.get("postgresql", {})
    wrong = []
    for name, owner in wanted.items():
        seen = there.get(name)
        if not seen:
            wrong.append(f"there is no database {name}")
            continue
        if seen["owner"] != owner:
            wrong.append(f"{name} is {seen['owner']}'s, and {owner}'s by the inventory")
        wrong += [f"{other} reaches {name}" for other in seen["reached_by"] if other != owner]
    for owner in sorted(set(wanted.values())):
        if roles.get(owner, {}).get("superuser") or roles.get(owner, {}).get("powers"):
            wrong.append(f"{owner} may do more than an owner")
    verdict(wrong, ", ".join(f"{name} of {owner}" for name, owner in wanted.items()))


@pytest.mark.promise("PostgreSQL lets in owners with their scram passwords only", hint=AGAIN)
def test_strangers_are_refused_and_passwords_are_kept_as_scram(
    facts: Facts, service: Callable[[str], Service], verdict: Verdict
) -> None:
    service("postgresql")
    wrong = [f"{who} is let in" for who in facts.of("postgresql", "let_in")]
    for kind, method in facts.of("postgresql", "rules"):
        if method not in METHODS.get(kind, ()):
            wrong.append(f"a rule lets {kind} connections in by {method}")
    roles = facts.of("postgresql", "roles")
    for name, seen in roles.items():
        if seen["superuser"] and seen["kept"] != "none":
            wrong.append(f"{name} is a superuser with a password")
        if not seen["superuser"] and seen["kept"] != "scram":
            wrong.append(f"the password of {name} is kept as {seen['kept']}, and not as scram")
    verdict(wrong, f"{', '.join(sorted(roles))}; a wrong and no password are refused")
