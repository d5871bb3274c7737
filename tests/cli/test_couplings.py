"""`drawbar couplings`: lists, names of records, couple and uncouple."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from drawbar.cli.couplings import UncoupleJudge, app, pair_lines
from drawbar.rows import Gone, Named, find, find_one, holder_of, parse_named
from schemas.coupling import Hold, Home, PairState, Row
from schemas.errors import UsageError
from schemas.records import Order, OrderKind, System
from tests.cli.rows_fake import (
    CUSTOMERS,
    JANE,
    JR,
    NOW,
    PEOPLE,
    PETE,
    PS,
    FakeRows,
    a_line,
    a_row,
    a_salesperson,
    a_side,
    a_user,
    order_in,
    run,
    shipped,
)

ERP_ALONE = a_row(erp=a_salesperson())
CRM_ALONE = a_row(crm=a_user())
COUPLED = a_row(erp=a_salesperson(), crm=a_user(), state=PairState.COUPLED)


def by_key(*rows: Row) -> dict[str, Row]:
    return {f"{row.mapping}:{row.id}": row for row in rows}


class TestParseNamed:
    def test_reads_an_id(self):
        """`system:entity:id`, the id in lower case as rows have it."""
        assert Named(System.ERP, "customer", id="abc-1") == parse_named("erp:customer:ABC-1")

    def test_reads_a_business_key(self):
        """Everything after the first `=` is the value, blanks at its ends aside."""
        assert Named(System.CRM, "systemuser", field="fullname", value="a=b:c") == parse_named(
            "crm:systemuser:fullname= a=b:c "
        )

    @pytest.mark.parametrize(
        "text", ["", "erp", "erp:customer", "erp:customer:", "sap:customer:1", "erp::1", "erp:customer:=x"]
    )
    def test_refuses_what_names_no_record(self, text):
        """The message says how a record is named."""
        with pytest.raises(UsageError) as refused:
            parse_named(text)

        assert "erp:salesperson:code=JR" in refused.value.todo

    def test_is_told_without_its_value(self):
        """A value can be personal data: it is not repeated in a message."""
        assert "crm:systemuser:internalemailaddress=…" == str(parse_named("crm:systemuser:internalemailaddress=a@b.c"))


class TestFind:
    def test_finds_by_any_captured_field_whatever_its_case(self):
        """Any field that is captured may name a record."""
        rows = by_key(ERP_ALONE, CRM_ALONE)

        assert [JR] == [
            known.ref.id for known in find(parse_named("erp:salesperson:code=jr"), rows, shipped().values())
        ]
        assert [JANE] == [
            known.ref.id for known in find(parse_named("crm:systemuser:fullname=JANE ROE"), rows, shipped().values())
        ]

    def test_finds_a_crm_record_in_the_row_of_its_pair(self):
        """A coupled CRM record has its state at the home of the ERP record."""
        (known,) = find(parse_named(f"crm:systemuser:{JANE}"), by_key(COUPLED), shipped().values())

        assert COUPLED is known.row

    def test_finds_a_record_that_was_uncoupled_and_has_no_pair(self):
        """An evicted CRM record is known at its own home."""
        row = Row(mapping=PEOPLE, id=JANE, home=Home(belongs_to="", evicted=a_user()))

        assert 1 == len(find(parse_named(f"crm:systemuser:{JANE}"), by_key(row), shipped().values()))

    def test_a_business_key_names_no_deleted_record(self):
        """Its number may have been given to another since."""
        rows = by_key(a_row(erp=a_side(JR, deleted=True, code="JR")), a_row(erp=a_salesperson(PS)))

        assert [PS] == [
            known.ref.id for known in find(parse_named("erp:salesperson:code=JR"), rows, shipped().values())
        ]

    def test_a_field_that_is_not_captured_is_told_with_the_nearest(self):
        """A typing error in a field name gets a suggestion."""
        with pytest.raises(UsageError) as refused:
            find(parse_named("erp:salesperson:cod=JR"), {}, shipped().values())

        assert "did you mean 'code'?" == refused.value.todo

    def test_an_entity_that_no_mapping_has_is_told_with_the_nearest(self):
        """Likewise an entity."""
        with pytest.raises(UsageError) as refused:
            find(parse_named("erp:salespersons:code=JR"), {}, shipped().values())

        assert "did you mean 'salesperson'?" == refused.value.todo

    def test_one_of_several_must_be_named_by_its_id(self):
        """Two records of one name are listed by id, never guessed."""
        rows = by_key(ERP_ALONE, a_row(erp=a_salesperson(PS, code="PS")))

        with pytest.raises(UsageError) as refused:
            find_one(parse_named("erp:salesperson:displayName=Jo Roe"), rows, shipped().values())

        assert "2 records are known as erp:salesperson:displayName=…" == refused.value.message
        assert f"erp:salesperson:{JR}, erp:salesperson:{PS}" in refused.value.todo


class TestHolderOf:
    def test_is_the_row_whose_pair_is_coupled_with_the_record(self):
        """A pair that is only claiming holds nothing yet."""
        claiming = a_row(erp=a_salesperson(PS), crm=a_user(PETE), state=PairState.CLAIMING)
        rows = by_key(COUPLED, claiming)

        assert COUPLED == holder_of(rows, PEOPLE, JANE)
        assert None is holder_of(rows, PEOPLE, PETE)
        assert None is holder_of(rows, CUSTOMERS, JANE)


class TestList:
    def test_json_is_one_object_a_line(self):
        """`mapping`, `erp_id`, `crm_id`, `state`, `coupled_at`: an interface."""
        result = run(app, "list", "--json", rows=FakeRows(known=[COUPLED]))

        assert [
            {
                "mapping": PEOPLE,
                "erp_id": JR,
                "crm_id": JANE,
                "state": "coupled",
                "coupled_at": COUPLED.pair.coupled_at.isoformat(),
            }
        ] == result.json
        assert 0 == result.exit_code

    def test_lists_coupled_pairs_unless_told_otherwise(self):
        """`--state` names another state, `--all` every one."""
        rows = FakeRows(
            known=[COUPLED, a_row(erp=a_salesperson(PS)), a_row(crm=a_user(PETE), state=PairState.UNCOUPLED)]
        )

        assert [JR] == [line["erp_id"] for line in run(app, "list", "--json", rows=rows).json]
        assert [PS] == [line["erp_id"] for line in run(app, "list", "--json", "--state", "single", rows=rows).json]
        assert {"coupled", "single", "uncoupled"} == {
            line["state"] for line in run(app, "list", "--json", "--all", rows=rows).json
        }

    def test_records_that_are_only_looked_up_are_no_pairs(self):
        """Payment terms have rows, but nothing to be coupled with."""
        rows = FakeRows(known=[a_row("payment-term", erp=a_side(JR, code="30 DAYS"))])

        assert [] == run(app, "list", "--json", "--all", rows=rows).json

    def test_a_mapping_that_does_not_exist_is_told_with_the_nearest(self):
        """Exit code 2: the command was used wrongly."""
        result = run(app, "list", "--mapping", "customer-acount", rows=FakeRows())

        assert 2 == result.exit_code
        assert "did you mean 'customer-account'?" in result.err

    def test_the_table_shows_ids_and_business_keys_only_when_asked(self):
        """Keys can be personal data, such as an address."""
        rows = FakeRows(known=[COUPLED])

        plain, keyed = run(app, "list", rows=rows).out, run(app, "list", "--keys", rows=rows).out

        assert JR in plain
        assert JANE in plain
        assert "jane@contoso.com" not in plain
        assert "internalemailaddress=jane@contoso.com" in keyed
        assert "code=JR" in keyed

    def test_an_empty_list_says_so_aside(self):
        """Standard output stays empty for scripts."""
        result = run(app, "list", rows=FakeRows())

        assert ("", "no coupled pair\n") == (result.out, result.err)


class TestPairLines:
    def test_an_evicted_record_is_a_line_of_its_own(self):
        """It was uncoupled by hand, and its home has another pair."""
        row = replace(COUPLED, id=JANE, home=Home(belongs_to="", evicted=a_user(PETE)))

        assert [("coupled", JANE), ("uncoupled", PETE)] == [(line.state, line.crm_id) for line in pair_lines(row)]


class TestShow:
    def test_tells_both_sides_without_values(self):
        """Names of fields, and what holds the pair."""
        hold = Hold(code="DRW-3004", slug="update-conflict", order=1, since=NOW, letter_id="x", fields=("fullname",))
        row = replace(COUPLED, pair=replace(COUPLED.pair, holds={"conflict": hold}))

        result = run(app, "show", "erp:salesperson:code=JR", rows=FakeRows(known=[row]))

        assert f"crm:systemuser:{JANE}" in result.out
        assert "conflict: DRW-3004 update-conflict" in result.out
        assert "displayName" in result.out
        assert "Jo Roe" not in result.out

    def test_values_are_printed_when_asked_for(self):
        """`--values`, in JSON as well."""
        shown = run(app, "show", f"erp:salesperson:{JR}", "--json", "--values", rows=FakeRows(known=[COUPLED])).json[0]

        assert "Jo Roe" == shown["erp"]["values"]["displayName"]
        assert ("coupled", JANE) == (shown["state"], shown["crm_id"])


class TestCouple:
    ARGS = ("couple", "erp:salesperson:code=JR", "crm:systemuser:internalemailaddress=jane@contoso.com")

    def test_asks_the_home_of_the_crm_record_and_waits_for_the_row(self):
        """The claim is granted there; the row of the ERP record shows the result."""
        rows = FakeRows(known=[ERP_ALONE, CRM_ALONE], answer=lambda _: [COUPLED])

        result = run(app, *self.ARGS, "--json", "--use", "crm", rows=rows)

        ((key, order),) = rows.orders
        assert f"{PEOPLE}:{JANE}" == key
        assert (OrderKind.COUPLE, "operator", JR, JANE, "crm") == (
            order.kind,
            order.by,
            order.erp_id,
            order.crm_id,
            order.use,
        )
        assert (0, "coupled") == (result.exit_code, result.json[0]["state"])

    def test_takes_the_two_in_either_order(self):
        """Which is which is in the names."""
        rows = FakeRows(known=[ERP_ALONE, CRM_ALONE], answer=lambda _: [COUPLED])

        assert 0 == run(app, "couple", f"crm:systemuser:{JANE}", f"erp:salesperson:{JR}", rows=rows).exit_code
        assert JR == rows.orders[0][1].erp_id

    @pytest.mark.parametrize("event", ["claim-refused", "given-back"])
    def test_a_refusal_in_the_journal_fails_with_its_reason(self, event):
        """The journal names the order as the cause."""
        rows = FakeRows(
            known=[ERP_ALONE, CRM_ALONE],
            answer=lambda sent: [a_line(event, home=JANE, reason="taken", cause_id=order_in(sent).order_id)],
        )

        result = run(app, *self.ARGS, rows=rows)

        assert 1 == result.exit_code
        assert "refused: it belongs to another pair" in result.err

    def test_what_another_order_brought_about_is_no_answer(self):
        """A refusal of somebody else's order, a coupling of somebody else's records."""
        other = a_row(erp=a_salesperson(PS), crm=a_user(PETE), state=PairState.COUPLED)
        rows = FakeRows(
            known=[ERP_ALONE, CRM_ALONE],
            answer=lambda _: [a_line("claim-refused", home=JANE, reason="taken", cause_id="another"), other],
        )

        result = run(app, *self.ARGS, "--wait-s", "0.05", "--json", rows=rows)

        assert (1, "pending") == (result.exit_code, result.json[0]["state"])

    def test_who_does_not_wait_has_sent(self):
        """`--wait-s 0` asks and does not look what became of it."""
        rows = FakeRows(known=[ERP_ALONE, CRM_ALONE])

        result = run(app, *self.ARGS, "--wait-s", "0", "--json", rows=rows)

        assert (0, "sent", 1) == (result.exit_code, result.json[0]["state"], len(rows.sent))

    def test_a_pair_that_is_coupled_already_is_done(self):
        """Repeating a command does no harm, and sends nothing."""
        rows = FakeRows(known=[COUPLED])

        result = run(app, *self.ARGS, rows=rows)

        assert (0, []) == (result.exit_code, rows.sent)
        assert "was coupled already" in result.out

    @pytest.mark.parametrize(
        ("known", "holder"),
        [
            ([COUPLED, a_row(crm=a_user(PETE, email="pete@contoso.com"))], f"crm:systemuser:{JANE}"),
            (
                [
                    a_row(erp=a_salesperson()),
                    a_row(
                        erp=a_salesperson(PS, code="PS"),
                        crm=a_user(PETE, email="pete@contoso.com"),
                        state=PairState.COUPLED,
                    ),
                ],
                f"erp:salesperson:{PS}",
            ),
        ],
    )
    def test_a_record_that_has_a_partner_names_it(self, known, holder):
        """AlreadyCoupled, exit code 1, and how to get out of it; nothing is sent."""
        rows = FakeRows(known=known)

        result = run(
            app, "couple", "erp:salesperson:code=JR", "crm:systemuser:internalemailaddress=pete@contoso.com", rows=rows
        )

        assert (1, []) == (result.exit_code, rows.sent)
        assert "DRW-3006" in result.err
        assert holder in result.err
        assert "drawbar couplings uncouple" in result.err

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (("erp:salesperson:code=JR", "erp:salesperson:code=JR"), "name one of each"),
            (("erp:salesperson:code=XX", f"crm:systemuser:{JANE}"), "no record is known as erp:salesperson:code=…"),
            (
                ("erp:paymentTerm:code=30 DAYS", f"crm:systemuser:{JANE}"),
                "no mappings join erp:paymentTerm and crm:systemuser",
            ),
        ],
    )
    def test_two_that_cannot_be_coupled_are_told(self, names, said):
        """Exit code 2: the command was used wrongly."""
        terms = a_row("payment-term", erp=a_side(PS, code="30 DAYS"))
        result = run(app, "couple", *names, rows=FakeRows(known=[ERP_ALONE, CRM_ALONE, terms]))

        assert 2 == result.exit_code
        assert said in result.err

    def test_a_deleted_record_is_not_coupled(self):
        """Not by its id either."""
        rows = FakeRows(known=[a_row(erp=a_side(JR, deleted=True)), CRM_ALONE])

        result = run(app, "couple", f"erp:salesperson:{JR}", f"crm:systemuser:{JANE}", rows=rows)

        assert (2, []) == (result.exit_code, rows.sent)
        assert "is deleted" in result.err

    def test_no_value_is_repeated(self):
        """A name that is not known is told without what was typed after `=`."""
        result = run(
            app,
            "couple",
            "erp:salesperson:email=who@contoso.com",
            f"crm:systemuser:{JANE}",
            rows=FakeRows(known=[CRM_ALONE]),
        )

        assert "who@contoso.com" not in result.out + result.err


class TestNarrowTerminal:
    def test_ids_stand_one_below_the_other(self, monkeypatch: pytest.MonkeyPatch):
        """Whole, so that they can be copied."""
        monkeypatch.setenv("COLUMNS", "80")

        out = run(app, "list", "--keys", rows=FakeRows(known=[COUPLED])).out
        shown = run(app, "show", f"erp:salesperson:{JR}", rows=FakeRows(known=[COUPLED])).out

        assert {JR, JANE} <= {line.split()[0] for line in out.splitlines() if line.split()}
        assert 80 >= max(len(line) for line in (out + shown).splitlines())


class TestUncouple:
    def test_asks_the_home_of_the_pair_by_either_record(self):
        """The ERP record's home, also when the CRM record is named."""
        for name in (f"erp:salesperson:{JR}", f"crm:systemuser:{JANE}"):
            rows = FakeRows(known=[COUPLED], answer=lambda _: [TestUncoupleJudge.PARTED, TestUncoupleJudge.HOME_AGAIN])

            result = run(app, "uncouple", name, "--json", rows=rows)

            assert [(f"{PEOPLE}:{JR}", OrderKind.UNCOUPLE)] == [(key, order.kind) for key, order in rows.orders]
            assert (0, "uncoupled") == (result.exit_code, result.json[0]["state"])

    @pytest.mark.parametrize("state", [PairState.SINGLE, PairState.UNCOUPLED])
    def test_twice_is_not_an_error(self, state):
        """What is not coupled is uncoupled: nothing is sent."""
        rows = FakeRows(known=[a_row(erp=a_salesperson(), state=state)])

        result = run(app, "uncouple", "erp:salesperson:code=JR", rows=rows)

        assert (0, []) == (result.exit_code, rows.sent)
        assert result.out.startswith("nothing to uncouple: this record is not coupled\n")


class TestUncoupleJudge:
    ORDER = Order(order_id="o-1", kind=OrderKind.UNCOUPLE, by="operator", erp_id=JR, crm_id=JANE)
    PARTED = a_row(erp=a_salesperson(), state=PairState.UNCOUPLED)
    HOME_AGAIN = a_row(crm=a_user(), state=PairState.UNCOUPLED)

    def test_waits_until_the_crm_record_is_at_its_own_home(self):
        """Between the two homes nobody could name it."""
        judge = UncoupleJudge(self.ORDER, PEOPLE)

        assert None is judge(replace(COUPLED, deferred=(self.ORDER,)))
        assert None is judge(self.PARTED)
        assert "uncoupled" == judge(self.HOME_AGAIN).result

    def test_the_two_rows_may_be_seen_in_either_order(self):
        """They lie on different partitions. What the CRM record's home was before is no news."""
        judge = UncoupleJudge(self.ORDER, PEOPLE)

        assert None is judge(Row(mapping=PEOPLE, id=JANE, home=Home(belongs_to=JR)))
        assert None is judge(self.HOME_AGAIN)
        assert "uncoupled" == judge(self.PARTED).result

    def test_two_records_of_one_id_have_one_home(self):
        """There is nothing to wait for besides its row."""
        judge = UncoupleJudge(replace(self.ORDER, crm_id=JR), PEOPLE)

        assert "uncoupled" == judge(self.PARTED).result

    def test_an_order_that_was_dropped_while_the_pair_is_coupled_was_refused(self):
        """The target refused to take the stamp off; the hold says with which code."""
        judge = UncoupleJudge(self.ORDER, PEOPLE)
        hold = Hold(code="DRW-4001", slug="rejected", order=1, since=NOW, letter_id="x")
        judge(replace(COUPLED, deferred=(self.ORDER,)))

        verdict = judge(replace(COUPLED, pair=replace(COUPLED.pair, holds={"to_crm": hold})))

        assert ("refused", "DRW-4001 rejected") == (verdict.result, verdict.reason)

    def test_rows_that_are_gone_are_uncoupled(self):
        """Nothing is left of a pair both of whose records are deleted."""
        judge = UncoupleJudge(self.ORDER, PEOPLE)

        assert None is judge(Gone(f"{PEOPLE}:{JANE}"))
        assert "uncoupled" == judge(Gone(f"{PEOPLE}:{JR}")).result

    def test_a_system_that_only_observes_refuses(self):
        """It journals what it would write, and the pair stays as it is."""
        line = a_line("would-write", home=JR, cause_id="o-1", reason="update")

        assert "refused" == UncoupleJudge(self.ORDER, PEOPLE)(line).result

    @pytest.mark.parametrize("word", ["paused", "stopped"])
    def test_a_brake_only_delays(self, word: str):
        """The order is kept, and carried out when the brake is off."""
        line = a_line("would-write", home=JR, cause_id="o-1", reason=f"update, {word}")

        verdict = UncoupleJudge(self.ORDER, PEOPLE)(line)
        assert "pending" == verdict.result
        assert "drawbar brakes show" in verdict.reason
