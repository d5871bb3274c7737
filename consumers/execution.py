"""Carry out one command: a state machine over requests and replies.

Pure: a generator that yields what it wants (`Ask` a request, or `Wait` before it asks again) and is sent the answer;
whoever drives it holds HTTP, clock and threads. It may be dropped between any two steps: every write is conditional on
a version or creates under an id that is the command's own, so to begin anew does no harm.

What a look-up finds is *observed*, never taken for *written*: between a write whose reply was lost and the look-up
somebody else may have written too, and only the decision can tell what that means.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar, Union

from typing_extensions import assert_never

from consumers.requests import (
    Meaning,
    Request,
    create_request,
    delete_request,
    error_detail,
    find_request,
    meaning_of,
    next_page_request,
    probe_request,
    read_request,
    update_request,
)
from drawbar.entities import Entity, MatchQuery, SystemAdapter
from drawbar.ports import NoReply, Reply
from schemas.errors import KeyTaken, Rejected, SinkError, WriteForbidden
from schemas.records import Command, CommandKind, MatchTest, Observed, Outcome, OutcomeStatus, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send this request; the answer is its Reply, or the NoReply that it ended in."""

    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Pause before the request is asked again; the answer is whether to go on (False: give the command up)."""

    meaning: Meaning  # THROTTLED, SHUT, UNSURE, FAULT or FORBIDDEN
    failures: int  # of this command so far, refusals for its speed not counted
    reply: Reply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the command; with a time and a clock skew it is an outcome."""

    status: OutcomeStatus
    observed: Observed | None = None
    candidates: tuple[Observed, ...] = ()
    code: str = ""
    detail: str = ""
    requests: int = 0


T = TypeVar("T")
Step = Union[Ask, Wait]
Answer = Union[Reply, NoReply, bool, None]
Machine = Generator[Step, Answer, Result]


def carry_out(
    command: Command, adapter: SystemAdapter, *, fields: Sequence[str] = (), busy_retries: int = 3
) -> Machine:
    """The machine of one command.

    `fields`: what replies shall hold besides the fields that the command names. `busy_retries`: how often a refusal
    for a new version, in which nothing mapped has changed, is answered by trying again at once.
    """
    return _Execution(command, adapter, fields, busy_retries).run()


def drive(machine: Machine, answer: Callable[[Request], Reply | NoReply], wait: Callable[[Wait], bool]) -> Result:
    """Run a machine to its end in this thread."""
    reply: Answer = None
    while True:
        try:
            step = machine.send(reply)
        except StopIteration as end:
            result: Result = end.value
            return result
        reply = answer(step.request) if isinstance(step, Ask) else wait(step)


def to_outcome(command: Command, result: Result, *, at: datetime, skew_ms: int) -> Outcome:
    """The outcome that answers the command. `at`: when the last reply arrived, by our clock."""
    return Outcome(
        command_id=command.command_id,
        mapping=command.mapping,
        home=command.home,
        status=result.status,
        target=command.target,
        observed=result.observed,
        candidates=result.candidates,
        code=result.code,
        detail=result.detail,
        requests=result.requests,
        skew_ms=skew_ms,
        at=at,
    )


class _GivenUp(Exception):
    def __init__(self, error: type[SinkError], detail: str) -> None:
        super().__init__(detail)
        self.error = error
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Said:
    """What a request came to. `reply` is None when none came."""

    meaning: Meaning
    reply: Reply | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    records: tuple[Observed, ...]
    next_link: str


_Steps = Generator[Step, Answer, _Said]
_Looked = Generator[Step, Answer, Union[Observed, None]]


class _Execution:
    def __init__(self, command: Command, adapter: SystemAdapter, fields: Sequence[str], busy_retries: int) -> None:
        self._command = command
        self._adapter = adapter
        self._entity: Entity = adapter.entity(command.target.entity)
        tested = [name for test in command.tests for name in test.equals]
        scope = [*command.within, *command.within_blank_or]
        self._fields = tuple(dict.fromkeys((*fields, *command.seen, *command.values)))
        self._found_fields = tuple(dict.fromkeys((*self._fields, *tested, *scope)))
        self._busy_retries = busy_retries
        self._requests = 0
        self._failures = 0

    def run(self) -> Machine:
        try:
            result = yield from self._by_kind()
        except _GivenUp as end:
            result = Result(status=OutcomeStatus.REJECTED, code=end.error.code, detail=end.detail)
        except ValueError as fault:
            # the adapter's way to say that the command holds what cannot be sent: names, never values
            result = Result(status=OutcomeStatus.REJECTED, code=Rejected.code, detail=str(fault))
        return Result(
            status=result.status,
            observed=result.observed,
            candidates=result.candidates,
            code=result.code,
            detail=result.detail,
            requests=self._requests,
        )

    def _by_kind(self) -> Machine:
        kind = self._command.kind
        if kind is CommandKind.CREATE:
            return (yield from self._create())
        if kind is CommandKind.UPDATE:
            return (yield from self._update())
        if kind is CommandKind.DELETE:
            return (yield from self._delete())
        if kind is CommandKind.READ:
            found = yield from self._read()
            return _seen(found) if found else (yield from self._missing())
        if kind is CommandKind.MATCH:
            return Result(status=OutcomeStatus.MATCHED, candidates=(yield from self._find()))
        assert_never(kind)

    # --- create ---------------------------------------------------------------------------------------------------

    def _create(self) -> Machine:
        """Create under our id. A lost reply is looked up by that id before it is tried again."""
        request = create_request(self._adapter, self._command, self._fields)
        while True:
            said = yield from self._ask(request)
            written = self._written(said)
            if written is not None:
                return Result(status=OutcomeStatus.WRITTEN, observed=written)
            if said.meaning in (Meaning.THROTTLED, Meaning.SHUT, Meaning.FORBIDDEN):
                yield from self._wait(said)
                continue
            if said.meaning not in (Meaning.DONE, Meaning.UNSURE, Meaning.FAULT, Meaning.TAKEN):
                raise self._refused(said)
            existing = yield from self._read()
            if existing is not None:
                return _seen(existing)
            if said.meaning is Meaning.TAKEN:
                raise self._refused(said)
            yield from self._wait(said)

    # --- update ---------------------------------------------------------------------------------------------------

    def _update(self) -> Machine:
        """PATCH under the version of the decision. Under another one only if the mapped fields are as it saw them."""
        version, busy = self._command.expected_version, 0
        said: _Said | None = None
        while True:
            if version is None:
                fresh = yield from self._read()
                if fresh is None:
                    return (yield from self._missing(said))
                if not self._is_as_seen(fresh) or busy > self._busy_retries:
                    return _seen(fresh)
                version = fresh.version
            said = yield from self._ask(update_request(self._adapter, self._command, version, self._fields))
            written = self._written(said)
            if written is not None:
                return Result(status=OutcomeStatus.WRITTEN, observed=written)
            if said.meaning in (Meaning.THROTTLED, Meaning.SHUT, Meaning.FORBIDDEN):
                yield from self._wait(said)
            elif said.meaning in (Meaning.DONE, Meaning.UNSURE, Meaning.FAULT):
                yield from self._wait(said)
                version = None
            elif said.meaning is Meaning.CHANGED:
                busy += 1
                version = None
            elif said.meaning is Meaning.MISSING:
                version = None
                existing = yield from self._read()
                if existing is not None:
                    raise self._refused(said)  # the record is there: what is missing is something it refers to
                return (yield from self._missing(said))
            else:
                raise self._refused(said)

    def _is_as_seen(self, fresh: Observed) -> bool:
        """Whether nothing that the decision looked at is different now, and its values are still to be written."""
        seen, values = self._command.seen, self._command.values
        if any(name not in seen for name in values):
            return False  # the decision did not know what it would write over
        if any(name not in fresh.state or not same_value(fresh.state[name], value) for name, value in seen.items()):
            return False
        return any(not same_value(seen[name], value) for name, value in values.items())

    # --- delete, read ---------------------------------------------------------------------------------------------

    def _delete(self) -> Machine:
        version = self._command.expected_version
        while True:
            if version is None:
                fresh = yield from self._read()
                if fresh is None:
                    return Result(status=OutcomeStatus.DELETED)
                if self._command.expected_version not in (None, fresh.version):
                    return _seen(fresh)
                version = fresh.version
            said = yield from self._ask(delete_request(self._adapter, self._command, version))
            if said.meaning in (Meaning.DONE, Meaning.MISSING):
                return Result(status=OutcomeStatus.DELETED)
            if said.meaning in (Meaning.THROTTLED, Meaning.SHUT, Meaning.FORBIDDEN):
                yield from self._wait(said)
            elif said.meaning in (Meaning.UNSURE, Meaning.FAULT):
                yield from self._wait(said)
                version = None
            elif said.meaning is Meaning.CHANGED:
                found = yield from self._read()
                return _seen(found) if found else Result(status=OutcomeStatus.DELETED)
            else:
                raise self._refused(said)

    def _read(self) -> _Looked:
        """The record by its id; None when the system says that there is none."""
        return (yield from self._look(read_request(self._adapter, self._command, self._fields), self._record))

    def _missing(self, said: _Said | None = None) -> Machine:
        """A 404 counts as missing while another record of the entity can be read: a lost right looks the same."""
        if (yield from self._look(probe_request(self._adapter, self._command), _rows)):
            return Result(status=OutcomeStatus.MISSING)
        detail = self._detail(said) if said is not None else "404"
        raise _GivenUp(WriteForbidden, f"{detail}; no other record of {self._entity.name} can be read either")

    # --- find -----------------------------------------------------------------------------------------------------

    def _find(self) -> Generator[Step, Answer, tuple[Observed, ...]]:
        """The matches of the first test that has any, in the order of the tests."""
        command = self._command
        queries = self._queries(command.tests)
        for query in queries:
            rows = yield from self._all_rows(query)
            for place in query.tests:
                hits = _hits(rows, command.tests[place], asked_alone=len(query.tests) == 1)
                if hits:
                    return hits
            if rows and len(query.tests) > 1:
                # The system's idea of equality is wider than ours (accents, width): ask it test by test.
                return (yield from self._find_singly())
        return ()

    def _find_singly(self) -> Generator[Step, Answer, tuple[Observed, ...]]:
        for test in self._command.tests:
            (query,) = self._queries((test,))
            hits = _hits((yield from self._all_rows(query)), test, asked_alone=True)
            if hits:
                return hits
        return ()

    def _queries(self, tests: Sequence[MatchTest]) -> tuple[MatchQuery, ...]:
        return self._adapter.match_queries(
            self._entity, tests, within=self._command.within, within_blank_or=self._command.within_blank_or
        )

    def _all_rows(self, query: MatchQuery) -> Generator[Step, Answer, tuple[Observed, ...]]:
        request = find_request(self._adapter, self._command, query, self._found_fields)
        found: tuple[Observed, ...] = ()
        while True:
            page = yield from self._look(request, self._page)
            if page is None:
                return found  # no record can hold such a value
            found += page.records
            if not page.next_link:
                return found
            request = next_page_request(page.next_link)

    # --- one request ----------------------------------------------------------------------------------------------

    def _ask(self, request: Request) -> _Steps:
        self._requests += 1
        answer = yield Ask(request=request)
        if isinstance(answer, NoReply):
            return _Said(Meaning.UNSURE if answer.sent else Meaning.SHUT, None)
        assert isinstance(answer, Reply)
        return _Said(meaning_of(self._adapter.system, request.verb, answer), answer)

    def _look(self, request: Request, read: Callable[[Reply], T]) -> Generator[Step, Answer, Union[T, None]]:
        """For requests that change nothing: asked again until there is an answer that `read` can read.

        None when the system says that there is no such record. `read` raises ValueError for nonsense.
        """
        while True:
            said = yield from self._ask(request)
            if said.meaning is Meaning.MISSING:
                return None
            if said.meaning is Meaning.DONE and said.reply is not None:
                try:
                    return read(said.reply)
                except ValueError:
                    said = _Said(Meaning.UNSURE, said.reply)
            if said.meaning not in _PASSING:
                raise self._refused(said)
            yield from self._wait(said)

    def _wait(self, said: _Said) -> Generator[Step, Answer, None]:
        if said.meaning is not Meaning.THROTTLED:
            self._failures += 1
        meaning = Meaning.UNSURE if said.meaning is Meaning.DONE else said.meaning
        go_on = yield Wait(meaning=meaning, failures=self._failures, reply=said.reply)
        if not go_on:
            raise self._refused(said)

    def _written(self, said: _Said) -> Observed | None:
        """The record in the reply to a write; None when it was not done, or the reply does not say what came of it."""
        if said.meaning is not Meaning.DONE or said.reply is None:
            return None
        try:
            return self._record(said.reply)
        except ValueError:
            return None

    def _record(self, reply: Reply) -> Observed:
        if not isinstance(reply.body, Mapping):
            raise ValueError("a reply without a record")  # noqa: TRY004
        return self._adapter.to_observed(self._entity, reply.body, self._fields)

    def _page(self, reply: Reply) -> _Page:
        rows = _rows(reply)
        link = reply.body.get("@odata.nextLink")
        return _Page(
            records=tuple(self._adapter.to_observed(self._entity, row, self._found_fields) for row in rows),
            next_link=link if isinstance(link, str) else "",
        )

    def _refused(self, said: _Said) -> _GivenUp:
        return _GivenUp(_ERRORS.get(said.meaning, Rejected), self._detail(said))

    def _detail(self, said: _Said) -> str:
        return error_detail(said.reply, self._command.values) if said.reply is not None else "no answer"


_ERRORS: Mapping[Meaning, type[SinkError]] = {Meaning.FORBIDDEN: WriteForbidden, Meaning.TAKEN: KeyTaken}
_PASSING = frozenset({Meaning.THROTTLED, Meaning.SHUT, Meaning.UNSURE, Meaning.FAULT, Meaning.FORBIDDEN})


def _seen(observed: Observed) -> Result:
    return Result(status=OutcomeStatus.OBSERVED, observed=observed)


def _rows(reply: Reply) -> list[Mapping[str, Any]]:
    rows = reply.body.get("value") if isinstance(reply.body, Mapping) else None
    if not isinstance(rows, list):
        raise ValueError("a reply without rows")  # noqa: TRY004 - what the server sent, not a wrong argument
    return rows


# --- comparing ----------------------------------------------------------------------------------------------------


def same_value(left: Value, right: Value) -> bool:
    """Equal as the field transfer sees it: blank is blank, trailing blanks do not count, numbers count by value."""
    if isinstance(left, str) or isinstance(right, str) or left is None or right is None:
        return _trimmed(left) == _trimmed(right)
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    return Decimal(left) == Decimal(right)


def _trimmed(value: Value) -> Value:
    return (value.rstrip() or None) if isinstance(value, str) else value


def _hits(rows: tuple[Observed, ...], test: MatchTest, *, asked_alone: bool) -> tuple[Observed, ...]:
    """The rows that meet a test. What was found for it alone does, but for letter case, which no query looks at."""
    if asked_alone and not test.exact:
        return rows
    return tuple(row for row in rows if test.is_met_by(row.state))
