"""Which workers come and go, so that a pool has as many as it is to have. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """The workers that a pool has and is to have.

    ``size``: how many are to take calls; ``spares``: how many are to be ready beyond them.
    ``serving``: those that take calls and are to stay, in the order in which they would be let go;
    ``spare``: those that are ready, in the order in which they are to take calls; ``coming``: how
    many are being started. ``room``: how many more there may be, None for no limit.
    """

    size: int
    spares: int
    serving: tuple[str, ...]
    spare: tuple[str, ...]
    coming: int
    room: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What is to be done.

    ``promote``: spare ones that are to take calls; ``let_go``: those that are to get no more;
    ``dismiss``: spare ones that are to end; ``start`` and ``call_off``: how many starts are to
    begin, or to be given up.
    """

    promote: tuple[str, ...] = ()
    let_go: tuple[str, ...] = ()
    dismiss: tuple[str, ...] = ()
    start: int = 0
    call_off: int = 0

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return any((self.promote, self.let_go, self.dismiss, self.start, self.call_off))


def moves(staff: Staff) -> Moves:
    """What brings a pool from the workers it has to those it is to have."""
    lacking = max(0, staff.size - len(staff.serving))
    let_go = staff.serving[: max(0, len(staff.serving) - staff.size)]
    promote, left = staff.spare[:lacking], staff.spare[lacking:]
    there = len(staff.serving) + len(staff.spare) - len(let_go)
    missing = staff.size + staff.spares - there - staff.coming
    if missing >= 0:
        start = missing if staff.room is None else min(missing, max(0, staff.room))
        return Moves(promote=promote, let_go=let_go, start=start)
    # Those that are not up yet first: they have cost the least.
    call_off = min(-missing, staff.coming)
    dismiss = left[len(left) - (-missing - call_off) :] if -missing > call_off else ()
    return Moves(promote=promote, let_go=let_go, dismiss=dismiss, call_off=call_off)
