"""The contract of the sinks once more, on the wire: real HTTP, sign-in, ETags and refusals of the sandbox."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from drawbar.odata import ODataHttp, open_http
from drawbar.sandbox.server import SandboxOptions, start_in_thread
from drawbar.settings import Settings, from_connection
from schemas.errors import KeyTaken, Rejected
from schemas.records import CommandKind, MatchTest, OutcomeStatus, System, Value
from tests.consumers.twin import FAULTS, Faulty
from tests.consumers.worlds import World, a_command, carried_out, create, match, steps_until, update, world_of
from tests.sandbox.rounds import ROUNDS


@pytest.fixture(scope="module", params=ROUNDS)
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A sandbox for every way in which the services may answer."""
    folder, switches = tmp_path_factory.mktemp("sandbox"), ROUNDS[request.param]
    info, stop = start_in_thread(SandboxOptions(state_dir=folder, limits=False, switches=switches))
    connection = {**info, "bootstrap_servers": "nowhere:1"}
    yield Settings(**from_connection(connection))
    stop()


@pytest.fixture(scope="module", params=list(System), ids=str)
def world(request: pytest.FixtureRequest, settings: Settings) -> Iterator[World]:
    http = open_http(settings, request.param)
    yield world_of(request.param, http, settings.erp.company_id)
    http.close()


def a_name() -> str:
    return f"Fabrikam {uuid.uuid4().hex[:12]} O'Häns"


def ids_of(world: World, name: str) -> list[str]:
    return [row.id for row in world.named(name)]


class TestCreate:
    def test_gives_the_record_our_id(self, world: World):
        """The GUID that we chose is the record's, and the reply holds its state and version."""
        name = a_name()
        command = create(world, world.record(name=name, phone="+49 30 1"))

        result = carried_out(world, command)

        assert (result.status, result.detail) == (OutcomeStatus.WRITTEN, "")
        assert result.observed == world.read(command.target.id)
        assert ids_of(world, name) == [command.target.id]

    def test_carried_out_twice_makes_one_record(self, world: World):
        """A redelivered command finds what it made."""
        name = a_name()
        command = create(world, world.record(name=name))
        carried_out(world, command)

        result = carried_out(world, command)

        assert result.status is OutcomeStatus.OBSERVED
        assert ids_of(world, name) == [command.target.id]

    @pytest.mark.parametrize("fault", FAULTS)
    def test_makes_exactly_one_record_whatever_goes_wrong(self, world: World, fault: str):
        """G3 on the wire."""
        name = a_name()
        command = create(world, world.record(name=name))

        result = carried_out(world, command, Faulty(world.http, {0: fault}))

        assert result.status in (OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED)
        assert ids_of(world, name) == [command.target.id]

    def test_rejects_a_number_that_another_customer_has(self, world: World):
        """The ERP's business key is unique; its holder is not ours."""
        if world.system is System.CRM:
            pytest.skip("an account number is no key of the CRM by default")
        world.add(name=a_name(), key="TAKEN-1")

        result = carried_out(world, create(world, world.record(name=a_name(), key="TAKEN-1")))

        assert (result.status, result.code) == (OutcomeStatus.REJECTED, KeyTaken.code)
        assert "TAKEN" not in result.detail

    def test_rejects_an_update_into_the_number_of_another(self, world: World):
        """A rename onto a taken number changes nothing and says so."""
        if world.system is System.CRM:
            pytest.skip("an account number is no key of the CRM by default")
        world.add(name=a_name(), key="TAKEN-2")
        seen = world.add(name=a_name(), key="FREE-2")

        result = carried_out(world, update(world, seen, world.record(key="TAKEN-2")))

        assert (result.status, result.code) == (OutcomeStatus.REJECTED, KeyTaken.code)
        assert world.read(seen.id) == seen

    def test_rejects_a_text_that_is_too_long(self, world: World):
        """A refusal of the record is a dead letter with the target's code."""
        result = carried_out(world, create(world, world.record(name=a_name(), phone="1" * 200)))

        assert (result.status, result.code) == (OutcomeStatus.REJECTED, Rejected.code)
        assert "111" not in result.detail
        assert result.detail.startswith("400 ")


class TestUpdate:
    def test_writes_and_reports_the_new_version(self, world: World):
        """The reply to the write is the record as it is now."""
        seen = world.add(name=a_name(), phone="1")

        result = carried_out(world, update(world, seen, world.record(phone="2", city=None)))

        assert (result.status, result.requests, result.detail) == (OutcomeStatus.WRITTEN, 1, "")
        assert result.observed == world.read(seen.id)
        assert result.observed.state[world.phone] == "2"
        assert result.observed.version != seen.version
        assert result.observed.order >= seen.order

    def test_clears_a_field(self, world: World):
        """None is blank in both systems."""
        seen = world.add(name=a_name(), phone="1")

        result = carried_out(world, update(world, seen, world.record(phone=None)))

        assert result.observed is not None
        assert result.observed.state[world.phone] is None

    def test_writes_on_a_busy_record_when_nothing_it_looked_at_has_changed(self, world: World):
        """Refused for its version, tried again under the new one."""
        seen = world.add(name=a_name(), phone="1")
        command = update(world, seen, world.record(phone="2"), seen=world.record(phone="1"))
        world.edit(seen.id, city="Rome")

        result = carried_out(world, command)

        assert (result.status, result.requests) == (OutcomeStatus.WRITTEN, 3)

    def test_never_overwrites_an_edit_that_the_decision_did_not_see(self, world: World):
        """G4 on the wire."""
        seen = world.add(name=a_name(), phone="1")
        world.edit(seen.id, phone="3")

        result = carried_out(world, update(world, seen, world.record(phone="2")))

        assert result.status is OutcomeStatus.OBSERVED
        assert result.observed == world.read(seen.id)
        assert world.read(seen.id).state[world.phone] == "3"

    @pytest.mark.parametrize("fault", FAULTS)
    def test_loses_no_write_whatever_goes_wrong(self, world: World, fault: str):
        """G1 on the wire."""
        seen = world.add(name=a_name(), phone="1")

        result = carried_out(world, update(world, seen, world.record(phone="2")), Faulty(world.http, {0: fault}))

        assert result.observed == world.read(seen.id)
        assert result.observed.state[world.phone] == "2"

    @pytest.mark.parametrize("arrives", [False, True])
    def test_can_be_killed_after_its_write(self, world: World, arrives: bool):
        """The next worker finds the write and reports what it sees."""
        seen = world.add(name=a_name(), phone="1")
        command = update(world, seen, world.record(phone="2"))
        steps_until(world, command, 1, last_answer_arrives=arrives)

        result = carried_out(world, command)

        assert (result.status, result.observed) == (OutcomeStatus.OBSERVED, world.read(seen.id))

    def test_reports_a_missing_record(self, world: World):
        """Gone, while others can be read."""
        seen = world.add(name=a_name())
        world.remove(seen.id)

        result = carried_out(world, update(world, seen, world.record(phone="2")))

        assert result.status is OutcomeStatus.MISSING


class TestDelete:
    def test_is_conditional_and_repeatable(self, world: World):
        """An edited record is not deleted; a deleted one was what was wanted."""
        seen = world.add(name=a_name())
        stale = a_command(world, CommandKind.DELETE, seen.id, expected_version=seen.version)
        world.edit(seen.id, phone="3")
        fresh = a_command(world, CommandKind.DELETE, seen.id, expected_version=world.read(seen.id).version)

        statuses = [carried_out(world, command).status for command in (stale, fresh, fresh)]

        assert statuses == [OutcomeStatus.OBSERVED, OutcomeStatus.DELETED, OutcomeStatus.DELETED]


class TestReadAndMatch:
    def test_report_what_is_there(self, world: World):
        """READ and MATCH write nothing."""
        name = a_name()
        seen = world.add(name=name, phone="1")
        look = match(world, world.record(name=name))

        assert carried_out(world, a_command(world, CommandKind.READ, seen.id)).observed == seen
        assert [hit.id for hit in carried_out(world, look).candidates] == [seen.id]

    def test_match_without_regard_to_case(self, world: World):
        """Names and numbers are compared as people compare them."""
        name = a_name()
        existing = world.add(name=name, city="Rome")
        tests = (world.record(key="NOBODY-HAS-IT"), world.record(name=name.upper(), city="rome"))

        result = carried_out(world, match(world, *tests, within_blank_or=world.record(phone="1")))

        assert (result.status, [hit.id for hit in result.candidates]) == (OutcomeStatus.MATCHED, [existing.id])

    def test_match_with_regard_to_case_where_that_is_asked_for(self, world: World):
        """R106: an exact field differs in case and is no match; the next test is looked at."""
        name = a_name()
        existing = world.add(name=name, city="Rome")
        exactly, as_it_is, by_city = (
            world.record(name=name.upper()),
            world.record(name=name),
            world.record(city="ROME"),
        )
        field = next(iter(exactly))

        def look(*tests: MatchTest) -> list[str]:
            found = carried_out(world, a_command(world, CommandKind.MATCH, "", tests=tests))
            return [hit.id for hit in found.candidates]

        assert [] == look(MatchTest(equals=exactly, exact=(field,)))
        assert [existing.id] == look(MatchTest(equals=as_it_is, exact=(field,)))
        assert existing.id in look(MatchTest(equals=exactly, exact=(field,)), MatchTest(equals=by_city))

    def test_of_what_is_not_there(self, world: World):
        """MISSING, and no candidates."""
        look = match(world, world.record(name=a_name()))

        assert carried_out(world, a_command(world, CommandKind.READ, str(uuid.uuid4()))).status is OutcomeStatus.MISSING
        assert carried_out(world, look).candidates == ()

    def test_takes_a_value_that_fits_nowhere_for_no_match(self, world: World):
        """Looking for a text longer than the field is no fault of the record."""
        assert carried_out(world, match(world, world.record(key="X" * 50))).status is OutcomeStatus.MATCHED


class TestValues:
    def test_of_every_kind_come_back_as_they_were_written(self, settings: Settings, world: World):
        """Lookups, owners, choices, amounts, enum members: what is written is what is read."""
        values = _erp_values(world) if world.system is System.ERP else _crm_values(world, settings)
        command = create(world, {**world.record(name=a_name()), **values})

        result = carried_out(world, command)

        assert result.detail == ""
        assert result.observed is not None
        assert values == {name: result.observed.state[name] for name in values}

    def test_match_by_every_kind(self, settings: Settings, world: World):
        """A filter of each kind of value is understood, blank included."""
        values = _erp_values(world) if world.system is System.ERP else _crm_values(world, settings)
        name = a_name()
        carried_out(world, create(world, {**world.record(name=name), **values}))
        blank = world.record(city=None)
        look = match(world, world.record(name=name), within={**values, **blank}, within_blank_or=values)

        result = carried_out(world, look)

        assert [hit.state[world.name] for hit in result.candidates] == [name]


def _erp_values(world: World) -> dict[str, Value]:
    terms = _some_id(world.http, world, "paymentTerm")
    return {"blocked": "Ship", "type": "Person", "creditLimit": Decimal("1000.8"), "paymentTermsId": terms}


def _crm_values(world: World, settings: Settings) -> dict[str, Value]:
    company = _some_id(world.http, world, "bcbi_company")
    user = _some_id(world.http, world, "systemuser")
    return {
        "customertypecode": 3,
        "creditlimit": Decimal("1000.8"),
        "creditonhold": True,
        "bcbi_companyid": company,
        "ownerid": f"systemuser:{user}",
    }


def _some_id(http: Any, world: World, name: str) -> str:
    entity = world.adapter.entity(name)
    query = "&$filter=islicensed eq true and isdisabled eq false" if name == "systemuser" else ""
    reply = http.call("GET", f"{world.adapter.collection_path(entity)}?$select={entity.id_field}&$top=1{query}")
    return str(reply.body["value"][0][entity.id_field])


class TestODataHttp:
    def test_measures_no_skew_where_there_is_none(self, world: World):
        """Date headers have whole seconds: nothing is claimed within them."""
        world.named("nobody")
        assert isinstance(world.http, ODataHttp)

        assert world.http.skew_ms == 0
