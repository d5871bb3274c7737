"""`drawbar sync rebaseline | settle`: what is read, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from drawbar.cli.sync import app
from drawbar.ports import OutMessage
from drawbar.rows import News
from schemas.coupling import RECORD, Emission, PairState, Row
from schemas.records import JournalLine, Order
from tests.cli.rows_fake import NOW, FakeRows, a_row, a_salesperson, a_user, order_in, run

COUPLED = a_row(erp=a_salesperson(), crm=a_user(), state=PairState.COUPLED)


def under(order: Order, *, reads: tuple[str, ...]) -> Row:
    """The row once its home took the order; `reads`: the systems whose record is still to be read."""
    line = JournalLine(
        line_id="l",
        at=NOW,
        mapping=COUPLED.mapping,
        home=COUPLED.id,
        event="rebasing",
        ref="",
        cause_id=order.order_id,
    )
    return replace(COUPLED, pair=replace(COUPLED.pair, rebasing=reads), last=Emission(lines=(line,)))


def read(*, reads: tuple[str, ...] = ()) -> Row:
    return replace(COUPLED, pair=replace(COUPLED.pair, rebasing=reads))


class TestRebaseline:
    def rebased(self, *rows: Row | tuple[str, ...]) -> str:
        """What it says while the home's row becomes these; a tuple: the row that took the order."""

        def answer(message: OutMessage) -> Sequence[News]:
            order = order_in(message)
            return [row if isinstance(row, Row) else under(order, reads=row) for row in rows]

        return run(app, "rebaseline", "--wait-s", "1", rows=FakeRows(known=[COUPLED], answer=answer)).err

    def test_waits_until_both_records_were_read(self):
        said = self.rebased(("erp", "crm"), read(reads=("crm",)), read())

        assert "rebaseline: 1 of 1 read" in said
        assert "not read yet" not in said

    def test_takes_no_row_of_before_for_its_answer(self):
        """A row that says nothing of the order is one that somebody else's message changed."""
        assert "1 pair not read yet" in self.rebased(read())

    def test_says_what_was_not_read_when_nothing_moves(self):
        assert "1 pair not read yet" in self.rebased(("crm",))


class TestSettle:
    DIFFERS = replace(COUPLED, pair=replace(COUPLED.pair, differs=("fullname",)))
    GONE = replace(COUPLED, pair=replace(COUPLED.pair, differs=(RECORD,)))

    def test_of_everything_is_not_done_unasked(self):
        rows = FakeRows(known=[self.DIFFERS])

        result = run(app, "settle", "--use", "erp", rows=rows)

        assert 2 == result.exit_code
        assert "nobody can be asked here" in result.err
        assert [] == rows.sent

    def test_tells_which_pairs_need_a_replay_instead(self):
        rows = FakeRows(known=[self.GONE])

        said = run(app, "settle", "--use", "erp", "--yes", rows=rows).err

        assert "0 pairs settled: erp" in said
        assert "1 pair of which a record is gone: drawbar dead-letters replay --use restore" in said
