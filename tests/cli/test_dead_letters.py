"""`drawbar dead-letters`: filters, grouping, texts, and what is sent where."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from drawbar.cli.dead_letters import app, closing, code_named, fitting, grouped, next_step, one_letter
from drawbar.cli.running import age, parse_when
from drawbar.letters import letter_message
from drawbar.ports import InMessage, OutMessage
from schemas.codec import decode, encode
from schemas.coupling import Emission, Hold, InFlight, Row
from schemas.errors import (
    AmbiguousMatch,
    CounterpartDeleted,
    OwnerNotCoupled,
    ReferenceNotCoupled,
    Rejected,
    Undecodable,
    UpdateConflict,
    UsageError,
)
from schemas.records import (
    ChangeEvent,
    Command,
    CommandKind,
    DeadLetter,
    LetterState,
    Operation,
    OrderKind,
    RecordRef,
    System,
    Work,
)
from tests.cli.rows_fake import (
    CONTOSO,
    CUSTOMERS,
    JR,
    NOW,
    FakeRows,
    a_letter,
    a_row,
    a_side,
    discarded,
    order_in,
    run,
    shipped,
)

ONE, TWO, THREE = (f"{digit}e77e400-0000-4000-8000-000000000001" for digit in "123")
LIST_FIELDS = "id code mapping ref missing cause opened_at age_s topic partition offset state next_step"
FABRIKAM = "fab11ca0-0000-4000-8000-000000000001"
BROKEN = a_letter(THREE, error=Undecodable, missing="", ref="", home="", mapping="", direction="", topic="erp.commands")


def kept(letter: DeadLetter, value: bytes = b"\x00garbage", key: bytes = b"any key") -> InMessage:
    """The message of a letter, as its stage set it aside."""
    message = letter_message(
        letter, key=key, value=value, headers=(("traceparent", b"00-1"),), stage="sink-erp", partition=3, offset=41
    )
    return InMessage(topic=message.topic, partition=0, offset=7, key=key, value=value, headers=message.headers)


class TestParseWhen:
    NOW = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)

    @pytest.mark.parametrize(
        ("text", "ago"),
        [
            ("90s", timedelta(seconds=90)),
            ("10m", timedelta(minutes=10)),
            ("2h", timedelta(hours=2)),
            ("1.5d", timedelta(days=1.5)),
        ],
    )
    def test_reads_how_long_ago(self, text, ago):
        """A number and s, m, h or d."""
        assert self.NOW - ago == parse_when(text, now=self.NOW)

    def test_reads_iso_in_utc_unless_it_says_otherwise(self):
        """A time zone in the text stands."""
        assert datetime(2026, 3, 1, tzinfo=timezone.utc) == parse_when("2026-03-01", now=self.NOW)
        assert datetime(2026, 3, 1, 8, tzinfo=timezone.utc) == parse_when("2026-03-01T09:00+01:00", now=self.NOW)
        assert datetime(2026, 3, 1, 9, tzinfo=timezone.utc) == parse_when("2026-03-01T09:00:00Z", now=self.NOW)

    @pytest.mark.parametrize("text", ["", "yesterday", "10", "10 weeks", "-5m"])
    def test_refuses_the_rest(self, text):
        """With an example."""
        with pytest.raises(UsageError, match="ISO 8601"):
            parse_when(text, now=self.NOW)


class TestAge:
    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 m"), (7199, "120 m"), (7200, "2 h"), (172800, "2 d")],
    )
    def test_is_said_in_the_unit_that_has_two(self, seconds, said):
        """`119 s` says more than `1 m`."""
        assert said == age(NOW - timedelta(seconds=seconds), NOW)


class TestCodeNamed:
    def test_takes_code_and_slug(self):
        """The two names of an error."""
        assert "DRW-3001" == code_named("DRW-3001") == code_named("drw-3001") == code_named("owner-not-coupled")

    def test_suggests(self):
        """A typing error gets the nearest name."""
        with pytest.raises(UsageError) as refused:
            code_named("owner-not-couplet")

        assert "did you mean 'owner-not-coupled'?" == refused.value.todo


class TestOneLetter:
    LETTERS: ClassVar = {ONE: a_letter(ONE), TWO: a_letter(TWO)}

    def test_takes_the_beginning_of_an_id(self):
        """Six characters, as the list shows them."""
        assert ONE == one_letter(self.LETTERS, "1e77e4").letter_id
        assert TWO == one_letter(self.LETTERS, TWO.upper()).letter_id

    @pytest.mark.parametrize("text", ["1e77", "9e77e400", ""])
    def test_refuses_what_names_none(self, text):
        """Too short names nothing, lest it name another tomorrow."""
        with pytest.raises(UsageError, match="no letter has the id"):
            one_letter(self.LETTERS, text)


class TestGrouped:
    def test_letters_of_one_cause_are_one_group(self):
        """One uncoupled owner with many dependants is one entry; the largest comes first."""
        many = [a_letter(f"{number}", age_s=number) for number in (10, 90, 30)]
        alone = a_letter(error=UpdateConflict, missing="", age_s=500)

        first, second = grouped([alone, *sorted(many, key=lambda letter: letter.opened_at)])

        assert ("DRW-3001", 3, "90") == (first.code, len(first.letters), first.letters[0].letter_id)
        assert (alone,) == second.letters


class TestNextStep:
    def test_is_a_command_that_lacks_nothing_but_the_other_id(self):
        """What is missing and the kind of its counterpart are filled in."""
        assert (
            f"drawbar couplings couple erp:salesperson:{JR} crm:systemuser:internalemailaddress=…; what waits for it then "
            "goes on by itself" == next_step(a_letter(), shipped())
        )

    def test_of_the_company_is_to_make_its_row(self):
        """Nothing can be coupled with it."""
        letter = a_letter(error=ReferenceNotCoupled, missing="crm:bcbi_company:c-1")

        assert "bcbi_company with c-1 in bcbi_externalid" in next_step(letter, shipped())

    def test_of_a_value_names_the_record_that_bears_it(self):
        """A person of the ERP names the company by the number of its contact."""
        letter = a_letter(error=ReferenceNotCoupled, missing="customer-account.companyContactNumber:CT1")

        assert "drawbar explain erp:customer:companyContactNumber=CT1" in next_step(letter, shipped())

    def test_of_an_ambiguous_match_can_be_typed(self):
        """A command for each record that might be meant, with real refs, whichever side they are on."""
        letter = a_letter(error=AmbiguousMatch, missing="crm:account:a")
        back = a_letter(error=AmbiguousMatch, ref="crm:account:a", missing="erp:customer:x")

        assert (
            f"drawbar couplings couple {letter.ref} crm:account:a; or drawbar couplings couple {letter.ref} crm:account:b; "
            f"drawbar explain {letter.ref} lists all that match"
        ) == next_step(letter, shipped(), ("crm:account:a", "crm:account:b"))
        assert next_step(back, shipped(), ("erp:customer:x",)).startswith(
            "drawbar couplings couple erp:customer:x crm:account:a; "
        )

    def test_what_no_coupling_would_clear_keeps_its_own_text(self):
        """A business key that nobody knows, a row that is only looked up."""
        for missing in ("salesperson-systemuser:XX", f"erp:paymentTerm:{JR}"):
            assert OwnerNotCoupled.next_step == next_step(a_letter(missing=missing), shipped())

    def test_names_the_letter(self):
        """`--id ID` becomes the letter's own."""
        assert f"--id {ONE} --use erp" in next_step(a_letter(ONE, error=UpdateConflict, missing=""), shipped())


class TestFitting:
    def test_a_choice_reaches_only_what_it_is_for(self):
        """`propagate` deletes a record: it must not reach one that merely waits."""
        waits, gone = a_letter(ONE), a_letter(TWO, error=CounterpartDeleted)

        assert ([gone], [waits]) == fitting([waits, gone], "propagate")
        assert ([waits, gone], []) == fitting([waits, gone], None)


class TestList:
    ROWS = FakeRows(
        opened=[
            a_letter(ONE, age_s=7200),
            a_letter(TWO, home=FABRIKAM, age_s=60),
            BROKEN,
            discarded(a_letter("4e77e400-0000-4000-8000-000000000001", error=Rejected, missing="")),
        ],
        kept={THREE: kept(BROKEN)},
    )

    def test_json_is_one_object_a_line(self):
        """The fields that others rely on; `topic`, `partition` and `offset` are those of the message that failed."""
        line = next(line for line in run(app, "list", "--json", rows=self.ROWS).json if line["id"] == THREE)

        assert set(LIST_FIELDS.split()) <= set(line)
        assert ("DRW-3010", "undecodable", "open") == (line["code"], line["slug"], line["state"])
        assert ("erp.commands", 3, 41, "dead-letters[0]@7") == (
            line["topic"],
            line["partition"],
            line["offset"],
            line["kept_at"],
        )
        assert 0 <= line["age_s"] < 3600  # the rows were made when the tests were collected

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ([], {ONE, TWO, THREE}),
            (["--code", "owner-not-coupled"], {ONE, TWO}),
            (["--code", "DRW-3010"], {THREE}),
            (["--mapping", CUSTOMERS], {ONE, TWO}),
            (["--ref", f"erp:customer:{FABRIKAM}"], {TWO}),
            (["--since", "1h"], {TWO, THREE}),
            (["--until", "1h"], {ONE}),
            (["--state", "discarded"], {"4e77e400-0000-4000-8000-000000000001"}),
            (["--state", "all", "--code", "rejected"], {"4e77e400-0000-4000-8000-000000000001"}),
            (["--code", "owner-not-coupled", "--since", "1h"], {TWO}),
        ],
    )
    def test_filters_hold_together(self, options, found):
        """Open letters unless another state is named."""
        assert found == {line["id"] for line in run(app, "list", "--json", *options, rows=self.ROWS).json}

    def test_a_record_may_be_named_by_its_business_key(self):
        """Then the rows are read to find its id."""
        rows = FakeRows(opened=self.ROWS.opened, known=[a_row(CUSTOMERS, erp=a_side(FABRIKAM, number="C-10"))])

        assert [TWO] == [
            line["id"] for line in run(app, "list", "--json", "--ref", "erp:customer:number=C-10", rows=rows).json
        ]

    def test_people_see_causes(self):
        """Two dependants of one salesperson are one entry, with the oldest age and what to do."""
        out = run(app, "list", rows=self.ROWS).out

        assert "DRW-3001 owner-not-coupled   2 x   customer-account   oldest 2 h" in out
        assert f"drawbar couplings couple erp:salesperson:{JR} crm:systemuser:internalemailaddress=…\n" in out
        assert f"erp:customer:{FABRIKAM}" not in out

    def test_people_see_what_an_ambiguous_match_is(self):
        """Several records are there: nothing is missing. The home knows them all."""
        found = (f"crm:account:{JR}", f"crm:account:{FABRIKAM}")
        hold = Hold(
            code=AmbiguousMatch.code, slug=AmbiguousMatch.slug, order=1, since=NOW, letter_id=ONE, missing=found
        )
        rows = FakeRows(
            known=[a_row(CUSTOMERS, erp=a_side(CONTOSO, number="C-1"), holds={"to_crm": hold})],
            opened=[a_letter(ONE, error=AmbiguousMatch, missing=found[0])],
        )

        out, (line,) = run(app, "list", rows=rows).out, run(app, "list", "--json", rows=rows).json

        assert f"  matches  {found[0]}\n           {found[1]}\n" in out
        assert f"  do       drawbar couplings couple erp:customer:{CONTOSO} {found[0]}\n" in out
        assert "missing" not in out
        assert list(found) == line["candidates"]

    def test_people_see_what_may_be_done_about_a_deleted_counterpart(self):
        """A sentence for each choice."""
        letter = a_letter(ONE, error=CounterpartDeleted, missing="", detail=f"crm:account:{JR} was deleted")

        out = run(app, "list", rows=FakeRows(opened=[letter])).out

        assert f"  detail   crm:account:{JR} was deleted\n" in out
        assert f"  do       drawbar dead-letters replay --id {ONE} --use restore\n" in out
        assert "--use propagate deletes it, too" in out

    def test_people_see_single_letters_when_asked(self):
        """`--each`, with the beginning of each id."""
        out = run(app, "list", "--each", rows=self.ROWS).out

        (line,) = [line for line in out.splitlines() if f"erp:customer:{FABRIKAM}" in line]
        assert line.strip().startswith(TWO[:8])

    def test_no_line_is_wider_than_a_terminal(self, monkeypatch: pytest.MonkeyPatch):
        """What is to be typed stays whole."""
        monkeypatch.setenv("COLUMNS", "80")
        many = [f"mapping-number-{number}" for number in range(9)]
        letters = [a_letter(str(number), mapping=name, home=name) for number, name in enumerate(many)]
        gone = a_letter(error=CounterpartDeleted, missing="", detail="gone " * 30, fields=tuple(many))
        rows = FakeRows(opened=[*self.ROWS.opened, *letters, gone])

        out = run(app, "list", "--each", rows=rows).out + run(app, "show", gone.letter_id, rows=rows).out

        assert 80 >= max(len(line) for line in out.splitlines() if " drawbar " not in line)

    @pytest.mark.parametrize(
        "options", [["--code", "nonsense"], ["--since", "soon"], ["--mapping", "x"], ["--ref", "x"]]
    )
    def test_a_filter_that_means_nothing_is_refused(self, options):
        """Exit code 2, and never an empty list that looks like good news."""
        assert 2 == run(app, "list", *options, rows=self.ROWS).exit_code


class TestShow:
    EVENT = ChangeEvent(
        event_id="e-1",
        ref=RecordRef(System.ERP, "customer", CONTOSO),
        operation=Operation.CHANGE,
        version='W/"9"',
        order=9,
        modified_at=NOW,
        captured_at=NOW,
        after={"displayName": "Contoso", "phoneNumber": "555"},
    )

    def test_tells_the_message_but_no_values(self):
        """Which change it was and of which fields; what they hold only when asked for."""
        letter = a_letter(ONE)
        value = encode(Work(message_id="m-1", mapping=CUSTOMERS, home=CONTOSO, change=self.EVENT))
        rows = FakeRows(opened=[letter], kept={ONE: kept(letter, value)})

        plain, shown = run(app, "show", ONE[:8], rows=rows).out, run(app, "show", ONE, "--values", rows=rows).out

        assert f"{len(value)} bytes, ChangeEvent" in plain
        assert "displayName, phoneNumber" in plain
        assert "drawbar.code: DRW-3001" in plain
        assert "Contoso" not in plain
        assert "displayName = Contoso" in shown

    def test_bytes_that_nobody_can_read_are_told_by_their_size(self):
        """And by the place that they came from."""
        rows = FakeRows(opened=[BROKEN], kept={THREE: kept(BROKEN)})

        message = run(app, "show", THREE, "--json", rows=rows).json[0]["message"]

        assert ("unreadable", 8, "any key") == (message["kind"], message["size"], message["key"])
        assert "41" == message["headers"]["drawbar.offset"]


class TestReplay:
    def test_asks_each_home_to_decide_again(self):
        """A RETRY to the home of the letter, never an old value."""
        rows = FakeRows(opened=[a_letter(ONE), a_letter(TWO, home=FABRIKAM)])

        result = run(app, "replay", "--yes", "--wait-s", "0", "--json", rows=rows)

        assert [
            (f"{CUSTOMERS}:{CONTOSO}", OrderKind.RETRY, ONE),
            (f"{CUSTOMERS}:{FABRIKAM}", OrderKind.RETRY, TWO),
        ] == [(key, order.kind, order.letter_id) for key, order in rows.orders]
        assert [(ONE, "retry"), (TWO, "retry")] == [(line["id"], line["action"]) for line in result.json]

    def test_shows_the_plan_and_asks_first(self):
        """A no sends nothing; a yes sends."""
        rows = FakeRows(opened=[a_letter(ONE)])

        refused = run(app, "replay", rows=rows, answers="n\n")
        assert (1, []) == (refused.exit_code, rows.sent)
        assert "1 letter will be decided again" in refused.err

        assert 0 == run(app, "replay", "--wait-s", "0", rows=rows, answers="y\n").exit_code
        assert 1 == len(rows.sent)

    def test_for_a_script_it_must_be_said_beforehand(self):
        """With `--json` and nobody to ask, nothing is sent without `--yes`."""
        rows = FakeRows(opened=[a_letter(ONE)])

        result = run(app, "replay", "--json", rows=rows)

        assert (2, []) == (result.exit_code, rows.sent)
        assert "say --yes" in result.err

    def test_takes_the_oldest_up_to_the_limit_and_tells_the_rest(self):
        """100 unless told otherwise."""
        rows = FakeRows(opened=[a_letter(ONE, age_s=10), a_letter(TWO, age_s=99)])

        result = run(app, "replay", "--yes", "--wait-s", "0", "--limit", "1", rows=rows)

        assert [TWO] == [order.letter_id for _, order in rows.orders]
        assert "1 letter more" in result.err

    def test_a_choice_goes_with_the_order_and_only_where_it_fits(self):
        """`--use restore` is for a deleted counterpart."""
        rows = FakeRows(opened=[a_letter(ONE), a_letter(TWO, error=CounterpartDeleted)])

        result = run(app, "replay", "--yes", "--wait-s", "0", "--use", "restore", rows=rows)

        assert [(TWO, "restore")] == [(order.letter_id, order.use) for _, order in rows.orders]
        assert "left out: 1 letter" in result.err

    def test_bytes_that_no_home_saw_are_sent_again_as_they_are(self):
        """No order: there is no home that knows of them. Our own headers are taken off."""
        rows = FakeRows(opened=[BROKEN], kept={THREE: kept(BROKEN)})

        result = run(app, "replay", "--yes", "--wait-s", "0", rows=rows)

        message = OutMessage(
            topic="erp.commands", key=b"any key", value=b"\x00garbage", headers=(("traceparent", b"00-1"),)
        )
        assert (0, [(THREE, (message,))], []) == (result.exit_code, rows.sent_again, rows.sent)

    def test_a_change_goes_to_its_homes_and_never_into_the_topic_of_changes(self):
        """Capture is its only writer: an old change would stand there as the newest."""
        letter = replace(BROKEN, topic="erp.customer.changes")
        rows = FakeRows(opened=[letter], kept={THREE: kept(letter, encode(TestShow.EVENT))})

        result = run(app, "replay", "--yes", "--wait-s", "0", rows=rows)

        ((letter_id, (message,)),) = rows.sent_again
        assert (0, THREE, "pairs.work") == (result.exit_code, letter_id, message.topic)
        assert (f"{CUSTOMERS}:{CONTOSO}".encode(), TestShow.EVENT) == (message.key, decode(Work, message.value).change)

    def test_a_change_that_can_still_not_be_read_stays_open(self):
        """Exit code 1, and nothing is sent."""
        letter = replace(BROKEN, topic="erp.customer.changes")
        rows = FakeRows(opened=[letter], kept={THREE: kept(letter)})

        result = run(app, "replay", "--yes", "--wait-s", "0", rows=rows)

        assert (1, []) == (result.exit_code, rows.sent_again)
        assert "can still not be read" in result.err

    def test_bytes_that_are_no_longer_kept_are_told(self):
        """Exit code 1: not everything was done."""
        result = run(app, "replay", "--yes", "--wait-s", "0", rows=FakeRows(opened=[BROKEN]))

        assert 1 == result.exit_code
        assert THREE in result.err

    def test_a_filter_that_nothing_passes_fails(self):
        """Exit code 1: whoever named a letter meant one. Nobody is asked, nothing is sent."""
        rows = FakeRows(opened=[a_letter(ONE)])

        nothing = run(app, "replay", "--yes", "--wait-s", "0", rows=FakeRows())
        wrong = run(app, "replay", "--use", "restore", rows=rows)

        assert (1, "") == (nothing.exit_code, nothing.out)
        assert "nothing was replayed: no dead letter passes these filters" in nothing.err
        assert (1, []) == (wrong.exit_code, rows.sent)
        assert "left out: 1 letter" in wrong.err

    def test_a_letter_that_was_given_up_can_be_taken_up_again(self):
        """`--state discarded`."""
        rows = FakeRows(opened=[discarded(a_letter(ONE))])

        run(app, "replay", "--yes", "--wait-s", "0", "--state", "discarded", "--id", ONE[:8], rows=rows)

        assert [ONE] == [order.letter_id for _, order in rows.orders]


class TestFollowing:
    """`--wait-s`: what became of each letter."""

    HOLD = Hold(code=OwnerNotCoupled.code, slug=OwnerNotCoupled.slug, order=1, since=NOW, letter_id=ONE)

    def answering(self, **pair: Any) -> FakeRows:
        """Homes that answer a retry with a row of theirs."""

        def answer(message: OutMessage) -> list[Row]:
            row = a_row(CUSTOMERS, erp=a_side(CONTOSO, number="C-1"), **pair)
            return [replace(row, last=Emission(cause_id=order_in(message).order_id))]

        return FakeRows(opened=[a_letter(ONE)], answer=answer)

    def test_a_letter_whose_hold_is_gone_is_closed(self):
        result = run(app, "replay", "--yes", rows=self.answering())

        assert (0, f"  closed          1e77e400  erp:customer:{CONTOSO}\n1 closed\n") == (result.exit_code, result.out)

    def test_a_letter_that_is_held_again_is_open_with_its_code(self):
        """Exit code 1, and the cause of now."""
        hold = replace(self.HOLD, code=UpdateConflict.code, slug=UpdateConflict.slug)
        rows = self.answering(holds={"to_crm": hold})

        told, data = run(app, "replay", "--yes", rows=rows), run(app, "replay", "--yes", "--json", rows=rows)

        assert 1 == told.exit_code == data.exit_code
        assert "open again" in told.out
        assert "DRW-3004 update-conflict" in told.out
        ((result, code),) = [(line["result"], line["code_now"]) for line in data.json]
        assert ("open", "DRW-3004") == (result, code)

    def test_a_letter_whose_write_is_under_way_is_pending(self):
        """No failure: it goes on by itself."""
        command = Command(
            command_id="c-1",
            mapping=CUSTOMERS,
            home=CONTOSO,
            kind=CommandKind.UPDATE,
            target=RecordRef(System.CRM, "account", JR),
            issued_at=NOW,
        )
        rows = self.answering(
            holds={"to_crm": self.HOLD}, in_flight=InFlight(command=command, direction="to_crm", sent_at=NOW)
        )

        result = run(app, "replay", "--yes", "--wait-s", "0.05", rows=rows)

        assert (0, "1 pending") == (result.exit_code, result.out.splitlines()[-1])
        assert "drawbar status" in result.err

    def test_a_home_that_does_not_answer_leaves_its_letter_pending(self):
        """News of other orders are no answer."""
        held = a_row(CUSTOMERS, erp=a_side(CONTOSO, number="C-1"))
        rows = FakeRows(opened=[a_letter(ONE)], answer=lambda _: [held])

        assert "1 pending" in run(app, "replay", "--yes", "--wait-s", "0.05", rows=rows).out

    def test_a_later_success_closes(self):
        """The index is the last word, whatever the row said before."""
        closed = replace(a_letter(ONE), state=LetterState.CLOSED)
        rows = FakeRows(opened=[a_letter(ONE)], answer=lambda _: [closed])

        assert (0, "1 closed") == (
            (result := run(app, "replay", "--yes", rows=rows)).exit_code,
            result.out.splitlines()[-1],
        )

    def test_what_was_given_up_and_is_no_different_is_told(self):
        """The home opens no second letter for the same cause."""
        rows = self.answering(holds={"to_crm": replace(self.HOLD, letter_id="")})
        rows.opened = [discarded(a_letter(ONE))]

        result = run(app, "replay", "--yes", "--state", "discarded", rows=rows)

        assert (1, "1 still given up") == (result.exit_code, result.out.splitlines()[-1])

    def test_zero_seconds_only_send(self):
        rows = FakeRows(opened=[a_letter(ONE)])

        result = run(app, "replay", "--yes", "--wait-s", "0", rows=rows)

        assert (0, "1 sent", 1) == (result.exit_code, result.out.splitlines()[-1], len(rows.sent))


class TestDiscard:
    HELD = a_row(
        CUSTOMERS,
        erp=a_side(CONTOSO, number="C-1"),
        holds={"to_crm": Hold(code=OwnerNotCoupled.code, slug=OwnerNotCoupled.slug, order=1, since=NOW, letter_id=ONE)},
    )

    def test_asks_the_home_that_holds_it_and_waits(self):
        """The home gives it up and writes the index."""
        letter = a_letter(ONE)
        rows = FakeRows(known=[self.HELD], opened=[letter], answer=lambda _: [discarded(letter)])

        result = run(app, "discard", "--yes", rows=rows)

        assert [(OrderKind.CLOSE, ONE)] == [(order.kind, order.letter_id) for _, order in rows.orders]
        assert (0, "discarded: 1 letter\n") == (result.exit_code, result.out)

    def test_fails_when_no_home_answers(self):
        """The order stands; the person is told to look at the stages."""
        rows = FakeRows(known=[self.HELD], opened=[a_letter(ONE)])

        result = run(app, "discard", "--yes", "--wait-s", "0.05", rows=rows)

        assert 1 == result.exit_code
        assert "drawbar status" in result.err

    def test_what_no_home_holds_is_given_up_in_the_index(self):
        """Bytes that nobody could read: their place is kept."""
        rows = FakeRows(opened=[BROKEN])

        result = run(app, "discard", "--yes", rows=rows)

        (message,) = rows.sent
        given_up = decode(DeadLetter, message.value)
        assert ("dead-letters.index", THREE.encode(), 0) == (message.topic, message.key, result.exit_code)
        assert (LetterState.DISCARDED, "operator", 0, 7) == (
            given_up.state,
            given_up.changed_by,
            given_up.partition,
            given_up.offset,
        )

    def test_who_gives_it_up_depends_on_the_row(self):
        """A letter whose hold is gone has no home that would answer."""
        rows = {f"{CUSTOMERS}:{CONTOSO}": self.HELD}

        assert ("close", "index", "index") == (
            closing(a_letter(ONE), rows),
            closing(a_letter(TWO), rows),
            closing(BROKEN, rows),
        )

    def test_a_no_gives_nothing_up(self):
        """It asks first."""
        rows = FakeRows(known=[self.HELD], opened=[a_letter(ONE)])

        assert (1, []) == (run(app, "discard", rows=rows, answers="n\n").exit_code, rows.sent)
