"""Other mapping files come into force while everything runs: what they say anew is looked at, and nothing is blanked."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from processors.brakes import Brakes, Limits
from processors.mapping import Condition, EntityMapping, FieldMapping, Filters
from processors.react import World
from processors.view import ReferenceView
from schemas.records import CommandKind, Order, OrderKind, System, Value, Work, derived_id
from tests.builders import SMALL, a_small_account, a_world, small, with_line
from tests.core.played import BY_HAND, Played
from tests.core.two_worlds import MAPPING, Odds, TwoWorlds

CITY = FieldMapping(erp="city", crm="address1_city")
WITH_CITY = BY_HAND.model_copy(update={"fields": (*SMALL.fields, CITY)})
CRM_FIRST = WITH_CITY.model_copy(update={"authority": System.CRM})


def agreed_before(**state: Value) -> Played:
    """A pair that agrees by the small mapping; both have a field `city` that no line knows of yet."""
    erp, crm = state.get("erp"), state.get("crm")
    return Played(BY_HAND).customer(city=erp).account(address1_city=crm).couple()


def switched(played: Played, mapping: EntityMapping) -> Played:
    """The same rows under other files: the process that decides was started anew."""
    world = a_world(mapping)
    for row in played.rows.values():
        world.view.apply(row)
    played.mapping, played.world = mapping, world
    return played


def remapped(played: Played, mapping: EntityMapping, *fields: str) -> Played:
    return switched(played, mapping).order(OrderKind.REMAP, home="C", fields=fields)


class TestAnAddedLine:
    def test_is_decided_as_a_first_agreement(self):
        """Of two values the authority's stands."""
        played = remapped(agreed_before(erp="Bonn", crm="Rome"), WITH_CITY, "address1_city")

        assert {"address1_city": "Bonn"} == played.command.values

    @pytest.mark.parametrize(
        ("erp", "crm", "written"), [(None, "Rome", {"city": "Rome"}), ("Bonn", None, {"address1_city": "Bonn"})]
    )
    def test_lets_a_blank_give_way_to_a_value(self, erp: Value, crm: Value, written: dict[str, Value]):
        played = remapped(agreed_before(erp=erp, crm=crm), WITH_CITY, "address1_city")

        assert written == played.command.values

    def test_erases_nothing_when_it_goes_one_way(self):
        """The ERP's blank was no statement about the city; once it is edited, it is one."""
        one_way = with_line(WITH_CITY, "address1_city", direction="to_crm")
        played = remapped(agreed_before(erp=None, crm="Rome"), one_way, "address1_city")
        assert [] == played.commands
        played.customer(order=60, city="Bonn")

        assert {"address1_city": "Bonn"} == played.command.values

    def test_that_shares_a_field_with_another_line_blanks_nothing(self):
        """A second column is filled from the phone number; it was blank, and says nothing about the number."""
        second = FieldMapping(erp="phoneNumber", crm="telephone2")
        shared = BY_HAND.model_copy(update={"fields": (*SMALL.fields, second)})
        played = Played(BY_HAND).customer().account(telephone2=None).couple()
        switched(played, shared).customer(order=60, displayName="Edited")

        assert {"name": "Edited", "telephone2": "555"} == played.command.values

    def test_waits_for_capture_when_its_field_was_not_read_before(self):
        """Absent is not blank: nothing is decided about it before it is there."""
        played = remapped(Played(BY_HAND).coupled(), WITH_CITY, "address1_city")
        assert [] == played.commands
        played.customer(city="Bonn").account(address1_city=None)

        assert {"address1_city": "Bonn"} == played.command.values

    def test_is_no_conflict_of_the_whole_record(self):
        """R173 is about what two people changed."""
        whole = WITH_CITY.model_copy(update={"conflict": "record"})
        played = remapped(agreed_before(erp="Bonn", crm="Rome"), whole, "address1_city")

        assert {"address1_city": "Bonn"} == played.command.values
        assert [] == played.open_letters()


PLAIN = with_line(BY_HAND, "telephone1", direction="to_crm")
AS_ADDRESS = with_line(BY_HAND, "telephone1", direction="to_crm", transform="web-address")


class TestAChangedLine:
    def test_is_looked_at_though_nobody_changed_its_field(self):
        played = remapped(Played(PLAIN).coupled(), AS_ADDRESS, "telephone1")

        assert {"telephone1": "https://555"} == played.command.values

    def test_is_left_until_somebody_orders_it(self):
        played = switched(Played(PLAIN).coupled(), AS_ADDRESS).order(OrderKind.RETRY, home="C")

        assert [] == played.commands

    def test_leaves_what_somebody_said_in_the_target(self):
        """The edit was about the record, the file is about all of them."""
        played = remapped(Played(PLAIN).coupled().account(order=60, telephone1="777"), AS_ADDRESS, "telephone1")

        assert [] == played.commands

    def test_writes_both_ways_past_the_brake_against_too_many(self):
        """A person saw how many records are written; the second write of a pair waits for the first one's reply."""
        line_of_crm = FieldMapping(erp="website", crm="websiteurl", direction="to_erp")
        both = WITH_CITY.model_copy(update={"fields": (*WITH_CITY.fields, line_of_crm)})
        played = Played(BY_HAND).customer(city="Bonn", website=None)
        played = played.account(address1_city=None, websiteurl="contoso.com").couple()
        switched(played, both)
        played.world = replace(played.world, brakes=Brakes(limits=Limits(share=0, at_least=0)))

        played.order(OrderKind.REMAP, home="C", fields=("address1_city", "websiteurl"))
        first = dict(played.command.values)
        played.written()

        assert [{"address1_city": "Bonn"}, {"website": "contoso.com"}] == [first, played.command.values]

    def test_gives_way_to_an_edit_that_only_the_sink_has_met(self):
        """A two-way line: what the CRM's user wrote a moment ago goes to the ERP, not the other way."""
        played = remapped(agreed_before(erp="Bonn", crm="Rome"), WITH_CITY, "address1_city").written(a_small_account())
        remapped(played, CRM_FIRST, "address1_city")
        assert [] == played.commands
        remapped(played.account(order=60, address1_city="Oslo"), WITH_CITY, "address1_city")

        assert {"city": "Oslo"} == played.command.values

    def test_waits_for_the_command_in_flight(self):
        played = Played(PLAIN).coupled().customer(order=60, displayName="Edited")
        remapped(played, AS_ADDRESS, "telephone1")
        assert {"name": "Edited"} == played.command.values
        played.written(a_small_account())

        assert {"telephone1": "https://555"} == played.command.values

    def test_may_be_ordered_again(self):
        """Whoever does not know whether all orders went out sends them once more."""
        played = remapped(Played(PLAIN).coupled(), AS_ADDRESS, "telephone1").written(a_small_account())
        played.order(OrderKind.REMAP, home="C", fields=("telephone1",))

        assert [] == played.commands
        assert () == played.pair().again


class TestRemap:
    def test_is_not_counted_as_too_many_records_at_once(self):
        """A person saw the count and applied the files; others are counted as ever."""
        played = Played(PLAIN).coupled()
        switched(played, AS_ADDRESS)
        played.world = World(
            mappings=played.world.mappings,
            view=played.world.view,
            prints=played.world.prints,
            company_id=played.world.company_id,
            brakes=Brakes(limits=Limits(share=0.01, at_least=0)),
        )
        played.order(OrderKind.REMAP, home="C", fields=("telephone1",))
        assert {"telephone1": "https://555"} == played.command.values
        played.written(a_small_account()).customer(order=60, displayName="Edited")

        assert [] == played.commands
        assert {"to_crm"} == set(played.pair().kept_back)

    def test_decides_anew_what_the_files_before_kept_out(self):
        """A customer outside the filter is made in the CRM by files without the filter."""
        kept_out = small(match=(), filter=Filters(erp=(Condition(field="phoneNumber", equals="1"),)))
        played = Played(kept_out).customer()
        assert [] == played.commands
        remapped(played, small(match=()))

        assert CommandKind.CREATE is played.command.kind

    def test_says_nothing_to_a_home_without_a_record(self):
        played = Played(BY_HAND).order(OrderKind.REMAP, home="C", fields=("telephone1",))

        assert ([], []) == (played.commands, played.lines)

    @pytest.mark.parametrize("again", [1, 2])
    def test_comes_to_the_same_when_messages_come_again(self, again: int):
        played = remapped(Played(PLAIN).coupled(), AS_ADDRESS, "telephone1")
        command = played.command
        played.again("C", last=again)

        assert {command.command_id} == {sent.command_id for sent in played.commands}


BEFORE = MAPPING.model_copy(update={"fields": tuple(line for line in MAPPING.fields if line.crm != "address1_city")})


class Switching(TwoWorlds):
    """Two worlds in which files with one line more come into force at some moment, home by home."""

    def switch(self) -> None:
        self.mapping = MAPPING
        self.view = ReferenceView((MAPPING,), company_id="")
        for row in self.rows.values():
            self.view.apply(row)
        self.world = World(
            mappings={MAPPING.name: MAPPING}, view=self.view, prints=self.world.prints, brakes=self.brakes
        )
        self.cities = {
            (erp, crm): {
                self.sides[System.ERP].records[erp].values["city"],
                self.sides[System.CRM].records[crm].values["address1_city"],
            }
            for erp, crm in self.coupled()
            if erp in self.sides[System.ERP].records and crm in self.sides[System.CRM].records
        }
        for row in list(self.rows.values()):
            order_id = derived_id("remap", row.id)
            order = Order(order_id=order_id, kind=OrderKind.REMAP, by="test", fields=("address1_city",))
            self.post(Work(message_id=order_id, mapping=row.mapping, home=row.id, order=order))

    def blanked(self) -> list[str]:
        """Pairs that had a city on either side at the switch, and have none on one of them now."""
        return [
            erp
            for (erp, crm), cities in self.cities.items()
            if cities != {None} and not self.sides[System.ERP].records[erp].deleted
            if None
            in (
                self.sides[System.ERP].records[erp].values["city"],
                self.sides[System.CRM].records[crm].values["address1_city"],
            )
            and not self.sides[System.CRM].records[crm].deleted
        ]


class TestTwoWorlds:
    @pytest.mark.parametrize("first", [0, 400])
    def test_agree_on_a_line_that_came_while_everything_ran(self, first: int):
        """Edits, repeats, kills and lost replies before, during and after: both sides agree on all lines."""
        odds = Odds(orders=0.1, deletes=0.05)
        runs = []
        for seed in range(first, first + 400):
            run = Switching(seed, odds, mapping=BEFORE)
            for turn in range(12):
                run._random_edit()
                if turn == 6:
                    run.switch()
                for _ in range(run.dice.randrange(6)):
                    run._one_step()
            runs.append(run.settle())

        assert [] == [found for run in runs for found in (*run.disagreements(), *run.orphans(), *run.doubly_coupled())]

    def test_blank_nothing_that_either_side_held(self):
        """Nobody edits after the switch: whoever had a city still has one, and so has the other side."""
        runs = []
        for seed in range(400):
            run = Switching(seed, Odds(automation=0.0), mapping=BEFORE)
            for _ in range(8):
                run._random_edit()
                for _ in range(run.dice.randrange(6)):
                    run._one_step()
            run.settle()
            run.switch()
            runs.append(run.settle())

        assert any(cities != {None} for run in runs for cities in run.cities.values())
        assert [] == [found for run in runs for found in (*run.blanked(), *run.disagreements())]
