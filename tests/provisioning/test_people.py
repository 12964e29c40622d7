"""What each role may do, and what an electronic signature covers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.events import SignatureMade
from edge.core.people import (
    PERMITS,
    SIGNATURE_DOMAIN,
    Permission,
    attestation_holds,
    attested_bytes,
    permitted,
    roles_with,
)
from edge.core.terms import Role
from edge.identity import DeviceKey

UTC = "2026-11-21T10:00:00.000000Z"


def test_every_role_is_in_the_table_and_nothing_else_grants_anything() -> None:
    assert set(PERMITS) == set(Role)
    assert not permitted([], Permission.READ)
    assert not permitted(["root", "Operator", ""], Permission.READ)


@pytest.mark.parametrize(
    ("permission", "roles"),
    [
        (Permission.START, {"operator", "supervisor"}),
        (Permission.ANSWER, {"operator", "supervisor"}),
        (Permission.CONTINUE, {"supervisor", "quality"}),
        (Permission.ABORT, {"operator", "supervisor"}),
        (Permission.HOLD, {"operator", "verifier", "supervisor", "quality", "engineer"}),
        (Permission.PEOPLE, {"administrator"}),
        (Permission.READ, set(Role)),
    ],
)
def test_the_table(permission: Permission, roles: set[str]) -> None:
    assert set(roles_with(permission)) == roles
    for role in Role:
        assert permitted([role], permission) == (role in roles)
    assert permitted(["auditor", *sorted(roles)], permission)


def made_by(key: DeviceKey) -> SignatureMade:
    made = SignatureMade(
        step="040", person="ana", role="operator", meaning="done", methods=["badge", "pin"], session="s1",
        subject_seq=37, subject_hash="ab" * 32, attestation="",
    )  # fmt: skip
    facts = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
    for other in ("step", "iteration", "attestation", "batch", "command_id"):
        del facts[other]
    return dataclasses.replace(made, attestation=key.sign(SIGNATURE_DOMAIN, attested_bytes(**facts, utc=UTC)).hex())


def test_a_signature_holds_for_exactly_what_was_signed(tmp_path: Path) -> None:
    key = DeviceKey.create(tmp_path / "a.key")
    made = made_by(key)
    assert attestation_holds(key.public, made, UTC)
    assert not attestation_holds(DeviceKey.create(tmp_path / "b.key").public, made, UTC)
    assert not attestation_holds(key.public, made, UTC.replace("10:", "11:"))
    changes: list[dict[str, object]] = [
        {"person": "ben"}, {"role": "verifier"}, {"meaning": "checked"}, {"methods": ["pin"]}, {"session": "s2"},
        {"subject_seq": 38}, {"subject_hash": "ac" * 32}, {"subject_hash": "ab"}, {"subject_hash": "no"},
        {"subject_seq": -1}, {"attestation": "zz"}, {"attestation": ""},
    ]  # fmt: skip
    for change in changes:
        assert not attestation_holds(key.public, dataclasses.replace(made, **change), UTC), change  # type: ignore[arg-type]


texts = st.text(max_size=4)


@given(
    st.tuples(texts, texts, texts, texts, texts),
    st.lists(texts, max_size=3),
    st.tuples(texts, texts, texts, texts, texts),
    st.lists(texts, max_size=3),
)
def test_two_different_signatures_never_have_the_same_bytes(
    one: tuple[str, ...], one_methods: list[str], two: tuple[str, ...], two_methods: list[str]
) -> None:
    def made(fields: tuple[str, ...], methods: list[str]) -> bytes:
        person, role, meaning, session, utc = fields
        return attested_bytes(
            subject_seq=1, subject_hash="00" * 32, person=person, role=role, meaning=meaning,
            methods=methods, session=session, utc=utc,
        )  # fmt: skip

    assert (made(one, one_methods) == made(two, two_methods)) == ((one, one_methods) == (two, two_methods))
