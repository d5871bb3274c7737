"""What the sink suites run on: one entity of one system, and commands for it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from consumers.execution import Result, Wait, carry_out, drive
from consumers.requests import Request
from consumers.worker import call
from drawbar.business_central import BusinessCentral
from drawbar.dataverse import Dataverse
from drawbar.entities import Entity, SystemAdapter, with_query
from drawbar.ports import Http
from schemas.records import Command, CommandKind, MatchTest, Observed, RecordRef, System, Value, Values
from tests.consumers.twin import Twin

COMPANY = "26814998-936a-401c-81c1-0e848a64971d"
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class World:
    """One system behind its port, and the names that a few fields have there."""

    http: Http
    adapter: SystemAdapter
    entity: Entity
    name: str
    key: str
    phone: str
    city: str

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.name, self.key, self.phone, self.city)

    @property
    def system(self) -> System:
        return self.adapter.system

    def record(self, **values: Value) -> dict[str, Value]:
        return {getattr(self, field): value for field, value in values.items()}

    def add(self, record_id: str = "", **values: Value) -> Observed:
        """Somebody else makes a record."""
        record_id = record_id or str(uuid.uuid4())
        body = {self.entity.id_field: record_id, **self.adapter.to_body(self.entity, self.record(**values))}
        path = self.adapter.collection_path(self.entity)
        if self.system is System.CRM:
            path = with_query(path, {"$select": self.adapter.select(self.entity, self.fields)})
        reply = self.http.call("POST", path, body=body, headers={"Prefer": "return=representation"})
        assert reply.status == 201, reply
        return self.adapter.to_observed(self.entity, reply.body, self.fields)

    def edit(self, record_id: str, **values: Value) -> None:
        """Somebody else edits a record."""
        reply = self.http.call(
            "PATCH",
            self.adapter.key_path(self.entity, record_id),
            body=self.adapter.to_body(self.entity, self.record(**values)),
            headers={"If-Match": "*"},
        )
        assert reply.status in (200, 204), reply

    def remove(self, record_id: str) -> None:
        reply = self.http.call("DELETE", self.adapter.key_path(self.entity, record_id), headers={"If-Match": "*"})
        assert reply.status == 204, reply

    def read(self, record_id: str) -> Observed | None:
        path = with_query(
            self.adapter.key_path(self.entity, record_id),
            {"$select": self.adapter.select(self.entity, self.fields)},
        )
        reply = self.http.call("GET", path)
        return self.adapter.to_observed(self.entity, reply.body, self.fields) if reply.status == 200 else None

    def named(self, name: str) -> list[Observed]:
        """All records of that name, by an independent look."""
        literal = name.replace("'", "''")
        path = with_query(
            self.adapter.collection_path(self.entity),
            {
                "$select": self.adapter.select(self.entity, self.fields),
                "$filter": f"{self.name} eq '{literal}'",
            },
        )
        reply = self.http.call("GET", path)
        return [self.adapter.to_observed(self.entity, row, self.fields) for row in reply.body["value"]]


def twin_world(system: System) -> World:
    return world_of(system, None)


def world_of(system: System, http: Http | None, company_id: str = COMPANY) -> World:
    adapter: SystemAdapter = BusinessCentral(company_id=company_id) if system is System.ERP else Dataverse()
    entity = adapter.entity("customer" if system is System.ERP else "account")
    names = (
        ("displayName", "number", "phoneNumber", "city")
        if system is System.ERP
        else ("name", "accountnumber", "telephone1", "address1_city")
    )
    return World(http or Twin(adapter, entity, names), adapter, entity, *names)


def create(world: World, values: Values) -> Command:
    return a_command(world, CommandKind.CREATE, str(uuid.uuid4()), values=values)


def match(world: World, *tests: Values, **more: Any) -> Command:
    return a_command(world, CommandKind.MATCH, "", tests=tuple(MatchTest(equals=test) for test in tests), **more)


def update(world: World, base: Observed, values: Values, **more: Any) -> Command:
    given: dict[str, Any] = {"expected_version": base.version, "seen": base.state, "values": values, **more}
    return a_command(world, CommandKind.UPDATE, base.id, **given)


def a_command(world: World, kind: CommandKind, record_id: str, **more: Any) -> Command:
    given: dict[str, Any] = {
        "command_id": str(uuid.uuid4()),
        "mapping": "customer-account",
        "home": record_id or "a-home",
        "kind": kind,
        "target": RecordRef(world.system, world.entity.name, record_id),
        "issued_at": NOW,
        **more,
    }
    return Command(**given)


def carried_out(world: World, command: Command, http: Http | None = None, *, patience: int = 20) -> Result:
    """Drive the command to its end. A machine that waits more than `patience` times fails the test."""
    waits: list[Wait] = []

    def wait(step: Wait) -> bool:
        waits.append(step)
        assert len(waits) <= patience, f"still waiting: {step}"
        return True

    port = http or world.http
    return drive(carry_out(command, world.adapter, fields=world.fields), lambda request: call(port, request), wait)


def steps_until(world: World, command: Command, asks: int, *, last_answer_arrives: bool) -> bool:
    """Carry out the first `asks` requests and die there. Whether the command got that far without ending."""
    machine = carry_out(command, world.adapter, fields=world.fields)
    try:
        step = machine.send(None)
        for number in range(1, asks + 1):
            while isinstance(step, Wait):
                step = machine.send(True)
            answer = call(world.http, step.request)
            if number == asks and not last_answer_arrives:
                return True
            step = machine.send(answer)
    except StopIteration:
        return False
    return True


def requests_of(world: World, command: Command) -> list[Request]:
    """The requests of an undisturbed run."""
    asked: list[Request] = []

    def answer(request: Request) -> Any:
        asked.append(request)
        return call(world.http, request)

    drive(carry_out(command, world.adapter, fields=world.fields), answer, lambda _: True)
    return asked
