"""What a process sees of rows: its own as it writes them, those of others as they lie in the topic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from processors.feed import Seen, ViewFeed
from processors.tables import Kept, Receipt
from schemas.codec import to_json
from schemas.coupling import Row
from schemas.topics import COUPLINGS
from tests.builders import a_pair
from tests.processors_shell.running import Running

pytestmark = pytest.mark.kafka

OURS = 1  # the partition that the process owns
THEIRS = 2


class Watching:
    """A feed in an event loop, and the ids of the rows that it handed on, in order."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.seen: list[str] = []
        self.feed = ViewFeed(running.settings.bus, client_id="feed-test", on_seen=self._take)

    def _take(self, seen: Seen) -> None:
        self.seen += [row.id for row in seen.rows]

    def lies(self, row_id: str, *, partition: int) -> Kept:
        """A row that is written to the topic, by whomever."""
        row = Row(mapping="m", id=row_id, pair=a_pair())
        kept = Kept(f"m:{row_id}".encode(), row, to_json(row), partition, Receipt())
        producer = self._running.producer
        producer.produce(COUPLINGS, value=kept.text, key=kept.key, partition=partition, on_delivery=kept.receipt)
        producer.flush(10)
        return kept

    async def until(self, condition: Callable[[], bool]) -> None:
        """Raises TimeoutError."""

        async def comes() -> None:
            while not condition():  # noqa: ASYNC110 - it is another thread that makes it true
                await asyncio.sleep(0.02)

        await asyncio.wait_for(comes(), 20)


def watched(running: Running, course: Callable[[Watching], Awaitable[None]]) -> Watching:
    async def main() -> Watching:
        watching = Watching(running)
        watching.feed.start()
        try:
            await watching.feed.caught_up()
            await course(watching)
        finally:
            await watching.feed.stop()
        return watching

    return asyncio.run(main())


class TestOwnRows:
    def test_are_handed_on_at_once_and_not_read_from_the_topic(self, running: Running):
        """The row of another partition comes through the topic; by then the own one would have, too."""

        async def course(watching: Watching) -> None:
            await watching.feed.leave([OURS])
            watching.feed.wrote([watching.lies("ours", partition=OURS)])
            assert ["ours"] == watching.seen
            watching.lies("theirs", partition=THEIRS)
            await watching.until(lambda: "theirs" in watching.seen)

        assert ["ours", "theirs"] == watched(running, course).seen

    def test_are_read_again_by_a_process_that_lost_them_from_behind_the_last_acknowledged_one(self, running: Running):
        """What was written after the last acknowledgement may have another owner's rows before it."""

        async def course(watching: Watching) -> None:
            await watching.feed.leave([OURS])
            acknowledged = [watching.lies("first", partition=OURS)]
            watching.feed.wrote(acknowledged)
            watching.feed.passed(acknowledged)
            watching.lies("of-the-next-owner", partition=OURS)
            watching.feed.wrote([watching.lies("too-late", partition=OURS)])
            watching.feed.follow()
            await watching.until(lambda: watching.seen.count("too-late") == 2)

        assert ["first", "too-late", "of-the-next-owner", "too-late"] == watched(running, course).seen

    def test_with_a_row_of_somebody_else_between_are_read_again_from_there(self, running: Running):
        """The owner before may have been cut off with a row under way, which the broker takes whenever it comes."""

        async def course(watching: Watching) -> None:
            await watching.feed.leave([OURS])
            late = watching.lies("of-the-owner-before", partition=OURS)
            acknowledged = [watching.lies("ours", partition=OURS)]
            watching.feed.wrote(acknowledged)
            watching.feed.passed(acknowledged)
            assert late.receipt.offset < acknowledged[0].receipt.offset
            watching.feed.follow()
            await watching.until(lambda: watching.seen.count("ours") == 2)

        assert ["ours", "of-the-owner-before", "ours"] == watched(running, course).seen

    def test_are_not_left_when_they_go_while_that_is_under_way(self, running: Running):
        """Partitions may be taken away at any moment."""

        async def course(watching: Watching) -> None:
            leaving = asyncio.ensure_future(watching.feed.leave([OURS]))
            await asyncio.sleep(0)
            watching.feed.follow()
            await asyncio.wait_for(leaving, 5)
            watching.lies("theirs", partition=OURS)
            await watching.until(lambda: "theirs" in watching.seen)

        watched(running, course)

    def test_count_as_rows_that_are_known(self, running: Running):
        """Whoever takes partitions over compares its rows with those of the view, its own included."""

        async def course(watching: Watching) -> None:
            await watching.feed.leave([OURS])
            kept = watching.lies("ours", partition=OURS)
            watching.feed.wrote([kept])
            watching.feed.passed([kept])
            assert kept.text is not None
            assert 0 == watching.feed.differing([(kept.key, kept.text)], {OURS})
            assert 1 == watching.feed.differing([(kept.key, kept.text + b" ")], {OURS})
            await asyncio.wait_for(watching.feed.reached({OURS: kept.receipt.offset + 1}), 5)
            watching.feed.wrote([Kept(kept.key, None, None, OURS, kept.receipt)])
            assert 0 == watching.feed.rows

        watched(running, course)
