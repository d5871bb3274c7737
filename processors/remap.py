"""Other mapping files came into force: what they say anew is looked at once, on what the row holds.

Pure. A line that was added or changed has no agreement yet, so it is decided as at the first agreement: a blank gives
way to a value, of two values the authority's stands. What somebody changed since goes as ever, and a line whose fields
are not in the row yet is looked at when capture has brought them. A person who applies the files has seen how many
records it writes: the brake against too many does not count these.
"""

from __future__ import annotations

from msgspec.structs import replace

from processors.turn import Turn
from schemas.coupling import PairState
from schemas.records import Order


def remap(turn: Turn, order: Order) -> bool:
    """Look at the lines that the order names, and decide what is held anew."""
    pair = turn.row.pair
    if pair is None:
        turn.quiet = True
        return True
    if pair.in_flight is not None or pair.state is PairState.CLAIMING:
        return False
    turn.line("remapped", turn.source_ref(""), fields=order.fields, cause_id=order.order_id)
    turn.retry = True
    turn.is_let_through = True
    if pair.state is PairState.COUPLED:
        pair = replace(pair, again=tuple(dict.fromkeys((*pair.again, *order.fields))))
    else:
        pair = replace(pair, matched=None)  # other criteria may find another match
    turn.row = replace(turn.row, pair=pair)
    return True
