"""Read the two systems: pages of changes, one record, several records, all ids.

Each source knows the ways of one system and hides them behind `Source`, so that the worker drives both alike. What
an answer other than the one hoped for means is one table, `FAILURES`. A source never retries: it raises
`SourceFault`, which says what is to happen next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, Protocol

from drawbar.asking import error_code, known_status, says_missing
from drawbar.business_central import BusinessCentral
from drawbar.dataverse import Dataverse
from drawbar.entities import Entity, Joined, SystemAdapter, with_query
from drawbar.odata import retry_after_s, to_json
from drawbar.ports import Clock, Http, NoReply, Reply
from producers.capture import next_position, stamp
from schemas.errors import (
    AccessError,
    DrawbarError,
    PositionExpired,
    PrivilegeMissing,
    SettingsError,
    SourceBroken,
    Throttled,
    TokenRefused,
    Unavailable,
    Unreachable,
)
from schemas.records import Observed, System, Value

IDS_PER_READ = 40  # ids in one filter: 40 of 45 characters keep the address below the 2 KB that proxies let through


class Next(str, Enum):
    """What happens after a failure. RETRY: again after a pause, for ever, shown. SNAPSHOT: read everything anew.
    STOP: somebody must act; shown as an error, and looked at again once a minute or on a hint.
    """

    RETRY = "retry"
    SNAPSHOT = "snapshot"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One line of the table: what an answer means, under which code it is shown, what happens next."""

    meaning: str
    error: type[DrawbarError]
    next: Next


_DOWN = Failure(meaning="the system is down or overloaded", error=Unavailable, next=Next.RETRY)
_REFUSED = Failure(meaning="the system refuses the question", error=SourceBroken, next=Next.STOP)
_FORGOTTEN = Failure(meaning="the system no longer knows our position", error=PositionExpired, next=Next.SNAPSHOT)
_NONSENSE = Failure(meaning="the answer is not what the API promises", error=SourceBroken, next=Next.RETRY)
_NO_REPLY = Failure(meaning="no answer came", error=Unreachable, next=Next.RETRY)

# By HTTP status. 404 is that of a set; a single record that is not there is no failure.
FAILURES: Mapping[int, Failure] = {
    400: _REFUSED,
    401: Failure(meaning="a fresh token is refused", error=TokenRefused, next=Next.STOP),
    403: Failure(meaning="a right is missing", error=PrivilegeMissing, next=Next.STOP),
    404: Failure(meaning="no such company or entity set", error=SettingsError, next=Next.STOP),
    408: _DOWN,
    410: _FORGOTTEN,
    413: Failure(meaning="the page size is above the limit", error=SettingsError, next=Next.STOP),
    429: Failure(meaning="the system asks us to slow down", error=Throttled, next=Next.RETRY),
    500: _DOWN,
    501: _REFUSED,
    502: _DOWN,
    503: _DOWN,
    504: _DOWN,
}
# By the system's own error code, before the status. Source: Dataverse Web API, change tracking.
FAILURES_BY_CODE: Mapping[str, Failure] = {
    "0x80044352": _FORGOTTEN,
    "0x80072491": Failure(meaning="change tracking is off for this table", error=SettingsError, next=Next.STOP),
}


class SourceFault(Exception):
    """A question was not answered as hoped. The text names status and codes, never values."""

    def __init__(self, failure: Failure, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{failure.meaning}: {detail}")
        self.next = failure.next
        self.code = failure.error.code
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A row with id and version that otherwise is not what the API promises. `body`: the row as JSON."""

    id: str
    version: str
    body: bytes
    fault: str  # what reading it ran into; no values


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of changes."""

    rows: tuple[Observed, ...]
    unreadable: tuple[Unreadable, ...] = ()
    deleted: tuple[str, ...] = ()  # ids that the source says are deleted; CRM only
    position: str = ""  # where to go on once this page is published; blank: where it was
    is_last: bool = True
    captured_at: datetime


class Source(Protocol):
    """One entity of one system, to be read. Every method raises SourceFault."""

    @property
    def system(self) -> System: ...

    @property
    def entity(self) -> str: ...

    @property
    def reports_deletes(self) -> bool:
        """Whether pages of changes carry deletes; if not, only a sweep of all ids finds them."""
        ...

    @property
    def requests(self) -> int:
        """Requests made so far."""
        ...

    def changes(self, position: str) -> Iterator[Page]:
        """What changed after `position`, oldest first; everything when it is blank."""
        ...

    def record(self, record_id: str) -> Observed | Unreadable | None:
        """One record; None when the system says that there is none of this id."""
        ...

    def records(self, record_ids: Sequence[str]) -> Iterator[Page]:
        """Those of the records that are there."""
        ...

    def ids(self) -> Iterator[Mapping[str, str]]:
        """The stamps of all records by their ids, page by page."""
        ...


class _ODataSource:
    """What both sources do alike: ask, count, and tell a failure from an answer."""

    _adapter: SystemAdapter
    reports_deletes: ClassVar[bool]

    def __init__(
        self, adapter: SystemAdapter, entity: str, fields: Sequence[str], *, http: Http, clock: Clock, page_size: int
    ) -> None:
        self._adapter = adapter
        self._entity: Entity = adapter.entity(entity)
        self._fields = tuple(fields)
        self._derived = tuple(name for name in fields if name in self._entity.changing)
        self._query = _asked(adapter, self._entity, self._fields)
        self._http = http
        self._clock = clock
        self._page_size = page_size
        self.requests = 0

    @property
    def system(self) -> System:
        return self._entity.system

    @property
    def entity(self) -> str:
        return self._entity.name

    def record(self, record_id: str) -> Observed | Unreadable | None:
        path = with_query(self._adapter.key_path(self._entity, record_id), self._query)
        reply = self._ask(path, {})
        if says_missing(reply):
            return None
        return self._read(self._answer(reply))

    def _pages(self, path: str, prefer: str) -> Iterator[Mapping[str, Any]]:
        """The replies to `path` and to the next links that follow from it."""
        headers = {"Prefer": prefer}
        following: str | None = path
        while following:
            reply = self._answer(self._ask(following, headers))
            if not isinstance(reply.get("value"), list):
                raise SourceFault(_NONSENSE, "a list without `value`")
            following = reply.get("@odata.nextLink")
            yield reply

    def _ask(self, path: str, headers: Mapping[str, str]) -> Reply:
        self.requests += 1
        try:
            return self._http.call("GET", path, headers=headers)
        except NoReply as fault:
            cause = fault.__cause__
            error = type(cause) if isinstance(cause, AccessError) else Unreachable
            raise SourceFault(replace(_NO_REPLY, error=error), fault.reason) from fault

    def _answer(self, reply: Reply) -> Mapping[str, Any]:
        if reply.status == 200 and isinstance(reply.body, Mapping):
            return reply.body
        raise to_fault(reply, self._clock.now())

    def _page(self, rows: Sequence[Mapping[str, Any]]) -> Page:
        read = [self._read(row) for row in rows]
        return Page(
            rows=tuple(row for row in read if isinstance(row, Observed)),
            unreadable=tuple(row for row in read if isinstance(row, Unreadable)),
            captured_at=self._clock.now(),
        )

    def _read(self, row: Mapping[str, Any]) -> Observed | Unreadable:
        try:
            return self._adapter.to_observed(self._entity, row, self._fields)
        except (ValueError, ArithmeticError) as fault:
            record_id, version = self._version(row)
            return Unreadable(id=record_id, version=version, body=to_json(row).encode(), fault=type(fault).__name__)

    def _version(self, row: Mapping[str, Any]) -> tuple[str, str]:
        try:
            bare = self._adapter.to_observed(self._entity, row, ())
        except ValueError as fault:
            raise SourceFault(_NONSENSE, f"a row of {self._entity.name} without id, version or time") from fault
        return bare.id, bare.version


class BusinessCentralSource(_ODataSource):
    """Changes by time of last modification, oldest first; deletes and late commits only by listing all ids.

    A position is the time from which on to read.
    """

    reports_deletes: ClassVar[bool] = False

    def __init__(
        self, adapter: BusinessCentral, entity: str, fields: Sequence[str], *, http: Http, clock: Clock, page_size: int
    ) -> None:
        super().__init__(adapter, entity, fields, http=http, clock=clock, page_size=page_size)
        self._said: dict[str, Mapping[str, Value]] = {}  # field -> what other sets say of each record, by its key

    def record(self, record_id: str) -> Observed | Unreadable | None:
        if not self._said:
            self._join()
        return super().record(record_id)

    def changes(self, position: str) -> Iterator[Page]:
        self._join()
        reached = position
        query = {
            **self._query,
            "$filter": f"lastModifiedDateTime gt {position}" if position else "",
            "$orderby": "lastModifiedDateTime asc",
        }
        for reply in self._list(query):
            page = self._page(reply["value"])
            reached = next_position(reached, page.rows)
            yield replace(page, position=reached, is_last="@odata.nextLink" not in reply)

    def records(self, record_ids: Sequence[str]) -> Iterator[Page]:
        if not self._said:
            self._join()
        for start in range(0, len(record_ids), IDS_PER_READ):
            wanted = record_ids[start : start + IDS_PER_READ]
            condition = " or ".join(f"{self._entity.id_field} eq {record_id}" for record_id in wanted)
            for reply in self._list({**self._query, "$filter": condition}):
                yield self._page(reply["value"])

    def ids(self) -> Iterator[Mapping[str, str]]:
        self._join()
        # By id, since ids never change: no row moves to another page while the pages are read.
        query = {**_asked(self._adapter, self._entity, self._derived), "$orderby": f"{self._entity.id_field} asc"}
        for reply in self._list(query):
            yield dict(self._stamp(row) for row in reply["value"])

    def _stamp(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Id and stamp; of a row that cannot be read, its version, which is never known: it is read again."""
        if not self._derived:
            return self._version(row)
        try:
            seen = self._adapter.to_observed(self._entity, self._joined(row), self._derived)
        except (ValueError, ArithmeticError):
            return self._version(row)
        return seen.id, stamp(seen.version, seen.state, self._derived)

    def _read(self, row: Mapping[str, Any]) -> Observed | Unreadable:
        return super()._read(self._joined(row))

    def _join(self) -> None:
        """Read what rows of other sets say of every record, as of today."""
        for name in self._derived:
            derived = self._entity.derived[name]
            if isinstance(derived, Joined):
                path = self._adapter.collection_path(replace(self._entity, entity_set=derived.entity_set))
                pages = self._pages(path, f"odata.maxpagesize={self._page_size}")
                rows = [row for page in pages for row in page["value"]]
                try:
                    self._said[name] = derived.of(rows, self._clock.now().date())
                except (KeyError, TypeError, ValueError, ArithmeticError) as fault:
                    raise SourceFault(_NONSENSE, f"a row of {derived.entity_set} that cannot be read") from fault

    def _joined(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        found = dict(row)
        for name, said in self._said.items():
            derived = self._entity.derived[name]
            assert isinstance(derived, Joined)
            found[name] = said.get(str(row.get(derived.key) or "").upper())
        return found

    def _list(self, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        path = with_query(self._adapter.collection_path(self._entity), query)
        return self._pages(path, f"odata.maxpagesize={self._page_size}")


class DataverseSource(_ODataSource):
    """Changes and deletes by delta link. A position is the link to the changes after it."""

    reports_deletes: ClassVar[bool] = True
    MAX_PAGE_SIZE: ClassVar[int] = 5000  # Dataverse refuses more

    def __init__(
        self, adapter: Dataverse, entity: str, fields: Sequence[str], *, http: Http, clock: Clock, page_size: int
    ) -> None:
        super().__init__(adapter, entity, fields, http=http, clock=clock, page_size=min(page_size, self.MAX_PAGE_SIZE))

    def changes(self, position: str) -> Iterator[Page]:
        start = position or with_query(self._adapter.collection_path(self._entity), self._query)
        prefer = f"odata.track-changes,odata.maxpagesize={self._page_size}"
        try:
            for reply in self._pages(start, prefer):
                yield self._changes_page(reply)
        except SourceFault as fault:
            if position and fault.code in (SourceBroken.code, SettingsError.code) and fault.next is Next.STOP:
                # A link that is refused, whatever the reason given, is a lost position; the set itself may be well.
                raise SourceFault(_FORGOTTEN, str(fault)) from fault
            raise

    def records(self, record_ids: Sequence[str]) -> Iterator[Page]:
        for record_id in record_ids:
            row = self.record(record_id)
            now = self._clock.now()
            if isinstance(row, Observed):
                yield Page(rows=(row,), captured_at=now)
            elif row is not None:
                yield Page(rows=(), unreadable=(row,), captured_at=now)

    def ids(self) -> Iterator[Mapping[str, str]]:
        query = {"$select": self._adapter.select(self._entity, ())}
        path = with_query(self._adapter.collection_path(self._entity), query)
        for reply in self._pages(path, f"odata.maxpagesize={self._page_size}"):
            yield dict(self._version(row) for row in reply["value"])

    def _changes_page(self, reply: Mapping[str, Any]) -> Page:
        link = reply.get("@odata.deltaLink", "")
        is_last = "@odata.nextLink" not in reply
        if is_last and not link:
            raise SourceFault(_NONSENSE, "the last page of changes without a delta link")
        gone = [row for row in reply["value"] if is_deleted_entry(row)]
        return replace(
            self._page([row for row in reply["value"] if not is_deleted_entry(row)]),
            deleted=tuple(str(row.get("id", "")).rstrip(")").rpartition("(")[2].lower() for row in gone),
            position=link,
            is_last=is_last,
        )


def _asked(adapter: SystemAdapter, entity: Entity, fields: Sequence[str]) -> dict[str, str]:
    """The query options under which a row says these fields."""
    return {"$select": adapter.select(entity, fields), "$expand": adapter.expand(entity, fields)}


def is_deleted_entry(row: Mapping[str, Any]) -> bool:
    return "$deletedEntity" in str(row.get("@odata.context", ""))


def to_fault(reply: Reply, now: datetime) -> SourceFault:
    """What a reply that is not the answer hoped for means."""
    code = error_code(reply)
    detail = f"status {reply.status}" + (f", {code}" if code else "") + ("" if reply.is_json else ", not JSON")
    failure = FAILURES_BY_CODE.get(code) or FAILURES.get(known_status(reply))
    if failure is None:
        failure = _DOWN if reply.status >= 500 else _NONSENSE
    if not reply.is_json and failure.next is Next.STOP and reply.status not in (401, 403):
        failure = _NONSENSE  # a page of some proxy says nothing about our question
    return SourceFault(failure, detail, retry_after_s=retry_after_s(reply, now))
