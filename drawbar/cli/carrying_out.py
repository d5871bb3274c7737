"""Many orders, carried out: a bounded number is under way at a time, and each is followed until it has ended.

Nothing is remembered outside the rows. A command that is killed and given again finds what is done in the rows, sends
the other orders under the ids they had, and goes on following.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from drawbar.cli.shared import say

if TYPE_CHECKING:
    from drawbar.ports import OutMessage
    from drawbar.rows import News, Rows
    from schemas.coupling import Row

UNDER_WAY = 40  # orders not ended: enough to keep a lane busy; what people edit meanwhile waits behind these alone
TELL_EVERY_S = 5.0  # a line of progress where there is no terminal
STILL_S = 15.0  # so long without any progress is told

# Events of the journal by which a home says that it did not follow an order, or that it did where no row shows it.
ANSWERS = ("claim-refused", "given-back", "skipped", "would-write", "remapped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`keys`: the home that is judged, then others whose journal tells of the order."""

    keys: tuple[str, ...]
    message: OutMessage | None = None  # None: it goes on by itself
    order_id: str = ""
    is_done: Callable[[Row | None, str], bool]  # by the row of its home: nothing is left to do for it
    is_ended: Callable[[Row | None, str], bool]  # it is done, or will not be


class Progress(Protocol):
    def __call__(self, ended: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Carried:
    """The rows of all homes as last seen, by key; and what was said of orders, by their ids."""

    rows: Mapping[str, Row]
    answers: Mapping[str, str]
    ended: int


def carry_out(rows: Rows, tasks: Sequence[Task], *, idle_s: float, progress: Progress) -> Carried:
    """Returns when every task has ended, or when for `idle_s` none has."""
    keys = {key for task in tasks for key in task.keys}
    by_key: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        for key in task.keys:
            by_key.setdefault(key, []).append(number)
    answers: dict[str, str] = {}
    with rows.watch(keys) as watch:
        known: dict[str, Row] = dict(rows.rows(keys))
        waiting = deque(number for number, task in enumerate(tasks) if not task.is_done(known.get(task.keys[0]), ""))
        left, under_way = set(waiting), set[int]()
        moved_at = told_at = time.monotonic()
        progress(len(tasks) - len(left), len(tasks))
        while left:
            chosen = [waiting.popleft() for _ in range(min(UNDER_WAY - len(under_way), len(waiting)))]
            under_way |= set(chosen)
            messages = [message for number in chosen if (message := tasks[number].message) is not None]
            if messages:
                rows.send(messages)
            touched = {number for number in chosen if tasks[number].message is None}
            for news in watch.take(0.5):
                key = _note(news, known, answers)
                touched |= set(by_key.get(key, ())) & under_way
            ended = {number for number in touched if _has_ended(tasks[number], known, answers)}
            left -= ended
            under_way -= ended
            now = time.monotonic()
            if ended or chosen:
                moved_at = told_at = now
                progress(len(tasks) - len(left), len(tasks))
            elif now - moved_at > idle_s:
                break
            elif now - told_at > STILL_S:
                told_at = now
                say(f"{len(left)} have not ended, and nothing moved for {now - moved_at:.0f} s: see drawbar status")
        return Carried(known, answers, len(tasks) - len(left))


def _has_ended(task: Task, known: Mapping[str, Row], answers: Mapping[str, str]) -> bool:
    return task.is_ended(known.get(task.keys[0]), answers.get(task.order_id, ""))


def _note(news: News, known: dict[str, Row], answers: dict[str, str]) -> str:
    """Take the news in; the key of the home about which there is something new to judge by, if any."""
    from drawbar.rows import Gone
    from schemas.coupling import Row
    from schemas.records import JournalLine, home_key

    if isinstance(news, Gone):
        known.pop(news.key, None)
        return news.key
    if isinstance(news, Row):
        key = home_key(news.mapping, news.id)
        known[key] = news
        return key
    if isinstance(news, JournalLine) and news.event in ANSWERS and news.cause_id:
        answers.setdefault(news.cause_id, news.reason or news.event)  # what comes after it is what was decided then
        return home_key(news.mapping, news.home)
    return ""


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line now and then. On standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        told_at = [time.monotonic()]

        def tell(ended: int, total: int) -> None:
            if time.monotonic() - told_at[0] > TELL_EVERY_S:
                told_at[0] = time.monotonic()
                say(f"{title}: {ended} of {total}")

        yield tell
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)

        def show(ended: int, total: int) -> None:
            bar.update(task, completed=ended, total=total)

        yield show
