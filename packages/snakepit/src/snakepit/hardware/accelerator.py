"""One accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cuda", "rocm", "mps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A graphics or other processor beside the CPU.

    ``id`` is what selects it in ``CUDA_VISIBLE_DEVICES`` or ``ROCR_VISIBLE_DEVICES``. NVIDIA's have
    a UUID, which stays the same however they are counted; a part of one (MIG) has its own. Memory
    in bytes, None where it is not known, as on those that share it with the CPU.
    """

    kind: Kind
    id: str
    name: str
    memory_total: int | None = None
    memory_free: int | None = None
    driver: str = ""
