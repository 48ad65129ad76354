"""What a type of variables is made of, a built-in one or one of your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Check", "Constraint", "VariableType"]

T = TypeVar("T")

#: Says what is wrong with a stored value, as in ``"must be at most 2"``, or None.
Check = Callable[[Any], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """A limit that a variable may set on its values.

    Attributes:
        name: how users write it, as in ``constraints={"max": 2}``.
        expects: what the limit must be, for messages: ``"a number"``.
        read: returns the limit as it is kept, which must be immutable and able to travel; raises
            TypeError or ValueError if it makes no sense.
        check: returns the check for a limit; it is also given all limits of the variable by name.
    """

    name: str
    expects: str
    read: Callable[[Any], Any]
    check: Callable[[Any, Mapping[str, Any]], Check]


@dataclass(frozen=True, kw_only=True, slots=True)
class VariableType(Generic[T]):
    """A type of variables, whose values are stored as ``T``.

    All functions are pure, quick, and run on the platform's event loop.

    Attributes:
        name: how users write it: lower-case letters, digits and ``_``, up to 64.
        expects: what it takes, for messages: ``"a whole number"``.
        read: returns the value as it is stored: private, sharing nothing with the caller's that
            can change, and such that reading it again gives an equal one. Raises TypeError or
            ValueError for what the type does not take; the text says why, without the value.
        constraints: the limits that variables of it may set.
        required: the names of those that they must set.
        inferred_from: classes whose values get this type when no type is given.
        copy: returns what readers of the variable get; None if what is stored can't be changed.
        to_plain: returns plain data to store and to send, None if the stored form is plain data.
        from_plain: makes the stored form of that again; goes with ``to_plain``.
        recognises: says whether plain data that a database gives back may be a value, by its class;
            for a type without ``from_plain``, which tells it by failing. None to look at nothing.
        private: values are never shown, and leave the host sealed only. ``read`` returns a Secret.

    Example:
        >>> from fractions import Fraction
        >>> def read_fraction(value: object) -> Fraction:
        ...     if type(value) is not Fraction:
        ...         raise TypeError
        ...     return value
        >>> fraction = VariableType(
        ...     name="fraction",
        ...     expects="a Fraction",
        ...     read=read_fraction,
        ...     inferred_from=(Fraction,),
        ...     to_plain=str,
        ...     from_plain=Fraction,
        ... )
    """

    name: str
    expects: str
    read: Callable[[Any], T]
    constraints: tuple[Constraint, ...] = ()
    required: tuple[str, ...] = ()
    inferred_from: tuple[type, ...] = ()
    copy: Callable[[T], T] | None = None
    to_plain: Callable[[T], Any] | None = None
    from_plain: Callable[[Any], T] | None = None
    recognises: Callable[[Any], bool] | None = None
    private: bool = False
