"""Rows, letters and a bus in memory for the tests of the operating commands; a test says only what it is about."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

import typer
from msgspec.structs import replace
from typer.testing import CliRunner

from drawbar.cli.running import Running
from drawbar.cli.shared import new_app
from drawbar.ports import InMessage, OutMessage
from drawbar.rows import News, Rows, Watch
from drawbar.settings import Settings
from processors.mapping import EntityMapping
from processors.mapping_files import load_mappings
from schemas.codec import decode
from schemas.coupling import Hold, Pair, PairState, Row, Side
from schemas.errors import OwnerNotCoupled, RecordError, SinkError
from schemas.records import DeadLetter, JournalLine, LetterState, Order, Value, Work, home_key

NOW = datetime.now(timezone.utc)
PEOPLE, CUSTOMERS = "salesperson-systemuser", "customer-account"
JR, PS = "5a1e5000-0000-4000-8000-000000000001", "5a1e5000-0000-4000-8000-000000000002"
JANE, PETE = "00005e70-0000-4000-8000-000000000001", "00005e70-0000-4000-8000-000000000002"
CONTOSO = "c0570500-0000-4000-8000-000000000001"


@cache
def shipped() -> Mapping[str, EntityMapping]:
    return load_mappings(None)


def a_side(record_id: str, *, deleted: bool = False, **state: Value) -> Side:
    return Side(id=record_id, version=f'W/"{record_id[-1]}"', order=1, modified_at=NOW, state=state, deleted=deleted)


def a_salesperson(record_id: str = JR, *, code: str = "JR", **state: Value) -> Side:
    return a_side(record_id, code=code, displayName="Jo Roe", **state)


def a_user(record_id: str = JANE, *, email: str = "jane@contoso.com", **state: Value) -> Side:
    return a_side(record_id, internalemailaddress=email, fullname="Jane Roe", **state)


def a_row(
    mapping: str = PEOPLE,
    *,
    erp: Side | None = None,
    crm: Side | None = None,
    state: PairState = PairState.SINGLE,
    holds: Mapping[str, Hold] | None = None,
    **pair: Any,
) -> Row:
    """A row with a pair, at the home of its ERP record (of its CRM record, when that is alone)."""
    side = erp or crm
    assert side is not None
    at = NOW - timedelta(minutes=3) if state is PairState.COUPLED else None
    made = Pair(state=state, erp=erp, crm=crm, coupled_at=at, holds=holds or {}, **pair)
    return Row(mapping=mapping, id=side.id, pair=made)


def a_letter(
    letter_id: str = "1e77e400-0000-4000-8000-000000000001",
    *,
    error: type[RecordError | SinkError] = OwnerNotCoupled,
    home: str = CONTOSO,
    missing: str = f"erp:salesperson:{JR}",
    age_s: float = 60,
    **fields: Any,
) -> DeadLetter:
    given: dict[str, Any] = {
        "mapping": CUSTOMERS,
        "ref": f"erp:customer:{home}",
        "direction": "to_crm",
        "cause": f"{error.slug} {missing}".strip(),
        "topic": "pairs.work",
        "partition": 0,
        "offset": 7,
        "next_step": error.next_step,
    }
    at = NOW - timedelta(seconds=age_s)
    return DeadLetter(
        letter_id=letter_id,
        code=error.code,
        slug=error.slug,
        home=home,
        missing=missing,
        opened_at=at,
        changed_at=at,
        **{**given, **fields},
    )


def no_answer(_message: OutMessage) -> Sequence[News]:
    return ()


@dataclass
class FakeRows:
    """Implements `drawbar.rows.Rows`. `answer` says what each message that is sent brings about."""

    known: Sequence[Row] = ()
    opened: Sequence[DeadLetter] = ()
    kept: Mapping[str, InMessage] = field(default_factory=dict)
    journal: Sequence[JournalLine] = ()
    published: Sequence[InMessage] = ()
    answer: Callable[[OutMessage], Sequence[News]] = no_answer
    sent: list[OutMessage] = field(default_factory=list)
    sent_again: list[tuple[str, tuple[OutMessage, ...]]] = field(default_factory=list)
    asked: list[frozenset[str] | None] = field(default_factory=list)
    news: deque[News] = field(default_factory=deque)
    unreadable: int = 0

    def rows(self, keys: Iterable[str] | None = None) -> dict[str, Row]:
        wanted = None if keys is None else frozenset(keys)
        self.asked.append(wanted)
        found = {home_key(row.mapping, row.id): row for row in self.known}
        return {key: row for key, row in found.items() if wanted is None or key in wanted}

    def letters(self) -> dict[str, DeadLetter]:
        return {letter.letter_id: letter for letter in self.opened}

    def originals(self, letters: Iterable[DeadLetter]) -> dict[str, InMessage]:
        return {letter.letter_id: self.kept[letter.letter_id] for letter in letters if letter.letter_id in self.kept}

    def lines(self, keys: Iterable[str], *, last: int) -> list[JournalLine]:
        wanted = frozenset(keys)
        return [line for line in self.journal if home_key(line.mapping, line.home) in wanted][-last:]

    def changes(self, topic: str, *, last: int | None, follow: bool) -> Iterator[InMessage]:
        found = [message for message in self.published if message.topic == topic]
        yield from found if last is None else found[-last:]

    @contextmanager
    def watch(self, keys: Iterable[str]) -> Iterator[Watch]:
        yield self

    def take(self, timeout_s: float) -> Sequence[News]:
        found = list(self.news)
        self.news.clear()
        return found

    def send(self, messages: Sequence[OutMessage]) -> None:
        for message in messages:
            self.sent.append(message)
            self.news.extend(self.answer(message))

    def send_again(self, letter: DeadLetter, messages: Sequence[OutMessage]) -> None:
        self.sent_again.append((letter.letter_id, tuple(messages)))

    @property
    def orders(self) -> list[tuple[str, Order]]:
        """Key and order of everything that was asked of a home."""
        works = [(message.key.decode(), decode(Work, message.value)) for message in self.sent]
        return [(key, work.order) for key, work in works if work.order is not None]


_: type[Rows] = FakeRows


def order_in(message: OutMessage) -> Order:
    order = decode(Work, message.value).order
    assert order is not None
    return order


def a_line(event: str, *, home: str, mapping: str = PEOPLE, **fields: Any) -> JournalLine:
    given = {"line_id": f"{event}-{len(fields)}", "at": NOW, "ref": f"erp:salesperson:{home}"}
    return JournalLine(mapping=mapping, home=home, event=event, **{**given, **fields})


@dataclass(frozen=True)
class Result:
    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def run(
    app: typer.Typer,
    *args: str,
    rows: Rows | None = None,
    answers: str | None = None,
    mappings: Mapping[str, EntityMapping] | None = None,
    settings: Settings | None = None,
) -> Result:
    """Run a command on rows in memory."""
    obj = None
    if rows is not None:
        obj = Running(rows=rows, mappings=mappings or shipped(), settings=settings or Settings())
    result = CliRunner().invoke(app, list(args), obj=obj, input=answers)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def app_of(command: Callable[..., None]) -> typer.Typer:
    """A program of one command, as the whole command line would mount it."""
    app = new_app("test")
    app.command()(command)
    app.command("another")(lambda: None)  # a group of one command would take its name for an argument
    return app


def discarded(letter: DeadLetter) -> DeadLetter:
    return replace(letter, state=LetterState.DISCARDED)
