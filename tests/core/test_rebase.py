"""A new base after a restore: both sides read, nothing written, the differences remembered until somebody settles them."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec.structs import replace

from processors.coupling import Fingerprints
from schemas.coupling import RECORD, PairState
from schemas.records import Command, CommandKind, OrderKind, OutcomeStatus, System, Work, derived_id
from tests.builders import a_small_account
from tests.core.played import BY_HAND, Played
from tests.core.two_worlds import Odds, Record, TwoWorlds


def a_restored(**changed: object) -> Played:
    """Customer and account agreed at order 50; then the CRM was set back to order 3."""
    played = Played(BY_HAND).customer(order=50).account(order=50).couple()
    played.order(OrderKind.REBASE, home="C", use="crm")
    assert CommandKind.READ is played.command.kind
    return played


def read(played: Played, *, order: int = 3, **changed: object) -> Played:
    state = a_small_account(**changed)  # type: ignore[arg-type]
    observed = played.observed(played.command, order=order, state=state)
    return played.answer(OutcomeStatus.OBSERVED, observed=observed)


class TestRebase:
    def test_reads_and_writes_nothing(self):
        """What the restored system holds is the base; the fields that differ are named."""
        played = read(a_restored(), telephone1="old")

        assert [] == played.commands
        assert ("telephone1",) == played.pair().differs
        assert (3, "old") == (played.pair().crm.order, played.pair().crm.state["telephone1"])

    def test_lets_edits_of_either_side_cross_afterwards(self):
        """An order below the one before the restore is no longer stale."""
        played = read(a_restored(), telephone1="old").account(order=4, name="Fabrikam AG", telephone1="old")

        assert {"displayName": "Fabrikam AG"} == played.command.values

    def test_keeps_an_edit_of_the_other_side_that_falls_into_it(self):
        """It is an edit against the new base, and is written once all is read."""
        played = a_restored().customer(order=51, displayName="Fabrikam AG")
        read(played, telephone1="old")

        assert {"name": "Fabrikam AG"} == played.command.values
        assert ("telephone1",) == played.pair().differs

    def test_looks_again_when_capture_brought_another_state_meanwhile(self):
        """Nobody knows which came first, the read or the captured state: what the second read shows is an edit."""
        played = a_restored().account(order=60, name="Edited", telephone1="old")
        read(played, telephone1="old")
        assert CommandKind.READ is played.command.kind
        read(played, order=5, name="Edited", telephone1="old")

        assert {"displayName": "Edited"} == played.command.values

    def test_does_not_propagate_that_a_record_is_gone(self):
        """Whatever the mapping says of deletes: the backup did not have it, nobody deleted it."""
        mapping = BY_HAND.model_copy(update={"deletes": "propagate"})
        played = Played(mapping).customer().account().couple().order(OrderKind.REBASE, home="C", use="crm")
        played.answer(OutcomeStatus.MISSING)

        assert [] == played.commands
        assert (RECORD,) == played.pair().differs
        assert ["counterpart-deleted"] == [letter.slug for letter in played.open_letters()]

    def test_waits_for_the_command_in_flight(self):
        played = Played(BY_HAND).coupled().customer(order=60, phoneNumber="1")
        played.order(OrderKind.REBASE, home="C", use="crm")
        assert CommandKind.UPDATE is played.command.kind
        played.written(a_small_account())

        assert CommandKind.READ is played.command.kind

    @pytest.mark.parametrize("again", [1, 2])
    def test_comes_to_the_same_when_messages_come_again(self, again: int):
        played = read(a_restored(), telephone1="old").again("C", last=again)

        assert ("telephone1",) == played.pair().differs
        assert all(command.kind is CommandKind.READ for command in played.commands)


class TestSettle:
    @pytest.mark.parametrize(("use", "written"), [("erp", {"telephone1": "555"}), ("crm", {"phoneNumber": "old"})])
    def test_writes_the_values_of_the_side_that_was_chosen(self, use: str, written: dict[str, str]):
        played = read(a_restored(), telephone1="old").order(OrderKind.SETTLE, home="C", use=use)

        assert written == played.command.values
        assert () == played.pair().differs

    def test_keeps_what_may_differ(self):
        played = read(a_restored(), telephone1="old").order(OrderKind.SETTLE, home="C", use="keep")

        assert ([], ()) == (played.commands, played.pair().differs)

    def test_needs_nobody_where_an_edit_made_both_equal(self):
        played = read(a_restored(), telephone1="old").account(order=4, telephone1="555")

        assert ([], ()) == (played.commands, played.pair().differs)


class TestCoupledByImport:
    def test_agrees_on_what_is_there_and_writes_nothing(self):
        """`use` agree: a file says that two records belong together, not whose values are right."""
        played = Played(BY_HAND).customer().account(telephone1="other").couple(use="agree")

        assert [] == played.commands
        assert (PairState.COUPLED, ("telephone1",)) == (played.pair().state, played.pair().differs)


class TestUnknownKey:
    def test_names_what_differed_when_the_key_was_changed(self):
        """An edit that meets a row under an old key is not written, but it is not forgotten either."""
        played = Played(BY_HAND).coupled()
        played.world = replace(played.world, prints=Fingerprints.of_key("another"))
        played.customer(order=60, phoneNumber="1")

        assert ([], ("telephone1",)) == (played.commands, played.pair().differs)


class TestRestoredWorld:
    @pytest.mark.parametrize("system", list(System))
    def test_is_taken_as_it_is(self, system: System):
        """One system is set back to an earlier day: nothing is written, exactly what differs is listed, edits flow."""
        listed = 0
        for seed in range(60):
            world = TwoWorlds(seed, Odds(automation=0.0, rewrites=False, fills_in=False)).run()
            before = {key: dataclasses.replace(record) for key, record in world.sides[system].records.items()}
            counter = world.sides[system].counter
            for _ in range(6):
                world._random_edit()
            world.settle()
            lost = world.sides[system].alive()
            restore(world, system, before, counter)
            writes = sum(side.writes for side in world.sides.values())
            order_all(world, OrderKind.REBASE, use=system.value)
            play_reads(world)

            assert writes == sum(side.writes for side in world.sides.values())
            differs = {
                row.pair.erp.id: row.pair.differs for row in world.rows.values() if row.pair and row.pair.differs
            }
            two_way = {(erp, name) for erp, names in differs.items() for name in names if name != "creditlimit"}
            assert two_way == {(erp, RECORD if "coupled" in what else what.split(":")[0]) for erp, what in told(world)}
            listed += len(differs)
            order_all(world, OrderKind.SETTLE, use=system.other.value)
            world.settle()
            for erp_id, crm_id in world.coupled():
                record = erp_id if system is System.ERP else crm_id
                if record in before and record in lost:
                    world.edit(system, record, **{("city", "address1_city")[system is System.CRM]: "Delft"})
            world.settle()
            assert {RECORD} >= {RECORD if "coupled" in what else what for _, what in told(world)}
        assert listed > 20


def told(world: TwoWorlds) -> list[tuple[str, str]]:
    """What an independent comparison of both systems finds: ERP id, and what is the matter."""
    found = [tuple(text.split(" ", 1)) for text in world.disagreements()]
    gone = [
        (erp, "is coupled with a record that is deleted")
        for erp, crm in world.coupled()
        if any(
            record in side.records and side.records[record].deleted
            for record, side in zip((erp, crm), (world.sides[System.ERP], world.sides[System.CRM]), strict=True)
        )
    ]
    return [(first, rest) for first, rest in found] + gone


def restore(world: TwoWorlds, system: System, records: dict[str, Record], counter: int) -> None:
    side = world.sides[system]
    side.records, side.counter = records, counter


def order_all(world: TwoWorlds, kind: OrderKind, *, use: str) -> None:
    from schemas.records import Order

    for row in list(world.rows.values()):
        order_id = derived_id(kind.value, row.id)
        order = Order(order_id=order_id, kind=kind, by="operator", use=use)
        world.post(Work(message_id=order_id, mapping=row.mapping, home=row.id, order=order))


def play_reads(world: TwoWorlds) -> None:
    """The sink of this simulation knows no READ."""
    execute = world._execute

    def with_reads(command: Command, side: object) -> object:
        if command.kind is not CommandKind.READ:
            return execute(command, side)  # type: ignore[arg-type]
        record = world.sides[command.target.system].records.get(command.target.id)
        if record is None or record.deleted:
            return world._outcome(command, OutcomeStatus.MISSING)
        found = world.sides[command.target.system].observed(command.target.id)
        return world._outcome(command, OutcomeStatus.OBSERVED, observed=found)

    world._execute = with_reads  # type: ignore[method-assign, assignment]
    world.settle()
