"""Functions of every shape that a tool can have, and the types they take."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import pydantic
from typing_extensions import Doc


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


@dataclass
class Guest:
    """Somebody who comes."""

    name: str
    age: int = 30
    friends: list[Guest] = field(default_factory=list)
    visits: int = field(default=0, init=False)


@dataclass(frozen=True)
class Point:
    x: int


class Address(TypedDict):
    street: str
    number: NotRequired[int]
    behind: NotRequired[Address]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Order(pydantic.BaseModel):
    """What is asked for."""

    item_id: int = pydantic.Field(alias="itemId", ge=1)
    when: date | None = None

    @pydantic.field_validator("item_id")
    @classmethod
    def _is_no_joke(cls, value: int) -> int:
        if value == 666:
            raise ValueError("must be an item that exists")
        return value


class Open(pydantic.BaseModel, extra="allow"):
    known: int


class Careless(pydantic.BaseModel, extra="ignore"):
    known: int


class Tags(pydantic.RootModel[list[str]]):
    pass


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


class Number(pydantic.BaseModel):
    op: Literal["number"]
    value: float


class Sum(pydantic.BaseModel):
    op: Literal["sum"]
    left: Expression
    right: Expression


class Product(pydantic.BaseModel):
    op: Literal["product"]
    left: Expression
    right: Expression


Expression = Number | Sum | Product
Sum.model_rebuild()
Product.model_rebuild()


# --- functions -----------------------------------------------------------------------------------


def price(item: str, count: int = 1, *, discount: float | None = None) -> float:
    """What some of an item cost.

    Taxes are included.

    Args:
        item: Its name, in
            lower case.
        count (int): How many.

    Returns:
        The price in euros.
    """
    return 2.0 * count * (1 - (discount or 0))


def anything(value, *, flag=False, **others: int):  # type: ignore[no-untyped-def]
    return value, flag, others


async def later(count: int) -> dict[str, int]:
    return {"count": count}


def counts(to: int) -> Iterator[int]:
    yield from range(to)


async def lines(of: str) -> AsyncIterator[str]:
    for line in of.splitlines():
        yield line


def rows(connection: sqlite3.Connection, query: str, token: str = "hunter2") -> list[Any]:
    """Run a query."""
    return [connection, query, token]


def forwards(target: str, token: str = "", **options: int) -> dict[str, Any]:
    return {"target": target, "token": token, **options}


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Shop:
    """Sells things."""

    def price(self, item: str) -> float:
        """The price of one."""
        return float(len(item))

    @classmethod
    def open(cls, name: str) -> Shop:
        return cls()

    @staticmethod
    def tax(amount: float) -> float:
        return amount / 5

    def __call__(self, item: str) -> str:
        return item


class AsyncShop:
    async def __call__(self, item: str) -> str:
        """Sell one."""
        return item


def with_fields(
    count: int = pydantic.Field(5, ge=1, description="How many."),
    name: str = pydantic.Field(description="Whose."),
    tags: Annotated[list[str], pydantic.Field(default_factory=list)] = [],  # noqa: B006
    city: Annotated[str, "Where."] = "Rome",
    via: Annotated[str, Doc("By what.")] = "road",
) -> list[Any]:
    return [count, name, tags, city, via]


def greet(guest: Guest, colors: set[Color], at: date) -> dict[str, Any]:
    """Say hello."""
    assert isinstance(guest, Guest)
    assert all(isinstance(color, Color) for color in colors)
    return {"guest": guest, "colors": colors, "year": at.year}
