"""Orders that a command gives to a home, and what the home makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drawbar.ports import OutMessage
    from drawbar.rows import News, Watch
    from schemas.records import Order


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a home has made of an order."""

    result: str  # coupled, uncoupled, refused, pending
    reason: str = ""


def order_message(order: Order, *, mapping: str, home: str) -> OutMessage:
    """The order as a message on `pairs.work`. Its id is the order's: what a home does at once names it as the cause."""
    from drawbar.ports import OutMessage
    from schemas.codec import encode
    from schemas.records import Work
    from schemas.topics import PAIRS_WORK

    work = Work(message_id=order.order_id, mapping=mapping, home=home, order=order)
    return OutMessage(topic=PAIRS_WORK, key=work.key.encode(), value=encode(work))


def await_verdict(watch: Watch, judge: Callable[[News], Verdict | None], wait_s: float) -> Verdict | None:
    """The first verdict that the news allow; None when there is none within `wait_s`."""
    deadline = time.monotonic() + wait_s
    while (left := deadline - time.monotonic()) > 0:
        for news in watch.take(min(left, 0.5)):
            verdict = judge(news)
            if verdict is not None:
                return verdict
    return None
