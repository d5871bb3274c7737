"""What would be sent for one record, and why each of its fields has its value: for `drawbar mappings preview`.

Pure: the rows, the mappings and the time go in. What is shown is made by the functions that the stages run, `decide`,
`Turn.issue` and the requests of the sink, so it is what would happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from consumers import requests
from drawbar.business_central import BusinessCentral
from drawbar.dataverse import Dataverse
from drawbar.entities import Entity, Kind, SystemAdapter
from processors.coupling import side_of
from processors.decide import (
    Claim,
    Context,
    Decided,
    Decision,
    Issue,
    Park,
    Reject,
    Settle,
    Skip,
    Wait,
    decide,
    test_print,
)
from processors.mapping import Direction, EntityMapping, FieldMapping, source_of, target_of
from processors.transfer import Bad, Carried, Known, Leave, Missing, carry, equal
from processors.transforms import transformed
from processors.turn import Turn, World
from processors.view import normal_key
from schemas.coupling import Matched, Pair, PairState, Row, Side
from schemas.records import CommandKind, System, Value, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLine:
    """One line of a mapping at one record. Values are in words that tell nothing of a customer, unless asked for."""

    source: str
    target: str
    before: str
    after: str
    why: str
    then: str  # what becomes of it now: written, held already, stands, …


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRequest:
    """What would go over the wire, without the sign-in."""

    when: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """One direction of one pair."""

    mapping: str
    direction: str
    verdict: str
    lines: tuple[ShownLine, ...]
    requests: tuple[ShownRequest, ...] = field(default=())


def preview(
    row: Row,
    direction: Direction,
    world: World,
    adapter: SystemAdapter,
    *,
    fields: Sequence[str],
    now: datetime,
    values: bool,
) -> Preview | None:
    """What would happen in this direction if the record were decided now; None where the row has no source for it.

    `fields`: those that the sink wants in the reply to a write.
    """
    mapping = world.mappings[row.mapping]
    pair = row.pair or Pair()
    source = side_of(pair, source_of(direction))
    if source is None or source.deleted or not mapping.flows(direction):
        return None
    context = Context(prints=world.prints, company_id=world.company_id)
    idle = replace(pair, in_flight=None)
    decided = decide(idle, mapping, world.view, context)
    if idle.state is PairState.SINGLE:
        steps = _steps_of_a_single(idle, decided, mapping, world, context)
    else:
        steps = [("now", decided)]
    last = steps[-1][1]
    telling = _Telling(mapping, direction, world, idle, values=values)
    return Preview(
        mapping=mapping.name,
        direction=direction,
        verdict=telling.verdict(pair, last),
        lines=tuple(telling.lines(source, last)),
        requests=tuple(
            shown
            for when, issue in _issues(steps, telling.all_at_once(source, last), direction)
            for shown in telling.asked(when, replace(row, pair=idle), issue, adapter, fields, now)
        ),
    )


def _issues(
    steps: Iterable[tuple[str, Decided]], otherwise: Issue | None, direction: str
) -> Iterator[tuple[str, Issue]]:
    """What would be sent and when; or, where nothing is due, what the record would come to if all of it changed."""
    found = [
        (when, decision)
        for when, step in steps
        for decision in step.decisions
        if isinstance(decision, Issue) and decision.direction == direction
    ]
    yield from found
    if not found and otherwise is not None:
        yield "if every field had changed", otherwise


def _steps_of_a_single(
    pair: Pair, decided: Decided, mapping: EntityMapping, world: World, context: Context
) -> list[tuple[str, Decided]]:
    """A look-up comes first; what follows when it finds nothing is the last step."""
    first = decided.decisions[0]
    if not isinstance(first, Issue) or first.kind is not CommandKind.MATCH:
        return [("now", decided)]
    found_nothing = replace(pair, matched=Matched(test=test_print(first.tests, world.prints)))
    return [("first", decided), ("if nothing is found", decide(found_nothing, mapping, world.view, context))]


@dataclass(frozen=True, slots=True)
class _Telling:
    mapping: EntityMapping
    direction: Direction
    world: World
    pair: Pair
    values: bool

    # --- in one sentence --------------------------------------------------------------------------------------------

    def verdict(self, pair: Pair, decided: Decided) -> str:
        if pair.in_flight is not None:
            command = pair.in_flight.command
            return f"a command is under way ({command.kind.value}); this is what would follow if it changed nothing"
        mine = [item for item in decided.decisions if item.direction in (self.direction, "", "conflict")]
        said = "; ".join(dict.fromkeys(self._said(item) for item in mine)) or "nothing is decided in this direction"
        is_kept = self.direction in pair.kept_back and any(isinstance(item, Issue) for item in mine)
        return f"{said}; a brake keeps it back" if is_kept else said

    def _said(self, decision: Decision) -> str:

        match decision:
            case Issue(kind=kind):
                return f"{kind.value} in the {self._target.value.upper()}"
            case Skip(reason="unchanged"):
                return "nothing is sent: the target holds it already"
            case Skip(reason=reason):
                return f"nothing is sent: {reason}"
            case Wait(error=error, missing=missing):
                return f"waits: {error.slug} {', '.join(missing)}"
            case Reject(error=error, fields=names, missing=missing):
                return f"dead letter: {error.code} {error.slug} {', '.join((*names, *missing))}".rstrip()
            case Claim(candidate=candidate):
                return f"couples with {self._target}:{self.mapping.entity_in(self._target)}:{candidate}"
            case Settle(how=how):
                return f"the pair comes apart: {how}"
            case Park():
                return "nothing is sent while it is being coupled"
        raise AssertionError(decision)

    # --- line by line -----------------------------------------------------------------------------------------------

    def lines(self, source: Side, decided: Decided) -> Iterable[ShownLine]:

        target = side_of(self.pair, self._target)
        coupled = target if target is not None and not target.deleted else None
        for line in self.mapping.lines(self.direction):
            here, there = line.name_in(self._source), line.name_in(self._target)
            if not line.is_made and here not in source.state:
                yield ShownLine(
                    source=here, target=there, before="", after="", why="not captured yet", then="left alone"
                )
                continue
            value = None if line.is_made else source.state[here]
            held = coupled.state.get(there) if coupled is not None else None
            carried = carry(line, value, self.direction, self.world.view, creating=coupled is None, held=held)
            yield ShownLine(
                source="" if line.is_made else here,
                target=there,
                before="" if line.is_made else self._value(value, is_id=line.type == "id"),
                after=self._after(line, carried),
                why=self._why(line, value, carried),
                then=self._then(line, carried, coupled, decided),
            )

    def _after(self, line: FieldMapping, carried: Carried) -> str:

        if not isinstance(carried, Known):
            return ""
        return self._value(carried.value, is_id=line.type == "id" or line.owner is not None or line.options is not None)

    def _why(self, line: FieldMapping, value: Value, carried: Carried) -> str:

        match carried:
            case Leave(reason=reason):
                return f"left because {reason}"
            case Missing(error=error, missing=missing):
                return f"{error.slug}: {missing}"
            case Bad(error=error):
                return error.slug
        if line.company:
            return "the CRM row of this company"
        if line.team:
            return "the company's team owns a new record"
        if line.owner is not None:
            is_team = str(carried.value).startswith("team:")
            return "no owner: the company's team" if is_team else f"owner, coupled by {line.owner}"
        if line.currency:
            code = value if self.direction == "to_crm" else carried.value
            own = code is None or normal_key(code) == self.world.view.local_currency
            return "the company's own currency" if own else "currency, by its coupling or code"
        if line.rate:
            return f"divided by the base currency's rate, {self.world.view.base_rate}"
        if value is None:
            return "blank"
        if line.options is not None:
            return f"option, by the codes of {line.reference}"
        if line.reference is not None:
            if carried.value is None:
                return f"not coupled by {line.reference}: cleared"
            return f"reference, coupled by {line.reference}"
        return self._plainly(line, value, carried.value)

    def _plainly(self, line: FieldMapping, value: Value, after: Value) -> str:

        if (
            line.transform is not None
            and transformed(value, line.transform, to_crm=self.direction == "to_crm") == after
        ):
            return f"transform {line.transform}"
        said = [f"transform {line.transform}"] if line.transform is not None else []
        length = line.length_in(self._target)
        if (
            isinstance(value, str)
            and isinstance(after, str)
            and length is not None
            and len(after) < len(value) > length
        ):
            said.append(f"cut to {length} characters")
        if line.type == "code" and self.direction == "to_erp" and after != value and not said:
            said.append("a code: upper case")
        return ", ".join(said) or "as it is"

    def _then(self, line: FieldMapping, carried: Carried, target: Side | None, decided: Decided) -> str:

        there = line.name_in(self._target)
        here = line.name_in(self._source)
        issues = {item.direction: item for item in decided.decisions if isinstance(item, Issue)}
        mine, other = issues.get(self.direction), issues.get(_other(self.direction))
        if mine is not None and there in mine.values:
            return "written"
        if not isinstance(carried, Known):
            return "waits" if isinstance(carried, Missing) else "left alone"
        if target is None:
            return "left to the target's default" if carried.value is None else "held back"
        if line.once:
            return "only when it is made"
        if there not in target.state:
            return "not captured yet"
        if equal(line, carried.value, target.state[there]):
            return "held already"
        if other is not None and here in other.values:
            return "goes the other way"
        kept = [item for item in decided.decisions if item.direction == self.direction]
        is_at_rest = any(getattr(item, "reason", "") == "unchanged" for item in kept) or mine is not None
        return "stands: nobody changed the source since" if is_at_rest else "held back"

    def all_at_once(self, source: Side, decided: Decided) -> Issue | None:
        """An update of every field that can be carried, for a pair that is at rest."""
        at_rest = Skip(direction=self.direction, reason="unchanged")
        if not any(isinstance(item, Skip) and replace(item, fields=()) == at_rest for item in decided.decisions):
            return None
        target = side_of(self.pair, self._target)
        assert target is not None
        values: dict[str, Value] = {}
        for line in self.mapping.lines(self.direction):
            here, there = line.name_in(self._source), line.name_in(self._target)
            if line.once or (not line.is_made and here not in source.state) or there not in target.state:
                continue
            held, view = target.state[there], self.world.view
            carried = carry(line, source.state.get(here), self.direction, view, creating=False, held=held)
            if isinstance(carried, Known):
                values[there] = carried.value
        return Issue(direction=self.direction, kind=CommandKind.UPDATE, values=values)

    # --- requests ---------------------------------------------------------------------------------------------------

    def asked(
        self, when: str, row: Row, issue: Issue, adapter: SystemAdapter, fields: Sequence[str], now: datetime
    ) -> Iterable[ShownRequest]:

        work = Work(message_id="preview", mapping=row.mapping, home=row.id)
        turn = Turn(work=work, row=row, mapping=self.mapping, world=self.world, now=now)
        turn.issue(self.pair, issue)
        command = turn.command
        if command is None:
            return
        entity = adapter.entity(command.target.entity)
        version = command.expected_version or ""
        if command.kind is CommandKind.MATCH:
            queries = adapter.match_queries(
                entity, command.tests, within=command.within, within_blank_or=command.within_blank_or
            )
            made = [requests.find_request(adapter, command, query, fields) for query in queries]
        elif command.kind is CommandKind.CREATE:
            made = [requests.create_request(adapter, command, fields)]
        elif command.kind is CommandKind.UPDATE:
            made = [requests.update_request(adapter, command, version, fields)]
        elif command.kind is CommandKind.DELETE:
            made = [requests.delete_request(adapter, command, version)]
        else:
            made = [requests.read_request(adapter, command, fields)]
        yield from (self._shown(when, request, entity) for request in made)

    def _shown(self, when: str, request: requests.Request, entity: Entity) -> ShownRequest:
        path = request.path
        if not self.values and "$filter=" in path:
            before, _, after = path.partition("$filter=")
            path = f"{before}$filter=…{after[after.index('&') :] if '&' in after else ''}"
        body = request.body
        if body is not None:
            body = {name: self._in_body(entity, name, value) for name, value in body.items()}
        return ShownRequest(when=when, method=request.method, path=path, headers=dict(request.headers), body=body)

    def _in_body(self, entity: Entity, name: str, value: Any) -> Any:
        is_id = "@odata.bind" in name or name == entity.id_field or entity.kind(name) is Kind.GUID
        return value if self.values or is_id or value is None else self._value(value, is_id=False)

    # --- shared -----------------------------------------------------------------------------------------------------

    def _value(self, value: Value, *, is_id: bool) -> str:
        if value is None:
            return "blank"
        if self.values or is_id:
            return str(value)
        if isinstance(value, str):
            return f"<text, {len(value)}>"
        return "<yes or no>" if isinstance(value, bool) else "<number>"

    @property
    def _source(self) -> System:
        return source_of(self.direction)

    @property
    def _target(self) -> System:
        return target_of(self.direction)


def _other(direction: str) -> str:
    return "to_erp" if direction == "to_crm" else "to_crm"


def adapters(company_id: str) -> Mapping[System, SystemAdapter]:

    return {System.ERP: BusinessCentral(company_id=company_id), System.CRM: Dataverse()}
