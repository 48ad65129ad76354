"""What one variable takes: a type with limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from snakepit.errors import DecodeError
from snakepit_grpc_bridge.errors import NotAllowed, ValidationFailed, did_you_mean, shown
from snakepit_grpc_bridge.variables.types import scalars
from snakepit_grpc_bridge.variables.types.unfit import Unfit
from snakepit_grpc_bridge.variables.types.variable_type import Check, Constraint, VariableType

__all__ = ["NULLABLE", "Declaration", "declare", "unlimited"]

T = TypeVar("T")

#: Every type has it: whether None is a value, too.
NULLABLE: Final = Constraint(
    name="nullable",
    expects="True or False",
    read=scalars.read_boolean,
    check=lambda _limit, _limits: lambda _value: None,
)
_PAIRS: Final = (("min", "max"), ("min_length", "max_length"))


@dataclass(frozen=True, slots=True, eq=False)
class Declaration(Generic[T]):
    """A type and its constraints, ready to read values. Never changes; many variables may share it.

    Attributes:
        type: the type.
        constraints: the limits by name, immutable.

    Example:
        >>> from snakepit_grpc_bridge.variables import TypeRegistry
        >>> temperature = TypeRegistry().declare("float", {"min": 0, "max": 2})
        >>> temperature.read(1)
        1.0
        >>> try:
        ...     temperature.read(3)
        ... except ValueError as error:
        ...     print(error)
        3 is not allowed in a variable of type 'float': it must be at most 2.0
    """

    type: VariableType[T]
    constraints: Mapping[str, Any]
    _nullable: bool
    _checks: tuple[tuple[str, Check], ...]

    def read(self, value: Any) -> T | None:
        """Return the value as it is stored; it shares nothing with ``value`` that can change.

        Raises:
            ValidationFailed: the type does not take it, or it breaks a constraint.
        """
        if value is None and self._nullable:
            return None
        try:
            stored = self.type.read(value)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise self._misfit(value, error) from self._cause(error)
        for name, check in self._checks:
            problem = check(stored)
            if problem is not None:
                raise self._broken(value, name, problem)
        return stored

    def copy(self, stored: T | None) -> T | None:
        """Return what a reader of the variable gets: nothing that he does to it is seen by others.

        Costs nothing for what can't change; arrays are given as read-only views.
        """
        copy = self.type.copy
        return stored if copy is None or stored is None else copy(stored)

    def to_plain(self, stored: T | None) -> Any:
        """Return a stored value as plain data, to be encoded for a storage or a worker.

        It may share with what is stored: don't change it, and don't hand it out.

        Raises:
            NotAllowed: values of the type are secret, and must be sealed.
        """
        if self.type.private:
            raise NotAllowed(
                f"a value of type {self.type.name!r} is not stored or sent as plain data; seal it"
            )
        convert = self.type.to_plain
        return stored if convert is None or stored is None else convert(stored)

    def from_plain(self, plain: Any) -> T | None:
        """Return the stored value that ``to_plain`` made ``plain`` of.

        Raises:
            DecodeError: it is none of this type; perhaps the type is not what it was.
        """
        convert: Callable[[Any], T] | None = self.type.from_plain
        if plain is None:
            return None
        if convert is None:
            if self.type.recognises is not None and not self.type.recognises(plain):
                raise self.undecodable(f" but of class {type(plain).__name__}")
            return plain  # type: ignore[no-any-return]  # it is stored as it is
        try:
            return convert(plain)
        except Exception as error:  # the data may be anything
            raise self.undecodable() from error

    def undecodable(self, why: str = "") -> DecodeError:
        """The error for stored data that is no value of the type."""
        return DecodeError(
            f"what is stored for a variable of type {self.type.name!r} is no such value{why}; "
            "write the variable anew",
            details={"type": self.type.name},
        )

    def _misfit(self, value: object, error: Exception) -> ValidationFailed:
        expects = self.type.expects + (" or None" if self._nullable else "")
        private = self.type.private
        if isinstance(error, Unfit):
            why, private = error.text, private or error.private
        else:
            # What the reader of a private type says may show the value.
            why = "" if private else str(error)
        given = "this value" if private else shown(value)
        return ValidationFailed(
            f"a variable of type {self.type.name!r} takes {expects}, not {given}"
            + (f" ({why})" if why else ""),
            details={"type": self.type.name},
        )

    def _broken(self, value: object, name: str, problem: str) -> ValidationFailed:
        given = "this value" if self.type.private else shown(value)
        return ValidationFailed(
            f"{given} is not allowed in a variable of type {self.type.name!r}: it {problem}",
            details={"type": self.type.name, "constraint": name},
        )

    def _cause(self, error: Exception) -> BaseException | None:
        if self.type.private:
            return None
        return error.__cause__ if isinstance(error, Unfit) else error


def declare(kind: VariableType[T], constraints: Mapping[str, Any]) -> Declaration[T]:
    """Return the declaration of a type with those constraints.

    Raises:
        ValidationFailed: a constraint is unknown, missing or makes no sense.
    """
    if not isinstance(constraints, Mapping):
        raise ValidationFailed(
            f"constraints are a mapping of name to limit, not {shown(constraints)}"
        )
    known = {constraint.name: constraint for constraint in (*kind.constraints, NULLABLE)}
    limits = {name: _limit(kind, known, name, limit) for name, limit in constraints.items()}
    for name in kind.required:
        if name not in limits:
            raise ValidationFailed(f"type {kind.name!r} needs the constraint {name!r}")
    for least, most in _PAIRS:
        if least in limits and most in limits and limits[least] > limits[most]:
            raise ValidationFailed(
                f"no value of type {kind.name!r} can keep both constraints: {least!r} is above "
                f"{most!r}"
            )
    checks = tuple(
        (name, known[name].check(limit, limits))
        for name, limit in limits.items()
        if name != NULLABLE.name
    )
    return Declaration(kind, MappingProxyType(limits), limits.get("nullable", False), checks)


def unlimited(kind: VariableType[T]) -> Declaration[T]:
    """Return the declaration of a type without constraints, also of one that requires some."""
    return Declaration(kind, MappingProxyType({}), False, ())


def _limit(
    kind: VariableType[Any], known: Mapping[str, Constraint], name: object, limit: object
) -> Any:
    constraint = known.get(name) if isinstance(name, str) else None
    if constraint is None:
        hint = did_you_mean(name, known) if isinstance(name, str) else ""
        raise ValidationFailed(
            f"type {kind.name!r} has no constraint {shown(name)}{hint} "
            f"(it takes: {', '.join(known)})"
        )
    try:
        return constraint.read(limit)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValidationFailed(
            f"the constraint {constraint.name!r} of type {kind.name!r} must be "
            f"{constraint.expects}, it was {shown(limit)}",
            details={"type": kind.name, "constraint": constraint.name},
        ) from (error.__cause__ if isinstance(error, Unfit) else error)
