"""`drawbar couplings match`, `undo`, `batches`: many pairs coupled by their criteria, and taken back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from drawbar.cli.couplings import app
from schemas.coupling import PairState, Row
from tests.cli.living_rows import LivingRows, a_person, its_user
from tests.cli.rows_fake import PEOPLE, FakeRows, a_row, a_salesperson, a_user, run, shipped

IDLE = ("--idle-s", "0.2")


def coupled(rows: FakeRows) -> dict[str, str]:
    """ERP id -> batch of the pairs that are coupled."""
    return {
        row.id: row.pair.batch for row in rows.known if row.pair is not None and row.pair.state is PairState.COUPLED
    }


def three_people() -> LivingRows:
    """Two with their users, and one whose address two users bear."""
    twin = its_user(2)
    assert twin.pair is not None
    assert twin.pair.crm is not None
    other = replace(twin.pair.crm, id="00005e70-0000-4000-8000-000000000099")
    people: list[Row] = [a_person(0), its_user(0), a_person(1), its_user(1), a_person(2), twin]
    return LivingRows(known=[*people, a_row(PEOPLE, crm=other)])


def batch_of(rows: FakeRows) -> str:
    (batch,) = set(coupled(rows).values())
    return batch


class TestMatch:
    def test_preview_names_matches_by_their_criterion_and_ambiguous_ones_apart(self):
        """Nothing is sent."""
        rows = three_people()

        result = run(app, "match", "--preview", rows=rows)

        assert (0, []) == (result.exit_code, rows.sent)
        assert "2  by email = internalemailaddress" in result.out
        assert "group 1: erp:salesperson:5a1e5000-0000-4000-8000-000000000012" in result.out

    def test_preview_as_json_is_a_line_for_each_pair_and_each_group(self):
        result = run(app, "match", "--preview", "--json", "--mapping", PEOPLE, rows=three_people())

        assert ["email = internalemailaddress"] * 2 == [line["by"] for line in result.json if "by" in line]
        assert [3] == [len(line["ambiguous"]) for line in result.json if "ambiguous" in line]

    def test_couples_under_one_batch(self):
        """The id is with each pair; who is ambiguous stays alone; no look-up is made in either system."""
        rows = three_people()

        result = run(app, "match", "--yes", *IDLE, rows=rows)

        assert 0 == result.exit_code
        assert {"5a1e5000-0000-4000-8000-000000000010", "5a1e5000-0000-4000-8000-000000000011"} == set(coupled(rows))
        assert f"coupled: 2 pairs of batch {batch_of(rows)}" in result.out
        assert {"update"} == {command.kind.value for command in rows.commands}

    def test_of_chosen_records_leaves_the_others(self):
        """R100: one salesperson, named by code."""
        rows = three_people()

        run(app, "match", "--record", "erp:salesperson:code=P1", "--yes", *IDLE, rows=rows)

        assert {"5a1e5000-0000-4000-8000-000000000011"} == set(coupled(rows))

    def test_asks_first(self):
        """No is no."""
        rows = three_people()

        result = run(app, "match", rows=rows, answers="n\n")

        assert (1, []) == (result.exit_code, rows.sent)

    def test_repeated_finds_nothing_more(self):
        rows = three_people()
        run(app, "match", "--yes", *IDLE, rows=rows)
        sent = len(rows.sent)

        result = run(app, "match", "--yes", *IDLE, rows=rows)

        assert (0, sent) == (result.exit_code, len(rows.sent))

    def test_says_which_were_not_coupled(self):
        """A home that does not answer: exit code 1, and what to look at."""
        rows = FakeRows(known=three_people().known)

        result = run(app, "match", "--yes", "--idle-s", "0", rows=rows)

        assert 1 == result.exit_code
        assert "not coupled: 2 pairs, not answered" in result.err

    def test_without_criteria_is_refused(self):
        """R102: the message asks for criteria."""
        mappings = {**shipped(), PEOPLE: shipped()[PEOPLE].model_copy(update={"match": ()})}

        result = run(app, "match", "--mapping", PEOPLE, rows=FakeRows(), mappings=mappings)

        assert 2 == result.exit_code
        assert "has no criteria" in result.err

    def test_of_a_table_of_codes_is_refused(self):
        result = run(app, "match", "--mapping", "payment-term", rows=FakeRows())

        assert 2 == result.exit_code
        assert "only looked up" in result.err


class TestUndo:
    def test_uncouples_just_the_pairs_of_the_batch(self):
        """Nothing else is touched: a pair coupled by hand stays, and no value is written."""
        rows = three_people()
        by_hand = a_row(PEOPLE, erp=a_salesperson(), crm=a_user(), state=PairState.COUPLED)
        rows.known = [*rows.known, by_hand]
        run(app, "match", "--yes", *IDLE, rows=rows)
        (batch,) = set(coupled(rows).values()) - {""}
        written = len(rows.commands)

        result = run(app, "undo", batch, "--yes", *IDLE, rows=rows)

        assert (0, {by_hand.id: ""}) == (result.exit_code, coupled(rows))
        assert f"uncoupled: 2 pairs of batch {batch}" in result.out
        assert written == len(rows.commands)

    def test_leaves_a_pair_that_was_coupled_anew(self):
        """The order says for which batch it is: the home looks."""
        rows = three_people()
        run(app, "match", "--yes", *IDLE, rows=rows)
        batch = batch_of(rows)
        stale = list(rows.known)
        run(app, "undo", batch, "--yes", *IDLE, rows=rows)
        run(app, "match", "--uncoupled", "--yes", *IDLE, rows=rows)
        behind = LivingRows(known=rows.known)
        behind.rows = lambda keys=None: {f"{row.mapping}:{row.id}": row for row in stale}  # type: ignore[method-assign]

        result = run(app, "undo", batch, "--yes", *IDLE, rows=behind)

        assert coupled(rows) == coupled(behind)
        assert (1, True) == (result.exit_code, "not-of-this-batch" in result.err)

    def test_of_an_unknown_batch_is_refused(self):
        result = run(app, "undo", "20260101-000000-abcd", "--yes", rows=FakeRows())

        assert 2 == result.exit_code
        assert "drawbar couplings batches" in result.err

    def test_is_not_matched_again_unless_asked_for(self):
        """What was taken back stays so (R126) until `--uncoupled`."""
        rows = three_people()
        run(app, "match", "--yes", *IDLE, rows=rows)
        run(app, "undo", batch_of(rows), "--yes", *IDLE, rows=rows)

        run(app, "match", "--yes", *IDLE, rows=rows)
        assert {} == coupled(rows)

        run(app, "match", "--uncoupled", "--yes", *IDLE, rows=rows)
        assert 2 == len(coupled(rows))


class TestBatches:
    def test_lists_what_is_still_coupled(self):
        rows = three_people()
        run(app, "match", "--yes", *IDLE, rows=rows)

        (line,) = run(app, "batches", "--json", rows=rows).json

        assert (batch_of(rows), PEOPLE, 2) == (line["batch"], line["mapping"], line["pairs"])

    @pytest.mark.parametrize("option", [(), ("--json",)], ids=["table", "json"])
    def test_says_that_there_are_none(self, option: tuple[str, ...]):
        result = run(app, "batches", *option, rows=FakeRows())

        assert (0, "") == (result.exit_code, result.out)
        assert "no pair" in result.err
