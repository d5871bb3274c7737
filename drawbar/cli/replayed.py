"""What became of the letters that were replayed.

Pure. A home has answered once its row names the order as its cause; it has settled once nothing is under way there any
more. Whether a letter is closed is then what the row says: it holds the direction still, or it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drawbar.rows import Gone
from schemas.coupling import PairState, Row
from schemas.records import DeadLetter, LetterState, home_key

if TYPE_CHECKING:
    from drawbar.rows import News


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """`code` and `slug` say why it does not go on; `letter_id` names the letter that is open now, which is another one
    when the first had been given up.
    """

    result: str  # closed, open, discarded (given up before, and nothing is different), pending, sent
    letter_id: str = ""
    code: str = ""
    slug: str = ""


CLOSED, PENDING = Fate(result="closed"), Fate(result="pending")


class Replayed:
    """Follows retry orders by the news of their homes. `orders`: order id -> the letter it is about."""

    def __init__(self, orders: Mapping[str, DeadLetter]) -> None:
        self._orders = orders
        self._answered: set[str] = set()
        self._closed: set[str] = set()
        self._rows: dict[str, Row | None] = {}

    @property
    def homes(self) -> frozenset[str]:
        return frozenset(_home(letter) for letter in self._orders.values())

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return all(fate is not PENDING for fate in self.fates().values())

    def hear(self, news: Iterable[News]) -> None:
        for item in news:
            if isinstance(item, DeadLetter):
                if item.state is not LetterState.OPEN:
                    self._closed.add(item.letter_id)
            elif isinstance(item, Gone):
                self._rows[item.key] = None
            elif isinstance(item, Row):
                self._rows[home_key(item.mapping, item.id)] = item
                self._answered.add(item.last.cause_id)

    def fates(self) -> dict[str, Fate]:
        """By letter id, as far as is known."""
        return {letter.letter_id: self._fate(order_id, letter) for order_id, letter in self._orders.items()}

    def _fate(self, order_id: str, letter: DeadLetter) -> Fate:
        key = _home(letter)
        if letter.state is LetterState.OPEN and letter.letter_id in self._closed:
            return CLOSED
        if key not in self._rows:
            return PENDING
        row = self._rows[key]
        pair = row.pair if row is not None else None
        if row is None or (pair is None and order_id in self._answered):
            return CLOSED
        waits = any(order.order_id == order_id for order in row.deferred)
        if pair is None or order_id not in self._answered or waits or pair.in_flight is not None:
            return PENDING
        hold = pair.holds.get(letter.direction)
        if hold is None:
            return CLOSED
        if pair.state is PairState.CLAIMING:
            return PENDING
        result = "open" if hold.letter_id else "discarded"
        return Fate(result=result, letter_id=hold.letter_id, code=hold.code, slug=hold.slug)


def _home(letter: DeadLetter) -> str:
    return home_key(letter.mapping, letter.home)
