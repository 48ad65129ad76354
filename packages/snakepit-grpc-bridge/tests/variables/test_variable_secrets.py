"""Secrets are shown nowhere, and sealed for whoever holds the key."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import sys
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from variable_values import KEY, TEXT

from snakepit.errors import ConfigurationError, DecodeError, EncodeError
from snakepit.wire.codec import encode
from snakepit_grpc_bridge.errors import NotAllowed, ValidationFailed
from snakepit_grpc_bridge.variables.types import Secret, TypeRegistry, seal, unseal

SECRET = Secret(KEY)
PLACE = "session/name"


def new_key() -> Secret:
    return Secret(Fernet.generate_key().decode())


# --- in memory -----------------------------------------------------------------------------------


def test_nothing_but_reveal_shows_it() -> None:
    log = io.StringIO()
    logger = logging.Logger("secrets")
    logger.addHandler(logging.StreamHandler(log))
    logger.error("%s %r %s", SECRET, SECRET, {"key": [SECRET]})
    shown = [
        repr(SECRET),
        str(SECRET),
        f"{SECRET!r:>40} {SECRET:>40} {SECRET}",
        repr([SECRET]),
        log.getvalue(),
    ]
    assert all("***" in text and KEY[:8] not in text for text in shown)
    assert SECRET.reveal() == KEY


@pytest.mark.parametrize(
    "leak",
    [pickle.dumps, json.dumps, encode, vars, hash, list, len, bytes, int],
    ids=lambda f: f.__name__,
)
def test_it_is_nothing_that_can_be_taken_apart(leak: Any) -> None:
    for value in (SECRET, [SECRET]) if leak in (pickle.dumps, json.dumps, encode) else (SECRET,):
        with pytest.raises((TypeError, EncodeError)) as caught:
            leak(value)
        assert KEY not in str(caught.value)


def test_equality_and_copies() -> None:
    assert Secret(KEY) == SECRET
    assert Secret("other") != SECRET
    assert SECRET != KEY
    assert Secret("ä") == Secret("ä")
    assert copy.copy(SECRET) is SECRET
    assert copy.deepcopy([SECRET])[0] is SECRET


def test_it_is_made_of_text() -> None:
    for wrong in (KEY.encode(), None, 3, SECRET, KEY + "\ud800"):
        with pytest.raises(ValidationFailed, match="a secret is made of text") as caught:
            Secret(wrong)  # type: ignore[arg-type]
        assert KEY not in str(caught.value)


def test_variables_of_secrets() -> None:
    declared = TypeRegistry().declare("secret")
    stored = declared.read(KEY)
    assert stored == SECRET == declared.read(stored)
    assert declared.copy(stored) is stored
    with pytest.raises(NotAllowed, match="a value of type 'secret' is not stored or sent"):
        declared.to_plain(stored)


# --- sealed --------------------------------------------------------------------------------------


@given(TEXT, TEXT)
@settings(max_examples=30, deadline=None)
def test_a_sealed_secret_opens_in_its_place_alone(text: str, place: str) -> None:
    keys = [new_key()]
    sealed = seal(Secret(text), keys, context=place)
    assert len(text) < 4 or text.encode() not in sealed
    assert unseal(sealed, keys, context=place) == Secret(text)
    with pytest.raises(DecodeError, match="belongs to another place"):
        unseal(sealed, keys, context=place + "x")


def test_keys_are_changed_by_putting_a_new_one_in_front() -> None:
    old, new = new_key(), new_key()
    before = seal(SECRET, [old], context=PLACE)
    after = seal(unseal(before, [new, old], context=PLACE), [new, old], context=PLACE)
    assert unseal(after, [new], context=PLACE) == SECRET
    with pytest.raises(DecodeError, match="none of the keys fits"):
        unseal(before, [new], context=PLACE)


def test_what_was_changed_does_not_open() -> None:
    keys = [new_key()]
    sealed = seal(SECRET, keys, context=PLACE)
    for wrong in (sealed[:-4] + b"AAAA", sealed[:20], b"", b"\xff", Fernet.generate_key()):
        with pytest.raises(DecodeError) as caught:
            unseal(wrong, keys, context=PLACE)
        assert keys[0].reveal() not in str(caught.value)


def test_keys_that_are_none() -> None:
    for keys in ([], [Secret(KEY)], [new_key(), Secret("")]):
        with pytest.raises(ConfigurationError, match="there is none, or one is none") as caught:
            seal(SECRET, keys, context=PLACE)
        assert KEY not in str(caught.value)
        assert caught.value.__cause__ is None


def test_the_package_that_seals_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(ConfigurationError, match=r"snakepit-grpc-bridge\[secrets\]"):
        seal(SECRET, [Secret(KEY)], context=PLACE)
