"""What the rows of this process wait for, and the orders that make them go on.

`Waiting` is an index in memory over the rows that this process owns: it is kept up to date with every step and made
anew when partitions come. `Releaser` turns what becomes due into orders on `pairs.work`, at a bounded rate: a retry
when a missing record is coupled, a resend when a command is not answered, a retry when an order waits too long. An
order too many does no harm: its home decides again on what it holds.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec import Struct

from drawbar.ports import OutMessage
from processors.brakes import Brakes
from processors.homes import RELEASE
from processors.mapping import EntityMapping
from processors.tables import Outbox
from processors.view import BASE_RATE, ReferenceView, is_relied_on, relied_on
from schemas.codec import encode
from schemas.coupling import PairState, Row
from schemas.records import Order, OrderKind, System, Work, derived_id
from schemas.topics import PAIRS_WORK

DEFERRED_TIMEOUT_S = 60.0  # an order that waits this long with no command under way is looked at anew
COMPANY_TIMEOUT_S = (
    30.0  # so long after a start the company's row may be on its way; then the letter says it is missing
)
ASK_AGAIN_S = 60.0  # a row that was asked and did not move is not asked again before
LONGEST_RESEND = 16  # an unanswered command is sent again after 1, 2, 4 … times the timeout, at most this many times it
OUTDATED = 1000  # so many outdated entries the index of sendings may hold besides as many as are under way
SLICE_S = 0.05  # released rows are sent in slices of this length

# A row that holds none of these texts waits for nothing: a field that has its default is not named. The texts cannot
# stand inside a JSON string, where quotes are escaped, so no value of a record looks like them.
_MAY_WAIT = (b'"in_flight":', b'"holds":', b'"soft_missing":', b'"deferred":', b'"kept_back":', b'"state":"claiming"')


class Flight(Struct, frozen=True, gc=False):
    """A command under way."""

    system: System
    partition: int
    sent_at: datetime
    sends: int
    command_id: str
    issued_at: datetime

    def goes_on_as(self, other: Flight | None) -> bool:
        """Whether it is still the same command that is under way."""
        return other is not None and other.command_id == self.command_id


class Standing(Struct, frozen=True, kw_only=True, gc=False):
    """What one row waits for."""

    names: frozenset[str] = frozenset()
    flight: Flight | None = None
    deferred: bool = False
    kept_back: frozenset[str] = frozenset()  # directions in which a brake keeps a write back
    company: bool = False  # decided again when the company's row is known, and no letter says so yet
    claiming: bool = False

    @property
    def misses(self) -> bool:
        """Whether it waits for another record, and does not merely rely on one."""
        return not all(map(is_relied_on, self.names))

    @property
    def may_be_stuck(self) -> bool:
        """Whether it waits for something that may not come by itself."""
        return self.deferred or self.company or bool(self.kept_back)


_AT_REST_STANDING = Standing()


def standing_of(row: Row | None, partition: int) -> Standing:
    if row is None or row.pair is None:
        return Standing(deferred=True) if row is not None and row.deferred else _AT_REST_STANDING
    pair = row.pair
    missing = {name for hold in pair.holds.values() for name in hold.missing}
    flight = None
    if pair.in_flight is not None:
        command = pair.in_flight.command
        flight = Flight(
            command.target.system,
            partition,
            pair.in_flight.sent_at,
            pair.in_flight.sends,
            command.command_id,
            command.issued_at,
        )
    return Standing(
        names=frozenset(missing.union(pair.soft_missing)),
        flight=flight,
        deferred=bool(row.deferred) and flight is None,
        kept_back=frozenset(pair.kept_back if flight is None else ()),
        company="company" in pair.soft_missing and "company" not in missing,
        claiming=pair.state is PairState.CLAIMING,
    )


def may_wait(text: bytes) -> bool:
    """Whether the row with this text may wait for something: a look that is much cheaper than reading it."""
    return any(mark in text for mark in _MAY_WAIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What `status` shows of the rows of a process."""

    in_flight: int
    claiming: int
    deferred: int
    waiting: int
    kept_back: int
    oldest_in_flight_s: float
    unanswered: int  # commands that had to be sent again and are not answered yet
    unanswered_since: datetime | None  # when the first of them was issued


class Waiting:
    """The index. Times are those of one clock, aware UTC."""

    def __init__(self, *, command_timeout_s: float) -> None:
        self._timeout = timedelta(seconds=command_timeout_s)
        self._standing: dict[bytes, Standing] = {}
        self._since: dict[bytes, datetime] = {}  # when a row began to stand as it does, as far as this process saw it
        self._waiters: dict[str, set[bytes]] = defaultdict(set)
        self._answered: dict[tuple[System, int], datetime] = {}  # the latest sending that was answered
        self._flights: dict[bytes, Flight] = {}  # of the rows that have one
        self._by_age: list[tuple[datetime, bytes]] = []  # a heap of their sendings, with outdated entries in it
        self._stuck: set[bytes] = set()  # rows that may be stuck
        self._counts: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget every row; what was answered on a partition may have been answered elsewhere since."""
        self._standing.clear()
        self._since.clear()
        self._waiters.clear()
        self._answered.clear()
        self._flights.clear()
        self._by_age.clear()
        self._stuck.clear()
        self._counts.clear()

    def put(self, key: bytes, standing: Standing, *, now: datetime) -> None:
        before = self._standing.get(key, _AT_REST_STANDING)
        if before.flight is not None and not before.flight.goes_on_as(standing.flight):
            place = (before.flight.system, before.flight.partition)
            self._answered[place] = max(before.flight.sent_at, self._answered.get(place, before.flight.sent_at))
        for name in before.names - standing.names:
            self._waiters[name].discard(key)
            if not self._waiters[name]:
                del self._waiters[name]
        for name in standing.names - before.names:
            self._waiters[name].add(key)
        if standing == before:
            return
        self._index(key, before, standing)
        if standing == _AT_REST_STANDING:
            self._standing.pop(key, None)
            self._since.pop(key, None)
            return
        if (standing.deferred, standing.company, standing.kept_back) != (
            before.deferred,
            before.company,
            before.kept_back,
        ) or key not in self._since:
            self._since[key] = now
        self._standing[key] = standing

    def _index(self, key: bytes, before: Standing, standing: Standing) -> None:
        for mark in _marks(before):
            self._counts[mark] -= 1
        for mark in _marks(standing):
            self._counts[mark] += 1
        flight = standing.flight
        if flight is None:
            self._flights.pop(key, None)
        else:
            self._flights[key] = flight
            if before.flight is None or before.flight.sent_at != flight.sent_at:
                heapq.heappush(self._by_age, (flight.sent_at, key))
        if len(self._by_age) > 2 * len(self._flights) + OUTDATED:
            self._by_age = [(known.sent_at, other) for other, known in self._flights.items()]
            heapq.heapify(self._by_age)
        if standing.may_be_stuck:
            self._stuck.add(key)
        else:
            self._stuck.discard(key)

    def _oldest(self) -> datetime | None:
        """When the command was sent that is under way for longest."""
        while self._by_age:
            sent_at, key = self._by_age[0]
            flight = self._flights.get(key)
            if flight is not None and flight.sent_at == sent_at:
                return sent_at
            heapq.heappop(self._by_age)
        return None

    def waiters(self, name: str) -> Iterable[bytes]:
        return tuple(self._waiters.get(name, ()))

    def names(self) -> Iterable[str]:
        return tuple(self._waiters)

    def unanswered(self, now: datetime) -> Iterator[bytes]:
        """Rows whose command should be sent again.

        A command waits its turn as long as commands of the same partition that were sent before it are being
        answered: it is overdue when a later one was answered, or when it is the oldest and its time is up.
        """
        first, edge = self._oldest(), now - self._timeout
        if first is None or first > edge:  # as nearly always, while thousands may be under way
            return
        late = [(key, flight) for key, flight in self._flights.items() if flight.sent_at <= edge]
        oldest: dict[tuple[System, int], datetime] = {}
        for flight in self._flights.values():
            place = (flight.system, flight.partition)
            oldest[place] = min(flight.sent_at, oldest.get(place, flight.sent_at))
        for key, flight in late:
            place = (flight.system, flight.partition)
            if now - flight.sent_at < self._timeout * min(2 ** (flight.sends - 1), LONGEST_RESEND):
                continue
            answered = self._answered.get(place)
            if flight.sent_at == oldest[place] or (answered is not None and answered >= flight.sent_at):
                yield key

    def stuck(self, now: datetime, *, company_known: bool, brakes: Brakes) -> Iterator[tuple[bytes, str]]:
        """Rows that wait for something that will not come by itself, with the reason to name."""
        for key in self._stuck:
            standing = self._standing[key]
            waited_s = (now - self._since[key]).total_seconds()
            if standing.deferred and waited_s > DEFERRED_TIMEOUT_S:
                yield key, "timeout"
            elif standing.company and not company_known and waited_s > COMPANY_TIMEOUT_S:
                yield key, "company-unknown"
            elif standing.kept_back:
                mapping = key.decode().partition(":")[0]
                if not all(brakes.keeps_back(mapping, direction) for direction in standing.kept_back):
                    yield key, RELEASE

    def figures(self, now: datetime) -> Figures:
        counts = self._counts
        resent = [flight.issued_at for flight in self._flights.values() if flight.sends > 1] if counts["resent"] else []
        return Figures(
            in_flight=len(self._flights),
            claiming=counts["claiming"],
            deferred=counts["deferred"],
            waiting=counts["waiting"],
            kept_back=counts["kept_back"],
            oldest_in_flight_s=(now - (self._oldest() or now)).total_seconds(),
            unanswered=len(resent),
            unanswered_since=min(resent, default=None),
        )


def _marks(standing: Standing) -> Iterator[str]:
    """What a row counts as in the figures."""
    if standing.claiming:
        yield "claiming"
    if standing.deferred:
        yield "deferred"
    if standing.misses:
        yield "waiting"
    if standing.kept_back:
        yield "kept_back"
    if standing.flight is not None and standing.flight.sends > 1:
        yield "resent"


def is_there(name: str, view: ReferenceView, mappings: Mapping[str, EntityMapping]) -> bool:
    """Whether what a row names as missing can be had by now, as far as the view knows."""
    if name == "company":
        return view.company_crm_id is not None
    if name == "local-currency":
        return view.local_currency is not None
    if name == BASE_RATE:
        return view.base_rate is not None
    first, _, rest = name.partition(":")
    mapping_name, _, field = first.partition(".")
    if field and mapping_name in mappings:
        erp_field, _, erp_id = field.partition("@")
        if erp_id:
            return view.value_of(mapping_name, erp_field, erp_id) is not None
        return view.erp_id_by(mapping_name, field, rest) is not None
    if first == "currency":
        return view.currency_id(rest) is not None
    if first in mappings:
        return view.erp_id_by_key(first, rest) is not None
    if first not in ("erp", "crm"):
        return False
    system, (entity, _, record_id) = System(first), rest.partition(":")
    for mapping in mappings.values():
        if mapping.entity_in(system) != entity:
            continue
        if view.coupled_to(mapping.name, system, record_id) is not None:
            return True
        if mapping.role != "pair" and view.is_known(mapping.name, system, record_id):
            return True  # a table of codes: its rows need no counterpart
    return False


class Releaser:
    """Sends the orders. `due` takes rows in any number and any order; each is sent once until it moves."""

    def __init__(
        self,
        waiting: Waiting,
        outbox: Outbox,
        view: ReferenceView,
        mappings: Mapping[str, EntityMapping],
        *,
        per_s: float,
        brakes: Brakes,
        clock: Callable[[], datetime],
    ) -> None:
        self._waiting = waiting
        self._outbox = outbox
        self._view = view
        self._mappings = mappings
        self._per_s = per_s
        self._brakes = brakes
        self._clock = clock
        self._due: dict[bytes, tuple[OrderKind, str]] = {}
        self._asked: dict[bytes, datetime] = {}
        self._wake = asyncio.Event()
        self.released = 0

    @property
    def due_count(self) -> int:
        return len(self._due)

    def clear(self) -> None:
        """The rows have another owner now."""
        self._due.clear()
        self._asked.clear()

    def moved(self, key: bytes) -> None:
        """The row made a step: it may be asked again at any time."""
        self._asked.pop(key, None)

    def take_row(self, row: Row, *, owned: bool) -> None:
        """Take a row into the view. Whoever waits for what it brings is due."""
        news = list(self._view.apply(row))
        mapping = self._mappings.get(row.mapping)
        if mapping is not None and mapping.role != "pair" and row.pair is not None:
            for system, side in ((System.ERP, row.pair.erp), (System.CRM, row.pair.crm)):
                if side is not None and not side.deleted:
                    news.append(f"{system}:{mapping.entity_in(system)}:{side.id}")
        if owned:
            for name in [*news, *map(relied_on, news)]:
                for key in self._waiting.waiters(name):
                    self._add(key, OrderKind.RETRY, RELEASE)

    def look_at(self, key: bytes, standing: Standing) -> None:
        """A row began to wait: what it misses may have come while it was being decided."""
        if any(is_there(name, self._view, self._mappings) for name in standing.names):
            self._add(key, OrderKind.RETRY, RELEASE)

    def look_around(self) -> None:
        """Make due whoever waits for what is there already: asked when partitions have come."""
        for name in self._waiting.names():
            if is_there(name, self._view, self._mappings):
                for key in self._waiting.waiters(name):
                    self._add(key, OrderKind.RETRY, RELEASE)

    def look_at_the_clock(self) -> None:
        now = self._clock()
        for key in self._waiting.unanswered(now):
            self._ask(key, OrderKind.RESEND, "timeout", now)
        known = self._view.company_crm_id is not None
        for key, reason in self._waiting.stuck(now, company_known=known, brakes=self._brakes):
            self._ask(key, OrderKind.RETRY, reason, now)

    async def run(self) -> None:
        """Send what is due, for ever. Raises what `Outbox.confirmed` raises."""
        while True:
            await self._wake.wait()
            keys = list(self._due)[: max(1, int(self._per_s * SLICE_S))]
            messages = [self._order(key, *self._due.pop(key)) for key in keys]
            if not self._due:
                self._wake.clear()
            await self._outbox.send(messages)
            self.released += len(messages)
            await asyncio.sleep(len(messages) / self._per_s)

    def _ask(self, key: bytes, kind: OrderKind, reason: str, now: datetime) -> None:
        asked = self._asked.get(key)
        if asked is None or (now - asked).total_seconds() > ASK_AGAIN_S:
            self._asked[key] = now
            self._add(key, kind, reason)

    def _add(self, key: bytes, kind: OrderKind, reason: str) -> None:
        self._due.setdefault(key, (kind, reason))
        self._wake.set()

    def _order(self, key: bytes, kind: OrderKind, reason: str) -> OutMessage:
        mapping, _, home = key.decode().partition(":")
        order_id = derived_id("release", key.decode(), kind.value, reason, self._clock().isoformat())
        order = Order(order_id=order_id, kind=kind, by=reason)
        work = Work(message_id=order_id, mapping=mapping, home=home, order=order)
        return OutMessage(topic=PAIRS_WORK, key=key, value=encode(work))
