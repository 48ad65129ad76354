"""Types that users register."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from snakepit.errors import DecodeError
from snakepit.wire.codec import decode, encode
from snakepit_grpc_bridge.errors import NotAllowed, UnsupportedType, ValidationFailed
from snakepit_grpc_bridge.variables.types import (
    Check,
    Constraint,
    TypeRegistry,
    VariableType,
    bounds,
    infer_type,
    supported_types,
)


@dataclasses.dataclass
class Money:
    """Can be changed, so that readers need copies."""

    amount: Decimal
    currency: str


def read_decimal(value: Any) -> Decimal:
    if type(value) is not Decimal:
        raise TypeError
    return value


def read_money(value: Any) -> Money:
    if not isinstance(value, Money):
        raise TypeError
    if not value.amount.is_finite():
        raise ValueError("the amount must be finite")
    return Money(value.amount, value.currency)


def is_of(currency: str, _limits: Mapping[str, Any]) -> Check:
    return lambda money: None if money.currency == currency else f"must be in {currency}"


DECIMAL = VariableType(
    name="decimal",
    expects="a Decimal",
    read=read_decimal,
    constraints=bounds("a Decimal", read_decimal),
    inferred_from=(Decimal,),
)
MONEY = VariableType(
    name="money",
    expects="an amount of money",
    read=read_money,
    constraints=(Constraint(name="currency", expects="text", read=str.upper, check=is_of),),
    required=("currency",),
    inferred_from=(Money,),
    copy=dataclasses.replace,
    to_plain=lambda money: [money.amount, money.currency],
    from_plain=lambda plain: Money(*plain),
)


def registry(*kinds: VariableType[Any]) -> TypeRegistry:
    types = TypeRegistry()
    for kind in kinds:
        types.register_type(kind)
    return types


def test_a_type_of_ones_own_is_as_good_as_a_built_in_one() -> None:
    types = registry(DECIMAL, MONEY)
    assert types.infer(Decimal(1)) == "decimal"
    assert types.infer(Money(Decimal(1), "EUR")) == "money"
    assert types.supported()["money"] == {"currency": "text", "nullable": "True or False"}
    money = types.declare("money", {"currency": "eur"})
    assert money.constraints == {"currency": "EUR"}
    given = Money(Decimal("1.10"), "EUR")
    stored: Any = money.read(given)
    given.currency = "USD"
    mine: Any = money.copy(stored)
    mine.currency = "CHF"
    assert stored == Money(Decimal("1.10"), "EUR")
    assert money.from_plain(decode(encode(money.to_plain(stored)))) == stored
    for value, says in (
        (3, r"a variable of type 'money' takes an amount of money, not 3$"),
        (Money(Decimal("NaN"), "EUR"), r"not a value of type Money \(the amount must be finite\)"),
        (Money(Decimal(1), "USD"), "a value of type Money is not allowed .*: it must be in EUR"),
    ):
        with pytest.raises(ValidationFailed, match=says):
            money.read(value)
    with pytest.raises(ValidationFailed, match="type 'money' needs the constraint 'currency'"):
        types.declare("money")
    with pytest.raises(DecodeError, match="no such value"):
        money.from_plain([1])


def test_bounds_serve_whatever_can_be_compared() -> None:
    priced = registry(DECIMAL).declare("decimal", {"min": Decimal("0.1"), "max": Decimal(2)})
    assert priced.read(Decimal("0.1")) == Decimal("0.1")
    for wrong in (Decimal("0.09"), Decimal(3)):
        with pytest.raises(ValidationFailed, match="must be at"):
            priced.read(wrong)
    with pytest.raises(ValidationFailed, match="'min' of type 'decimal' must be a Decimal"):
        registry(DECIMAL).declare("decimal", {"min": 1})
    # A signaling NaN raises an error of its own wherever it is compared.
    for nan in ("NaN", "sNaN"):
        with pytest.raises(ValidationFailed, match="must be a Decimal"):
            registry(DECIMAL).declare("decimal", {"min": Decimal(nan)})


def test_registries_share_nothing() -> None:
    registry(DECIMAL)
    assert TypeRegistry().infer(Decimal(1)) == infer_type(Decimal(1)) == "any"
    assert "decimal" not in supported_types()
    with pytest.raises(UnsupportedType):
        TypeRegistry().declare("decimal")


def test_a_reader_of_secrets_is_not_quoted() -> None:
    def read(value: Any) -> Any:
        raise ValueError(f"{value} is no key")

    private = VariableType(name="key", expects="a key", read=read, private=True)
    declared = registry(private).declare("key")
    with pytest.raises(ValidationFailed, match=r"takes a key, not this value$") as caught:
        declared.read("canary")
    assert caught.value.__cause__ is None
    with pytest.raises(NotAllowed):
        declared.to_plain("canary")


def test_a_bug_of_a_reader_is_not_taken_for_a_bad_value() -> None:
    def read(value: Any) -> Any:
        return value.missing

    broken = VariableType(name="broken", expects="anything", read=read)
    with pytest.raises(AttributeError):
        registry(broken).declare("broken").read(3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "integer"}, "there is a variable type 'integer' already"),
        ({"name": "Money"}, "'Money' is no name of a type"),
        ({"name": "1"}, "is no name of a type"),
        ({"name": ""}, "is no name of a type"),
        ({"name": "a" * 65}, "is no name of a type"),
        ({"name": None}, "is no name of a type"),
        ({"required": ("unit",)}, r"requires constraints it has not: \['unit'\]"),
        ({"from_plain": None}, "needs both of to_plain and from_plain"),
        ({"to_plain": None}, "needs both of to_plain and from_plain"),
        pytest.param(
            {"constraints": MONEY.constraints * 2}, "two constraints of one name", id="twice"
        ),
        pytest.param(
            {"constraints": (dataclasses.replace(MONEY.constraints[0], name="nullable"),)},
            "two constraints of one name",
            id="one that all types have",
        ),
    ],
    ids=str,
)
def test_types_that_can_not_be_registered(changes: dict[str, Any], says: str) -> None:
    types = TypeRegistry()
    with pytest.raises(ValidationFailed, match=says):
        types.register_type(dataclasses.replace(MONEY, **changes))
    assert types.supported() == TypeRegistry().supported()


def test_what_a_constraint_must_be_is_said_before_and_after() -> None:
    types = registry(MONEY)
    for name, taken in types.supported().items():
        for constraint, must_be in taken.items():
            with pytest.raises(ValidationFailed, match=rf"must be {re.escape(must_be)}, it was"):
                types.declare(name, {constraint: object()})


def test_only_types_are_registered_and_once() -> None:
    types = registry(MONEY)
    with pytest.raises(ValidationFailed, match="there is a variable type 'money' already"):
        types.register_type(MONEY)
    with pytest.raises(ValidationFailed, match="declared by a VariableType"):
        types.register_type(Money)  # type: ignore[arg-type]
