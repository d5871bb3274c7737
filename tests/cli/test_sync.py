"""`drawbar sync`: the plan of a first load, and its run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from drawbar.cli.sync import app
from drawbar.ports import InMessage
from processors.mapping import EntityMapping, FieldMapping, MatchField
from schemas.codec import encode
from schemas.coupling import PairState, Row
from schemas.records import Outcome, OutcomeStatus, RecordRef, System, Value, Work
from schemas.topics import PAIRS_WORK
from tests.builders import a_flight
from tests.cli.living_rows import LivingRows, a_person, its_user
from tests.cli.rows_fake import CUSTOMERS, NOW, PEOPLE, FakeRows, a_row, a_side, run, shipped

IDLE = ("--yes", "--idle-s", "0.2")

# Customers whose records are matched and made by order only.
WORKS = EntityMapping(
    name=CUSTOMERS,
    erp="customer",
    crm="account",
    create="none",
    matching="by_order",
    match=((MatchField(erp="displayName", crm="name"),),),
    fields=(
        FieldMapping(erp="displayName", crm="name"),
        FieldMapping(erp="city", crm="address1_city"),
        FieldMapping(erp="salespersonCode", crm="ownerid", owner=PEOPLE, direction="to_crm"),
    ),
)
MAPPINGS = {**shipped(), CUSTOMERS: WORKS}


def a_customer(number: int, **state: Value) -> Row:
    record_id = f"c0570500-0000-4000-8000-00000000000{number}"
    return a_row(CUSTOMERS, erp=a_side(record_id, displayName=f"Works {number}", city="Rome", **state))


def an_account(number: int, **state: Value) -> Row:
    given: dict[str, Value] = {"name": f"Works {number}", "address1_city": "Oslo", **state}
    return a_row(CUSTOMERS, crm=a_side(f"ac000000-0000-4000-8000-00000000000{number}", **given))


def a_load(**options: object) -> LivingRows:
    """Customers 1, 2, 3, 4, of whom 1 and 2 have an account; account 5 has no customer, 4 has two."""
    twin = an_account(6, name="Works 4")
    records = [*(a_customer(number) for number in (1, 2, 3, 4)), *(an_account(number) for number in (1, 2, 4, 5)), twin]
    return LivingRows(known=records, mappings=MAPPINGS, **options)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class Echoing(LivingRows):
    """A coupled record has another write under way when it is looked at, and is at rest soon after."""

    def rows(self, keys: Iterable[str] | None = None) -> dict[str, Row]:
        found = super().rows(keys)
        for key, row in found.items():
            if row.pair is not None and row.pair.state is PairState.COUPLED and key not in self.at_rest:
                self.at_rest.add(key)
                self.news.append(row)
                found[key] = replace(row, pair=replace(row.pair, in_flight=a_flight()))
        return found

    at_rest: set[str] = field(default_factory=set)


def coupled(rows: FakeRows) -> int:
    return sum(row.pair is not None and row.pair.state is PairState.COUPLED for row in rows.known)


class TestPlan:
    def test_tells_what_would_be_coupled_made_and_left(self):
        """With the criterion, who wins, and every ambiguous candidate; nothing is sent."""
        rows = a_load()

        result = run(app, "plan", "--create", "both", "--mapping", CUSTOMERS, rows=rows, mappings=MAPPINGS)

        assert (0, []) == (result.exit_code, rows.sent)
        for said in (
            "2  by displayName = name",
            "2  then written in the CRM",
            "2  clash, ERP wins (first agreement: erp is the authority): address1_city 2",
            "group 1: erp:customer:c0570500-0000-4000-8000-000000000004",
            "1  in the CRM",
            "1  in the ERP",
            "requests: 4 to the CRM, 2 to the ERP",
        ):
            assert said in result.out

    def test_as_json_holds_the_counts_of_each_mapping(self):
        result = run(app, "plan", "--json", "--use", "crm", rows=a_load(), mappings=MAPPINGS)
        (plan,) = result.json

        assert ["currency", PEOPLE, CUSTOMERS, "contact"] == plan["order"]
        counts = {"match": 2, "clashes": 2, "writes_to_erp": 2, "ambiguous": 3, "alone": 2}
        assert counts == {name: count for name, count in plan["mappings"][CUSTOMERS]["counts"].items() if count}

    def test_reckons_with_what_requests_cost_lately(self):
        """Twenty outcomes of a kind make a measurement: here, three requests for each write."""
        ref = RecordRef(System.CRM, "account", "x")
        outcome = Outcome(
            command_id="c", mapping=CUSTOMERS, home="x", status=OutcomeStatus.WRITTEN, target=ref, requests=3, at=NOW
        )
        work = Work(message_id="m", mapping=CUSTOMERS, home="x", outcome=outcome)
        message = InMessage(topic=PAIRS_WORK, partition=0, offset=0, key=b"x", value=encode(work))
        rows = dataclasses.replace(a_load(), published=[message] * 20)

        (plan,) = run(app, "plan", "--json", rows=rows, mappings=MAPPINGS).json

        assert {"erp": 0, "crm": 6} == plan["requests"]

    def test_names_the_first_few_unless_all_are_asked_for(self):
        rows = FakeRows(known=[a_customer(number) for number in range(9)])

        some = run(app, "plan", rows=rows, mappings=MAPPINGS).out
        all_of_them = run(app, "plan", "--all", rows=rows, mappings=MAPPINGS).out

        assert (5, 9) == (some.count("erp:customer:"), all_of_them.count("erp:customer:"))
        assert "and 4 more: --all names them" in some

    def test_to_make_records_names_its_mapping(self):
        """Making what the mapping does not make is for one mapping at a time."""
        assert 2 == run(app, "plan", "--create", "both", rows=FakeRows()).exit_code


class TestRun:
    def test_couples_makes_and_compares_with_the_plan(self):
        """Exit code 0: each record ended as planned. Matches are coupled before anything is made."""
        rows = a_load()

        result = run(
            app, "run", "--json", "--create", "both", "--mapping", CUSTOMERS, *IDLE, rows=rows, mappings=MAPPINGS
        )
        (said,) = result.json

        assert (0, 4) == (result.exit_code, coupled(rows))
        assert {"match": 2, "create": 2, "ambiguous": 3} == {
            line["plan"]: line["as_planned"] for line in said["outcome"]
        }
        assert ["couple", "couple", "retry", "retry"] == [order.kind.value for _, order in rows.orders]

    def test_given_again_repeats_nothing(self, tmp_path: Path):
        """The rows tell what is done: the same plan sends no order, makes no write, and ends with the same table."""
        rows, plan = a_load(), tmp_path / "plan.json"
        run(app, "plan", "--create", "both", "--mapping", CUSTOMERS, "--save", str(plan), rows=rows, mappings=MAPPINGS)
        first = run(app, "run", "--json", "--plan", str(plan), *IDLE, rows=rows, mappings=MAPPINGS)
        sent, written = len(rows.sent), len(rows.commands)

        again = run(app, "run", "--json", "--plan", str(plan), *IDLE, rows=rows, mappings=MAPPINGS)

        assert (sent, written) == (len(rows.sent), len(rows.commands))
        assert (0, first.json) == (again.exit_code, again.json)

    def test_goes_on_where_it_was_killed(self, tmp_path: Path):
        """Half of the orders were taken: only the others are sent, under the ids that they had."""
        rows, plan = a_load(), tmp_path / "plan.json"
        run(app, "plan", "--create", "both", "--mapping", CUSTOMERS, "--save", str(plan), rows=rows, mappings=MAPPINGS)
        other = a_load()
        run(app, "run", "--plan", str(plan), *IDLE, rows=other, mappings=MAPPINGS)
        rows.send(other.sent[:1])

        result = run(app, "run", "--plan", str(plan), *IDLE, rows=rows, mappings=MAPPINGS)

        assert 0 == result.exit_code
        assert [order.order_id for _, order in other.orders] == [order.order_id for _, order in rows.orders]

    def test_waits_for_what_the_target_made_of_a_record(self):
        """The target fills in a city, which comes back and is written while the plan ends: as planned all the same."""
        rows = Echoing(known=a_load().known, mappings=MAPPINGS)

        result = run(app, "run", "--create", "both", "--mapping", CUSTOMERS, *IDLE, rows=rows, mappings=MAPPINGS)

        assert "not ended" not in " ".join(result.err.split())
        assert 0 == result.exit_code

    def test_takes_an_open_dead_letter_for_an_end(self):
        """What the target refuses is told with its cause; exit code 0, for a letter is open."""
        rows = a_load(refuses=frozenset({"c0570500-0000-4000-8000-000000000003"}))

        result = run(app, "run", "--create", "both", "--mapping", CUSTOMERS, *IDLE, rows=rows, mappings=MAPPINGS)

        assert 0 == result.exit_code
        assert "dead letter: DRW-4001 rejected" in result.err

    def test_fails_while_records_have_not_ended(self):
        """No home answers: exit code 1, and what to look at."""
        rows = FakeRows(known=a_load().known)

        result = run(app, "run", *IDLE, rows=rows, mappings=MAPPINGS)

        assert 1 == result.exit_code
        assert "drawbar status" in result.err

    def test_fails_when_the_homes_only_observe(self):
        """A create that is journalled and not made is no end as planned."""
        rows = a_load(observe=True)

        result = run(app, "run", "--create", "both", "--mapping", CUSTOMERS, *IDLE, rows=rows, mappings=MAPPINGS)

        assert 1 == result.exit_code

    def test_goes_by_dependency(self):
        """Salespeople are coupled before a customer is thought of."""
        rows = LivingRows(known=[a_customer(1), an_account(1), a_person(0), its_user(0)], mappings=MAPPINGS)

        run(app, "run", *IDLE, rows=rows, mappings=MAPPINGS)

        assert [PEOPLE, CUSTOMERS] == [key.partition(":")[0] for key, _ in rows.orders]

    @pytest.mark.parametrize("text", ["", "{}", json.dumps({"plan_id": "x", "order": [], "records": [{}]})])
    def test_refuses_what_is_no_plan(self, tmp_path: Path, text: str):
        """Exit code 2, with the file and what to do."""
        path = tmp_path / "plan.json"
        path.write_text(text)

        result = run(app, "run", "--plan", str(path), rows=FakeRows())

        assert 2 == result.exit_code
        assert "drawbar sync plan --save" in result.err

    def test_asks_first(self):
        rows = a_load()

        result = run(app, "run", rows=rows, mappings=MAPPINGS, answers="n\n")

        assert (1, []) == (result.exit_code, rows.sent)
