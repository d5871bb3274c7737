"""`drawbar explain`: what is known of a record."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from drawbar.cli.explain import explain
from schemas.coupling import Hold, Home, InFlight, KeptBack, Matched, PairState, Row
from schemas.records import Command, CommandKind, Order, OrderKind, RecordRef, System
from tests.cli.rows_fake import (
    CUSTOMERS,
    JANE,
    JR,
    NOW,
    PEOPLE,
    PS,
    FakeRows,
    a_letter,
    a_line,
    a_row,
    a_salesperson,
    a_side,
    a_user,
    app_of,
    discarded,
    run,
)

app = app_of(explain)
COUPLED = a_row(erp=a_salesperson(), crm=a_user(), state=PairState.COUPLED)
ELSEWHERE = Row(mapping=PEOPLE, id=JANE, home=Home(belongs_to=JR))


def told(name: str, *options: str, rows: FakeRows) -> dict:
    (answer,) = run(app, "explain", name, "--json", *options, rows=rows).json
    return answer


class TestExplain:
    def test_follows_a_crm_record_to_the_pair_it_belongs_to(self):
        """Its own home says where; only the rows that are needed are read."""
        rows = FakeRows(known=[COUPLED, ELSEWHERE])

        answer = told(f"crm:systemuser:{JANE}", rows=rows)

        (home,) = answer["mappings"]
        assert (f"crm:systemuser:{JANE}", JR, "coupled") == (answer["ref"], home["home"], home["state"])
        assert [frozenset({f"{PEOPLE}:{JANE}"}), frozenset({f"{PEOPLE}:{JR}"})] == rows.asked

    def test_takes_a_business_key(self):
        """Then all rows are read."""
        assert f"erp:salesperson:{JR}" == told("erp:salesperson:code=jr", rows=FakeRows(known=[COUPLED]))["ref"]

    def test_the_timeline_is_of_both_homes(self):
        """What happened at the CRM record's home belongs to the story: the claim."""
        journal = [
            a_line("claim-granted", home=JANE, line_id="1"),
            a_line("coupled", home=JR, line_id="2"),
            a_line("coupled", home=PS, line_id="3"),
        ]

        answer = told(f"erp:salesperson:{JR}", rows=FakeRows(known=[COUPLED, ELSEWHERE], journal=journal))

        assert ["claim-granted", "coupled"] == [line["event"] for line in answer["timeline"]]

    def test_values_only_when_asked_for(self):
        """Names of fields, versions and times are told always."""
        rows = FakeRows(known=[COUPLED])

        plain = run(app, "explain", f"erp:salesperson:{JR}", rows=rows).out
        valued = run(app, "explain", f"erp:salesperson:{JR}", "--values", rows=rows).out

        assert "code, displayName" in plain
        assert "Jo Roe" not in plain
        assert "displayName = Jo Roe" in valued

    def test_tells_the_command_in_flight_and_what_waits_for_it(self):
        """Kind, target, fields and age; orders that wait until it is answered."""
        command = Command(
            command_id="c-1",
            mapping=PEOPLE,
            home=JR,
            kind=CommandKind.UPDATE,
            target=RecordRef(System.ERP, "salesperson", JR),
            values={"displayName": "Jane Roe"},
            issued_at=NOW,
        )
        pair = replace(COUPLED.pair, in_flight=InFlight(command=command, direction="to_erp", sent_at=NOW, sends=2))
        order = Order(order_id="o-1", kind=OrderKind.UNCOUPLE, by="operator")

        out = run(
            app,
            "explain",
            f"erp:salesperson:{JR}",
            rows=FakeRows(known=[replace(COUPLED, pair=pair, deferred=(order,))]),
        ).out

        assert f"update of erp:salesperson:{JR}" in out
        assert "sent 2 times" in out
        assert "uncouple by operator: waits for the command in flight" in out
        assert "Jane Roe" not in out

    def test_tells_holds_and_letters(self):
        """What it waits for; letters of the past are counted."""
        hold = Hold(
            code="DRW-3001",
            slug="owner-not-coupled",
            order=1,
            since=NOW,
            letter_id="1e77e400-0000-4000-8000-000000000001",
            missing=(f"erp:salesperson:{PS}",),
            fields=("ownerid",),
        )
        row = a_row(CUSTOMERS, erp=a_side(JR, number="C-1"), holds={"to_crm": hold})
        letters = [a_letter(home=JR), discarded(a_letter("2e77e400", home=JR)), a_letter("3e77e400", home=PS)]

        result = run(app, "explain", f"erp:customer:{JR}", rows=FakeRows(known=[row], opened=letters))

        assert "to_crm: DRW-3001 owner-not-coupled" in result.out
        assert f"erp:salesperson:{PS}" in result.out
        assert "1e77e400 open" in result.out
        assert "1 letter closed or discarded" in result.out

    def test_tells_what_a_brake_keeps_back(self):
        kept = KeptBack(since=NOW, kind=CommandKind.UPDATE, fields=("telephone1",))
        row = a_row(CUSTOMERS, erp=a_side(JR, number="C-1"), kept_back={"to_crm": kept})

        (home,) = told(f"erp:customer:{JR}", rows=FakeRows(known=[row]))["mappings"]
        assert [("to_crm", "update", ["telephone1"])] == [
            (one["direction"], one["kind"], one["fields"]) for one in home["kept_back"]
        ]
        text = run(app, "explain", f"erp:customer:{JR}", rows=FakeRows(known=[row])).out
        assert "kept back" in text

    def test_tells_claims_and_matches(self):
        """What was found in the other system, and what is asked for."""
        row = a_row(
            erp=a_salesperson(),
            state=PairState.CLAIMING,
            claiming=JANE,
            matched=Matched(test="", candidates=(JANE, PS)),
        )

        home = told(f"erp:salesperson:{JR}", rows=FakeRows(known=[row]))["mappings"][0]

        assert f"crm:systemuser:{JANE}" == home["claiming"]
        assert [f"crm:systemuser:{JANE}", f"crm:systemuser:{PS}"] == home["candidates"]

    def test_a_record_that_is_gone_is_told_from_the_journal(self):
        """Its row is no more, its story is."""
        rows = FakeRows(journal=[a_line("uncoupled", home=JR, reason="both-deleted")])

        answer = told(f"erp:salesperson:{JR}", rows=rows)

        assert ([], ["both-deleted"]) == (answer["mappings"], [line["reason"] for line in answer["timeline"]])

    def test_a_record_that_nobody_knows_is_a_wrong_name(self):
        """Exit code 2, and what to look at."""
        result = run(app, "explain", f"erp:salesperson:{JR}", rows=FakeRows())

        assert 2 == result.exit_code
        assert "nothing is known of" in result.err

    def test_names_the_condition_that_stops_a_record(self):
        """Field and condition as the mapping file states them; what the field holds is not told."""
        row = a_row(CUSTOMERS, erp=a_side(JR, number="C-1", blocked="Ship"))

        out = run(app, "explain", f"erp:customer:{JR}", rows=FakeRows(known=[row])).out

        assert "filter     to_crm is stopped: erp:blocked must be blank\n" in out
        assert "Ship" not in out

    @pytest.mark.parametrize(
        ("state", "said"),
        [
            ({"customertypecode": 11}, "crm:customertypecode must equal 3"),
            ({"statecode": 1}, "crm:statecode must equal 0"),
        ],
    )
    def test_names_the_condition_of_the_other_side(self, state, said):
        held = {"customertypecode": 3, "statecode": 0, "bcbi_companyid": None, **state}
        row = a_row(CUSTOMERS, crm=a_side(JANE, **held))

        (home,) = told(f"crm:account:{JANE}", rows=FakeRows(known=[row]))["mappings"]

        assert [said] == [f"{stop['field']} {stop['must']}" for stop in home["outside_filter"]]

    def test_a_stamp_of_another_company_is_told_by_what_was_decided(self):
        """Which row is ours is not known to the command: the last decision says that a filter stopped the record."""
        row = a_row(CUSTOMERS, crm=a_side(JANE, customertypecode=3, statecode=0, bcbi_companyid="any"))
        line = a_line("skipped", home=JANE, mapping=CUSTOMERS, direction="to_erp", reason="outside-filter")

        stopped = told(f"crm:account:{JANE}", rows=FakeRows(known=[row], journal=[line]))["mappings"][0]
        passing = told(f"crm:account:{JANE}", rows=FakeRows(known=[row]))["mappings"][0]

        assert ["crm:bcbi_companyid"] == [stop["field"] for stop in stopped["outside_filter"]]
        assert [] == passing["outside_filter"]

    def test_tells_matches_of_an_ambiguous_hold_as_matches(self):
        found = (f"crm:account:{JANE}", f"crm:account:{PS}")
        hold = Hold(code="DRW-3007", slug="ambiguous-match", order=1, since=NOW, letter_id="1e77e400", missing=found)
        row = a_row(CUSTOMERS, erp=a_side(JR, number="C-1"), holds={"to_crm": hold})

        out = run(app, "explain", f"erp:customer:{JR}", rows=FakeRows(known=[row])).out

        assert f"matches {found[0]}," in out
        assert "missing" not in out

    def test_no_line_is_wider_than_a_terminal(self, monkeypatch: pytest.MonkeyPatch):
        """Whatever its width, also with many fields and with refs in the reason."""
        monkeypatch.setenv("COLUMNS", "80")
        fields = {f"field{number}": None for number in range(40)}
        row = a_row(erp=a_salesperson(**fields), crm=a_user(**fields), state=PairState.COUPLED)
        journal = [
            a_line("written", home=JR, direction="to_erp", reason="update", fields=tuple(fields), latency_ms=250),
            a_line(
                "dead-letter",
                home=JR,
                direction="to_crm",
                reason=f"owner-not-coupled erp:salesperson:{PS}",
                line_id="2",
            ),
            a_line("ignored", home=JR, direction="to_crm", reason=f"erp:salesperson:{PS} " * 2, line_id="3"),
        ]

        out = run(app, "explain", f"erp:salesperson:{JR}", rows=FakeRows(known=[row], journal=journal)).out

        assert 80 >= max(len(text) for text in out.splitlines())
