"""Golden vectors: bytes of the protocol that must not change, for workers in any language.

``frames.json`` has frames and headers that are refused, ``values.json`` encoded values; what their
fields mean is told in each file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: The folder of the files.
GOLDEN_VECTORS: Final = Path(__file__).parent
