"""Variables: named, typed values that belong to a session.

================  ==============================================================================
``types``         the types, and what values they take
``rows``          variables as they are stored, and as users see them
``values``        between the two
``writing``       what writing does, inside a transaction
``access``        the transactions; who watches
``service``       the face that users see
``transactions``  several writes that take effect together
``watching``      watches
``typed``         variables as the fields of a class
``explaining``    where a value comes from
================  ==============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit.lazy_names import lazy_names

if TYPE_CHECKING:
    from snakepit_grpc_bridge.variables.explaining import Explanation
    from snakepit_grpc_bridge.variables.rows import (
        Variable,
        VariableChange,
        VariableOptions,
        VariableVersion,
    )
    from snakepit_grpc_bridge.variables.service import VariableService
    from snakepit_grpc_bridge.variables.transactions import VariableTransaction
    from snakepit_grpc_bridge.variables.types import (
        Check,
        Constraint,
        DatasetHandle,
        ModelHandle,
        Secret,
        TypeRegistry,
        VariableType,
        bounds,
        choices,
        lengths,
        pattern,
        seal,
        unseal,
    )
    from snakepit_grpc_bridge.variables.watching import ChangeCallback, Watch

__all__ = [
    "ChangeCallback",
    "Check",
    "Constraint",
    "DatasetHandle",
    "Explanation",
    "ModelHandle",
    "Secret",
    "TypeRegistry",
    "Variable",
    "VariableChange",
    "VariableOptions",
    "VariableService",
    "VariableTransaction",
    "VariableType",
    "VariableVersion",
    "Watch",
    "bounds",
    "choices",
    "lengths",
    "pattern",
    "seal",
    "unseal",
]

# Imported when first used: a worker needs no service.
_HOMES = {
    "ChangeCallback": "watching",
    "Check": "types",
    "Constraint": "types",
    "DatasetHandle": "types",
    "Explanation": "explaining",
    "ModelHandle": "types",
    "Secret": "types",
    "TypeRegistry": "types",
    "Variable": "rows",
    "VariableChange": "rows",
    "VariableOptions": "rows",
    "VariableService": "service",
    "VariableTransaction": "transactions",
    "VariableType": "types",
    "VariableVersion": "rows",
    "Watch": "watching",
    "bounds": "types",
    "choices": "types",
    "lengths": "types",
    "pattern": "types",
    "seal": "types",
    "unseal": "types",
}


if not TYPE_CHECKING:  # or else a type checker would accept any name
    __getattr__ = lazy_names(__name__, _HOMES)
