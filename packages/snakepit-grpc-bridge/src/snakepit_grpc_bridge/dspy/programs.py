"""Predictions from signatures alone. Worker side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from snakepit_grpc_bridge.dspy.build import build_signature
from snakepit_grpc_bridge.dspy.runtime import load_dspy
from snakepit_grpc_bridge.dspy.signature import SignatureSpec
from snakepit_grpc_bridge.errors import OutputFieldMissing

__all__ = ["Programs"]

#: Signatures kept built; building one takes some milliseconds.
_KEPT = 128


class Programs:
    """Runs ``dspy.Predict`` and its like; keeps the signatures built, which hold no state."""

    def __init__(self) -> None:
        self._signatures: OrderedDict[SignatureSpec, Any] = OrderedDict()

    def run(self, kind: str, spec: SignatureSpec, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run one prediction with a module of its own, so that nothing is left for the next call.

        Raises:
            OutputFieldMissing: the answer lacks an output field.
        """
        module = getattr(load_dspy(), kind)(self._signature(spec))
        fields = dict(module(**inputs).items())
        missing = [
            field.name
            for field in spec.outputs
            if fields.get(field.name) is None and not field.optional
        ]
        if missing:
            raise OutputFieldMissing.of(spec.text, missing)
        return fields

    def _signature(self, spec: SignatureSpec) -> Any:
        built = self._signatures.pop(spec, None)
        if built is None:
            built = build_signature(spec)
        self._signatures[spec] = built
        if len(self._signatures) > _KEPT:
            self._signatures.popitem(last=False)
        return built
