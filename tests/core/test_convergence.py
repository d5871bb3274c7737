"""Two systems fall quiet and agree, whatever is lost, late or repeated; and each of the six rules is needed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from msgspec.structs import replace

import processors.coupling
import processors.decide
from processors.mapping import EntityMapping, target_of
from processors.react import Step, World, react
from schemas.coupling import Row
from schemas.records import System, Work
from tests.core.two_worlds import MAPPING, Odds, TwoWorlds

EVERYTHING = Odds(orders=0.15, deletes=0.08)


def play(seeds: Iterable[int], odds: Odds, *, mapping: EntityMapping = MAPPING, **more: Any) -> list[TwoWorlds]:
    return [TwoWorlds(seed, odds, mapping=mapping, **more).run() for seed in seeds]


def with_mapping(**changed: object) -> EntityMapping:
    return MAPPING.model_copy(update=changed)


class TestTwoWorlds:
    @pytest.mark.parametrize("first", [0, 500, 1000, 1500])
    def test_fall_quiet_and_agree(self, first: int):
        """G3, G4, G5: under edits, claims, deletes, lost replies, repeats and kills, each run ends; coupled records
        agree; no write lands on a state its decision had not seen; nobody is coupled twice or lost.
        """
        runs = play(range(first, first + 500), EVERYTHING)

        assert [] == [found for run in runs for found in run.disagreements()]
        assert [] == [found for run in runs for found in run.doubly_coupled()]
        assert [] == [found for run in runs for found in run.orphans()]
        assert 0 == sum(side.blind for run in runs for side in run.sides.values())

    def test_survive_that_half_of_all_messages_come_again(self):
        """Redelivery of every second message changes nothing but the number of attempts."""
        odds = replace(EVERYTHING, again=0.5, killed=0.3, sink_killed=0.3, lost_reply=0.4, automation=0.3)
        runs = [TwoWorlds(seed, odds).run(limit=40_000) for seed in range(150)]

        assert [] == [found for run in runs for found in (*run.disagreements(), *run.orphans())]

    @pytest.mark.parametrize("policy", ["restore", "uncouple", "propagate"])
    def test_agree_under_each_policy_for_deletes(self, policy: str):
        """A restored record has a new id and one partner; an uncoupled one is alone; a propagated delete ends both."""
        runs = play(range(300), replace(EVERYTHING, deletes=0.12), mapping=with_mapping(deletes=policy))

        assert [] == [found for run in runs for found in (*run.disagreements(), *run.orphans(), *run.doubly_coupled())]
        assert [] == [letter for run in runs for letter in run.open_letters() if letter.slug == "counterpart-deleted"]

    @pytest.mark.parametrize("policy", ["erp", "crm", "latest"])
    def test_agree_under_each_policy_for_conflicts(self, policy: str):
        """A field that both sides touched ends with one value on both."""
        runs = play(range(200), Odds(), mapping=with_mapping(conflict=policy))

        assert [] == [found for run in runs for found in run.disagreements()]

    @pytest.mark.parametrize("policy", ["dead_letter", "record"])
    def test_leave_a_conflict_to_a_person_and_agree_after_the_choice(self, policy: str):
        """The letter stays open until somebody chooses a side; then it closes and both agree."""
        runs = play(range(200), replace(Odds(), automation=0.0), mapping=with_mapping(conflict=policy))
        conflicted = [run for run in runs if any(letter.slug == "update-conflict" for letter in run.open_letters())]
        for run in conflicted:
            for _ in range(3):
                run.replay_all("erp")
                run.settle()

        assert len(conflicted) > 5
        assert [] == [letter for run in conflicted for letter in run.open_letters() if letter.slug == "update-conflict"]
        assert [] == [found for run in runs for found in run.disagreements()]

    @pytest.mark.parametrize("brakes", [{"pauses": 0.5}, {"at_most": 1}])
    def test_agree_after_brakes_that_went_on_and_off(self, brakes: dict[str, Any]):
        """A brake holds and loses nothing, whenever it goes on or off, by hand or by itself; once all are off, both
        systems agree.
        """
        runs = play(range(400), replace(EVERYTHING, **brakes))

        assert ("at_most" in brakes) == (sum(run.stops for run in runs) > 20)
        assert [] == [found for run in runs for found in (*run.disagreements(), *run.orphans(), *run.doubly_coupled())]
        assert [] == [key for run in runs for key, row in run.rows.items() if row.pair and row.pair.kept_back]
        assert 0 == sum(side.blind for run in runs for side in run.sides.values())

    def test_write_little(self):
        """Eight edits of two systems lead to seven or eight writes: nothing is written twice or back and forth."""
        runs = play(range(300), replace(Odds(), automation=0.0))
        writes = sum(side.writes for run in runs for side in run.sides.values())

        assert writes / len(runs) < 8


def ends(odds: Odds, seeds: Iterable[int] = range(150), **more: Any) -> dict[str, int]:
    """How runs end when a rule is taken out."""
    counts = {"agree": 0, "diverge": 0, "never quiet": 0, "stopped": 0, "writes": 0, "blind": 0}
    for seed in seeds:
        world = TwoWorlds(seed, odds, **more)
        try:
            world.run(limit=2500)
        except AssertionError:
            counts["never quiet"] += 1
            continue
        unanswered = any(row.pair is not None and row.pair.in_flight is not None for row in world.rows.values())
        counts["stopped" if unanswered else "diverge" if world.disagreements() else "agree"] += 1
        counts["writes"] += sum(side.writes for side in world.sides.values())
        counts["blind"] += sum(side.blind for side in world.sides.values())
    return counts


def before_react(change: Callable[[Work, Row | None], tuple[Work, Row | None]]) -> Callable[..., Step]:
    def changed(work: Work, row: Row | None, world: World, *, now: Any) -> Step:
        work, row = change(work, row)
        return react(work, row, world, now=now)

    return changed


class TestEachRuleIsNeeded:
    """What breaks when one of the six rules of convergence is taken out."""

    def test_with_all_rules_every_run_agrees(self):
        assert 150 == ends(Odds())["agree"]

    def test_1_without_skipping_what_the_target_holds_equal_records_are_written(self, monkeypatch: pytest.MonkeyPatch):
        """Rule 1: nothing is written when the target already holds the mapped values."""

        def writes_to_equal_records() -> int:
            worlds = [TwoWorlds(seed, replace(Odds(), fills_in=False)) for seed in range(30)]
            for world in worlds:
                world.edit(System.ERP, displayName="Same", city="Bonn")
                world.edit(System.CRM, name="Same", address1_city="Bonn")
                world.settle()
            return sum(side.writes for world in worlds for side in world.sides.values())

        assert 0 == writes_to_equal_records()
        monkeypatch.setattr(processors.decide, "equal", lambda *_: False)
        assert 0 < writes_to_equal_records()

    def test_2_without_comparing_the_reply_values_that_the_target_filled_in_never_travel(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        """Rule 2: a reply counts as our echo only where it equals what the command was to leave behind."""

        def all_ours(flight: Any, status: Any, observed: Any, mapping: Any, prints: Any) -> Any:
            held = {name: prints.of(observed.state.get(name)) for name in mapping.targets(target_of(flight.direction))}
            return processors.coupling._Bases(dict(flight.source_fingerprints), held, {})

        monkeypatch.setattr(processors.coupling, "_agreed", all_ours)

        assert ends(Odds())["diverge"] > 5

    def test_3_without_parking_behind_the_command_in_flight_runs_diverge(self):
        """Rule 3: at most one command of a pair is under way."""

        def forget_flight(work: Work, row: Row | None) -> tuple[Work, Row | None]:
            if work.change is not None and row is not None and row.pair is not None and row.pair.in_flight is not None:
                row = replace(row, pair=replace(row.pair, in_flight=None))
            return work, row

        counts = ends(Odds(), react=before_react(forget_flight))

        assert counts["diverge"] + counts["never quiet"] > 5

    def test_4_without_versions_somebodys_edit_is_overwritten_blindly(self):
        """Rule 4: every write carries the version it was decided on."""
        assert 0 == ends(Odds())["blind"]
        assert ends(replace(Odds(), versions=False))["blind"] > 20

    def test_5_without_ignoring_other_outcomes_runs_go_wrong(self):
        """Rule 5: an outcome that does not answer the command in flight is ignored."""

        def take_any(work: Work, row: Row | None) -> tuple[Work, Row | None]:
            flight = row.pair.in_flight if row is not None and row.pair is not None else None
            if work.outcome is not None and flight is not None:
                work = replace(work, outcome=replace(work.outcome, command_id=flight.command.command_id))
            return work, row

        counts = ends(replace(Odds(), again=0.5, sink_killed=0.3), range(50), react=before_react(take_any))

        assert counts["diverge"] + counts["never quiet"] > 5

    def test_6_without_sending_again_what_the_row_holds_pairs_stop(self, monkeypatch: pytest.MonkeyPatch):
        """Rule 6: the row holds the whole command; a message that comes again sends it again, and so does the timer."""

        def forget_sends(work: Work, row: Row | None, world: World, *, now: Any) -> Step:
            if row is not None and row.last.cause_id == work.message_id:
                return Step(row=row)
            return react(work, row, world, now=now)

        monkeypatch.setattr(TwoWorlds, "_resend_unanswered", lambda _: False)

        assert ends(replace(Odds(), killed=0.3), react=forget_sends)["stopped"] > 20
