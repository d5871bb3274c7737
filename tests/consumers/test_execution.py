"""The contract of the sinks: one suite for both systems, on twins in memory, with every fault at every step."""

from __future__ import annotations

import uuid
from itertools import product

import pytest
from msgspec.structs import replace

from drawbar.ports import Reply
from schemas.errors import KeyTaken, Rejected, WriteForbidden
from schemas.records import CommandKind, OutcomeStatus, System
from tests.consumers.twin import FAULTS, Faulty, Twin
from tests.consumers.worlds import (
    World,
    a_command,
    carried_out,
    create,
    match,
    requests_of,
    steps_until,
    twin_world,
    update,
)


@pytest.fixture(params=list(System), ids=str)
def world(request: pytest.FixtureRequest) -> World:
    return twin_world(request.param)


class TestCreate:
    def test_gives_the_record_our_id(self, world: World):
        """A record that Drawbar creates has the same GUID on both sides."""
        command = create(world, world.record(name="Fabrikam", key="C-10"))

        result = carried_out(world, command)

        assert result.status is OutcomeStatus.WRITTEN
        assert result.observed == world.read(command.target.id)
        assert result.requests == 1

    def test_is_done_once_however_often_it_is_carried_out(self, world: World):
        """G3: a command that was carried out before a crash finds its own record."""
        command = create(world, world.record(name="Fabrikam", key="C-10"))
        carried_out(world, command)

        result = carried_out(world, command)

        assert result.status is OutcomeStatus.OBSERVED
        assert [row.id for row in world.named("Fabrikam")] == [command.target.id]

    def test_rejects_a_key_that_somebody_else_holds(self, world: World):
        """A business key of another record is not ours: the record goes to the dead letters, without the values."""
        world.add(name="Other", key="C-10")

        result = carried_out(world, create(world, world.record(name="Fabrikam", key="C-10")))

        assert (result.status, result.code) == (OutcomeStatus.REJECTED, KeyTaken.code)
        assert "SECRET" not in result.detail

    @pytest.mark.parametrize("fault", FAULTS)
    def test_makes_exactly_one_record_whatever_goes_wrong(self, world: World, fault: str):
        """G3: no record is created twice, whatever reply is lost, at whichever step."""
        values = world.record(name="Fabrikam", key="C-10")
        for at in range(4):
            fresh = twin_world(world.system)
            command = create(fresh, values)

            result = carried_out(fresh, command, Faulty(fresh.http, {at: fault}))

            assert result.status in (OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED)
            assert result.observed is not None
            assert [row.id for row in fresh.named("Fabrikam")] == [command.target.id]

    @pytest.mark.parametrize("faults", list(product(FAULTS, repeat=2)), ids="+".join)
    def test_makes_exactly_one_record_when_two_things_go_wrong(self, world: World, faults: tuple[str, str]):
        """G3, with two faults one after the other."""
        command = create(world, world.record(name="Fabrikam", key="C-10"))

        result = carried_out(world, command, Faulty(world.http, dict(enumerate(faults))))

        assert result.observed is not None
        assert [row.id for row in world.named("Fabrikam")] == [command.target.id]

    def test_can_be_killed_between_any_two_steps(self, world: World):
        """Killed at each point and begun anew: one record, with what the command says."""
        for asks, arrives in product(range(1, 4), (False, True)):
            fresh = twin_world(world.system)
            command = create(fresh, fresh.record(name="Fabrikam", key="C-10"))
            steps_until(fresh, command, asks, last_answer_arrives=arrives)

            result = carried_out(fresh, command)

            assert result.status in (OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED)
            assert [row.id for row in fresh.named("Fabrikam")] == [command.target.id]

    def test_never_takes_what_a_look_up_found_for_written(self, world: World):
        """Between a lost reply and the look-up somebody may have written: the decision must see that as a change."""
        command = create(world, world.record(name="Fabrikam"))

        result = carried_out(world, command, Faulty(world.http, {0: "reply lost"}))

        assert result.status is OutcomeStatus.OBSERVED

    def test_rejects_what_the_system_refuses(self, world: World):
        """A refusal that the table does not know is not tried for ever; its detail names code and fields only."""
        port = Faulty(world.http, {0: "422"})

        result = carried_out(world, create(world, world.record(name="Fabrikam")), port)

        assert (result.status, result.code, result.detail) == (OutcomeStatus.REJECTED, Rejected.code, "422")


class TestUpdate:
    def test_writes_the_changed_fields_alone_in_one_request(self, world: World):
        """Minimal patch: every field that is sent counts as changed for the automations of the target."""
        seen = world.add(name="Fabrikam", phone="1")
        command = update(world, seen, world.record(phone="2"))

        (request,) = requests_of(world, command)

        assert request.body == world.record(phone="2")
        assert request.headers["If-Match"] == seen.version

    def test_reports_the_new_version(self, world: World):
        """The reply to the write is what the echo is recognised by."""
        seen = world.add(name="Fabrikam", phone="1")

        result = carried_out(world, update(world, seen, world.record(phone="2")))

        assert result.status is OutcomeStatus.WRITTEN
        assert result.observed == world.read(seen.id)

    def test_writes_on_a_busy_record_when_nothing_it_looked_at_has_changed(self, world: World):
        """A refusal for a new version is tried again at once while the mapped fields are as the decision saw them."""
        seen = world.add(name="Fabrikam", phone="1")
        command = update(world, seen, world.record(phone="2"), seen=world.record(phone="1", name="Fabrikam"))
        world.edit(seen.id, city="Rome")

        result = carried_out(world, command)

        assert result.status is OutcomeStatus.WRITTEN
        assert world.read(seen.id).state == {**seen.state, **world.record(phone="2", city="Rome")}  # type: ignore[union-attr]

    def test_never_overwrites_an_edit_that_the_decision_did_not_see(self, world: World):
        """G4: a changed mapped field is for the decision, which gets the fresh state."""
        seen = world.add(name="Fabrikam", phone="1")
        world.edit(seen.id, phone="3")

        result = carried_out(world, update(world, seen, world.record(phone="2")))

        assert result.status is OutcomeStatus.OBSERVED
        assert result.observed == world.read(seen.id)
        assert world.read(seen.id).state[world.phone] == "3"  # type: ignore[union-attr]

    def test_gives_a_record_up_that_changes_all_the_time(self, world: World):
        """After three refusals at once the decision is asked, even if no mapped field moved."""
        seen = world.add(name="Fabrikam", phone="1")
        command = update(world, seen, world.record(phone="2"), seen=world.record(phone="1"))
        restless = _Restless(world, seen.id)

        result = carried_out(world, command, restless)

        assert result.status is OutcomeStatus.OBSERVED
        assert restless.patches == 4

    def test_without_a_version_writes_only_on_what_the_decision_saw(self, world: World):
        """Every write is conditional, also when no version is known."""
        seen = world.add(name="Fabrikam", phone="1")
        command = update(world, seen, world.record(phone="2"), expected_version=None)
        other = update(world, seen, world.record(phone="2"), expected_version=None, seen=world.record(phone="9"))

        assert carried_out(world, other).status is OutcomeStatus.OBSERVED
        assert carried_out(world, command).status is OutcomeStatus.WRITTEN

    @pytest.mark.parametrize("faults", [(a, b) for a in FAULTS for b in ("", *FAULTS)], ids="+".join)
    def test_loses_no_write_whatever_goes_wrong(self, world: World, faults: tuple[str, str]):
        """G1: the write is there at the end, once."""
        seen = world.add(name="Fabrikam", phone="1")
        command = update(world, seen, world.record(phone="2"))

        result = carried_out(world, command, Faulty(world.http, dict(enumerate(faults))))

        assert result.status in (OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED)
        assert result.observed == world.read(seen.id)
        assert world.read(seen.id).state == {**seen.state, **world.record(phone="2")}  # type: ignore[union-attr]

    def test_can_be_killed_between_any_two_steps(self, world: World):
        """Killed at each point, somebody edits, begun anew: no lost write, no overwritten edit."""
        for asks, arrives, edited in product(range(1, 4), (False, True), (False, True)):
            fresh = twin_world(world.system)
            seen = fresh.add(name="Fabrikam", phone="1")
            command = update(fresh, seen, fresh.record(phone="2"))
            steps_until(fresh, command, asks, last_answer_arrives=arrives)
            if edited:
                fresh.edit(seen.id, phone="3")

            result = carried_out(fresh, command)

            found = fresh.read(seen.id)
            assert found is not None
            assert result.observed == found
            assert found.state[fresh.phone] == ("3" if edited else "2")

    def test_says_missing_only_while_another_record_can_be_read(self, world: World):
        """A lost right or a changed company must not look like a deletion."""
        seen = world.add(name="Fabrikam")
        world.add(name="Other")
        world.remove(seen.id)
        command = update(world, seen, world.record(phone="2"))

        assert carried_out(world, command).status is OutcomeStatus.MISSING

        assert isinstance(world.http, Twin)
        world.http.unreadable = True
        result = carried_out(world, command)
        assert (result.status, result.code) == (OutcomeStatus.REJECTED, WriteForbidden.code)

    def test_rejects_a_404_for_something_that_the_record_refers_to(self, world: World):
        """The record is there; what is missing is the target of a lookup."""
        seen = world.add(name="Fabrikam")
        code = "Internal_RecordNotFound" if world.system is System.ERP else "0x80040217"
        port = _Answers(world, {0: Reply(status=404, body={"error": {"code": code, "message": "SECRET"}})})

        result = carried_out(world, update(world, seen, world.record(phone="2")), port)

        assert (result.status, result.code, result.detail) == (
            OutcomeStatus.REJECTED,
            Rejected.code,
            f"404 {code}",
        )

    def test_compares_as_the_transfer_does(self, world: World):
        """Trailing blanks do not make a record another one: it is still as the decision saw it."""
        seen = world.add(name="Fabrikam ", phone="1")
        command = update(world, seen, world.record(phone="2"), seen=world.record(name="Fabrikam", phone="1", city=None))
        world.edit(seen.id, key="C-11")

        assert carried_out(world, command).status is OutcomeStatus.WRITTEN


class TestDelete:
    def test_deletes_the_version_of_the_decision(self, world: World):
        """A delete is conditional like every other write."""
        seen = world.add(name="Fabrikam")
        command = a_command(world, CommandKind.DELETE, seen.id, expected_version=seen.version)
        world.edit(seen.id, phone="3")

        assert carried_out(world, command).status is OutcomeStatus.OBSERVED
        assert carried_out(world, replace(command, expected_version=None)).status is OutcomeStatus.DELETED
        assert carried_out(world, command).status is OutcomeStatus.DELETED

    @pytest.mark.parametrize("fault", FAULTS)
    def test_is_done_whatever_goes_wrong(self, world: World, fault: str):
        """A lost reply is looked up; a record that is gone is what was wanted."""
        seen = world.add(name="Fabrikam")
        command = a_command(world, CommandKind.DELETE, seen.id, expected_version=seen.version)

        result = carried_out(world, command, Faulty(world.http, {0: fault}))

        assert result.status is OutcomeStatus.DELETED
        assert world.read(seen.id) is None


class TestReadAndMatch:
    def test_reads_the_record(self, world: World):
        """READ reports what the target holds now."""
        seen = world.add(name="Fabrikam", phone="1")

        result = carried_out(world, a_command(world, CommandKind.READ, seen.id))

        assert (result.status, result.observed) == (OutcomeStatus.OBSERVED, seen)

    def test_reports_a_missing_record(self, world: World):
        """READ of what is gone, while others can be read."""
        world.add(name="Other")

        result = carried_out(world, a_command(world, CommandKind.READ, str(uuid.uuid4())))

        assert result.status is OutcomeStatus.MISSING

    def test_finds_nothing_where_nothing_matches(self, world: World):
        """MATCH only looks: an empty tuple when nothing does."""
        result = carried_out(world, match(world, world.record(name="Fabrikam")))

        assert (result.status, result.candidates) == (OutcomeStatus.MATCHED, ())

    def test_compares_keys_without_regard_to_case(self, world: World):
        """A number is compared as people compare it."""
        existing = world.add(name="Fabrikam", key="C-10")

        result = carried_out(world, match(world, world.record(key="c-10")))

        assert [hit.id for hit in result.candidates] == [existing.id]

    def test_asks_the_tests_in_their_order(self, world: World):
        """The first test that has any match decides, and only its matches are candidates."""
        world.add(name="Fabrikam")
        by_number = world.add(name="Other", key="C-10")

        result = carried_out(world, match(world, world.record(key="C-10"), world.record(name="fabrikam")))

        assert [hit.id for hit in result.candidates] == [by_number.id]

    def test_reports_every_candidate_of_an_ambiguous_match(self, world: World):
        """Which of two is meant is for a person to say."""
        twins = {world.add(name="Fabrikam").id, world.add(name="FABRIKAM").id}

        result = carried_out(world, match(world, world.record(name="Fabrikam")))

        assert {hit.id for hit in result.candidates} == twins

    def test_looks_within_the_filter_of_the_mapping(self, world: World):
        """A record outside the mapping's filter is no match."""
        world.add(name="Fabrikam", city="Berlin")
        world.add(name="Fabrikam", city="Rome", phone="1")
        blank = world.add(name="Fabrikam", city="Rome")
        within = {"within": world.record(city="Rome"), "within_blank_or": world.record(phone="2")}

        result = carried_out(world, match(world, world.record(name="Fabrikam"), **within))

        assert [hit.id for hit in result.candidates] == [blank.id]


class _Restless:
    """Somebody edits an unmapped field before every write."""

    def __init__(self, world: World, record_id: str) -> None:
        self._world, self._id = world, record_id
        self.patches = 0

    def call(self, method: str, path: str, **more):
        if method == "PATCH":
            self.patches += 1
            self._world.edit(self._id, city=f"city {self.patches}")
        return self._world.http.call(method, path, **more)


class _Answers:
    """Says what it is told to for some calls."""

    def __init__(self, world: World, replies: dict[int, Reply]) -> None:
        self._world, self._replies, self._calls = world, replies, 0

    def call(self, method: str, path: str, **more):
        self._calls += 1
        reply = self._replies.get(self._calls - 1)
        return reply if reply is not None else self._world.http.call(method, path, **more)
