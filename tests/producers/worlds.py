"""Two small systems, a ledger and a clock inside one process, in which every call can be the last.

`SimBusinessCentral` and `SimDataverse` are `drawbar.ports.Http` with just the behaviour that capture depends on, the
nasty parts included: late commits, pages that shift under the reader, deletes nobody announces, forgotten delta links.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from drawbar.business_central import BusinessCentral
from drawbar.dataverse import Dataverse
from drawbar.ports import InMessage, NoReply, OutMessage, Reply
from drawbar.settings import CaptureSettings
from producers.capture import Subject, field_set_of, to_position
from producers.entity import EntityCapture, Fenced
from producers.sources import BusinessCentralSource, DataverseSource, Source
from schemas.codec import decode
from schemas.errors import BusUnavailable
from schemas.records import ChangeEvent, Operation, System
from schemas.topics import WATERMARKS

START = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)
BROKEN_NAME = "broken"  # shown as a list, which no field can be
COMPANY = "11111111-0000-4000-8000-000000000001"


class Killed(BaseException):
    """SIGKILL: no code of ours may catch it."""


class SimClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(slots=True)
class Fate:
    """What shall go wrong, and when: counted in calls to the outside."""

    calls: int = 0
    kill_at: int = -1
    answers: list[Reply | NoReply] = field(default_factory=list)  # instead of the next answers
    meanwhile: list[tuple[int, Callable[[], None]]] = field(default_factory=list)  # what others do at which call
    publish_fails: int = 0  # of the next publications: done, but with an error for an answer

    def call(self) -> None:
        self.calls += 1
        due = [act for at, act in self.meanwhile if at <= self.calls]
        self.meanwhile = [(at, act) for at, act in self.meanwhile if at > self.calls]
        for act in due:
            act()
        if self.calls == self.kill_at:
            raise Killed

    def answer(self) -> Reply | None:
        if not self.answers:
            return None
        answer = self.answers.pop(0)
        if isinstance(answer, NoReply):
            raise answer
        return answer


@dataclass(slots=True)
class Row:
    id: str
    name: str
    version: int
    modified_ms: int


class World:
    """The records of one entity as their owner sees them, and the history of their committed states."""

    system: System
    entity: str

    def __init__(self, clock: SimClock, fate: Fate) -> None:
        self.clock = clock
        self.fate = fate
        self.rows: dict[str, Row] = {}
        self.locked: dict[str, Row] = {}  # written, not yet committed
        self.history: list[tuple[str, str]] = []  # (id, version), oldest first
        self.versions = 1000
        self.deleted: list[tuple[str, int]] = []
        self.page_limit = 3
        self.hidden = False  # every record is out of our sight, as after a lost right

    def create(self, name: str = "new") -> str:
        record_id = f"00000000-0000-4000-8000-{len(self.history) + 1:012d}"
        self.commit(self._written(record_id, name))
        return record_id

    def edit(self, record_id: str, name: str = "edited") -> None:
        if record_id in self.rows and record_id not in self.locked:
            self.commit(self._written(record_id, name))

    def begin_edit(self, record_id: str, name: str = "late") -> None:
        """Write, and keep the transaction open: the row is dated now, and seen later."""
        if record_id in self.rows and record_id not in self.locked:
            self.locked[record_id] = self._written(record_id, name)

    def commit_late(self) -> None:
        for row in list(self.locked.values()):
            del self.locked[row.id]
            self.commit(row)

    def delete(self, record_id: str) -> None:
        if record_id in self.rows and record_id not in self.locked:
            del self.rows[record_id]
            self.versions += 1
            self.deleted.append((record_id, self.versions))

    def commit(self, row: Row) -> None:
        self.rows[row.id] = row
        self.history.append((row.id, self.etag(row)))

    def _written(self, record_id: str, name: str) -> Row:
        self.versions += 1
        return Row(record_id, name, self.versions, int(self.clock.now().timestamp() * 1000))

    def visible(self) -> list[Row]:
        return [] if self.hidden else list(self.rows.values())

    def etag(self, row: Row) -> str:
        return f'W/"{row.version}"'

    def source(self, fields: Sequence[str]) -> Source:
        raise NotImplementedError

    # --- drawbar.ports.Http ---------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Reply:
        assert method == "GET"
        self.fate.call()
        given = self.fate.answer()
        if given is not None:
            return given
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        key = re.search(r"\(([0-9a-f-]{36})\)$", parts.path.rstrip("/"))
        if key and not parts.path.endswith(f"companies({COMPANY})"):
            found = [row for row in self.visible() if row.id == key[1]]
            if not found:
                return Reply(status=404, body={"error": {"code": self.not_found, "message": "not there"}})
            return Reply(status=200, body=self.to_json(found[0]))
        prefer = (headers or {}).get("Prefer", "")
        asked = re.search(r"odata.maxpagesize=(\d+)", prefer)
        size = min(self.page_limit, int(asked[1]) if asked else 5000)
        return self.page(parts.path, query, size)

    def shown(self, row: Row) -> Any:
        """The name as the API shows it: text, or what no name can be."""
        return [row.name] if row.name == BROKEN_NAME else row.name

    not_found = ""

    def to_json(self, row: Row) -> dict[str, Any]:
        raise NotImplementedError

    def page(self, path: str, query: Mapping[str, str], size: int) -> Reply:
        raise NotImplementedError


class SimBusinessCentral(World):
    """Pages are counted from the start, so that a row that moves makes the others shift."""

    system, entity = System.ERP, "customer"
    not_found = "BadRequest_ResourceNotFound"

    def source(self, fields: Sequence[str] = ("displayName",)) -> BusinessCentralSource:
        adapter = BusinessCentral(company_id=COMPANY)
        return BusinessCentralSource(adapter, "customer", fields, http=self, clock=self.clock, page_size=20_000)

    def to_json(self, row: Row) -> dict[str, Any]:
        at = to_position(datetime.fromtimestamp(row.modified_ms / 1000, timezone.utc))
        return {
            "@odata.etag": self.etag(row),
            "id": row.id,
            "displayName": self.shown(row),
            "number": row.name,
            "lastModifiedDateTime": at,
        }

    def page(self, path: str, query: Mapping[str, str], size: int) -> Reply:
        rows = [self.to_json(row) for row in self.visible()]
        condition = query.get("$filter", "")
        if since := re.fullmatch(r"lastModifiedDateTime gt (\S+)", condition):
            rows = [row for row in rows if row["lastModifiedDateTime"] > since[1]]
        elif condition:
            wanted = set(re.findall(r"id eq (\S+)", condition))
            rows = [row for row in rows if row["id"] in wanted]
        field_name = query.get("$orderby", "id asc").split()[0]
        rows.sort(key=lambda row: (row[field_name], row["id"]))
        start = int(query.get("$skiptoken", "0"))
        chosen = set(query["$select"].split(",")) | {"@odata.etag"}
        body: dict[str, Any] = {
            "value": [{name: row[name] for name in row if name in chosen} for row in rows[start : start + size]]
        }
        if len(rows) > start + size:
            kept = "&".join(f"{name}={quote(value)}" for name, value in query.items() if name != "$skiptoken")
            body["@odata.nextLink"] = f"https://erp/{path}?{kept}&$skiptoken={start + size}"
        return Reply(status=200, body=body)


class SimDataverse(World):
    system, entity = System.CRM, "account"
    not_found = "0x80040217"

    def __init__(self, clock: SimClock, fate: Fate) -> None:
        super().__init__(clock, fate)
        self.oldest_version = 0  # delta links from before are forgotten

    def source(self, fields: Sequence[str] = ("name",)) -> DataverseSource:
        return DataverseSource(Dataverse(), "account", fields, http=self, clock=self.clock, page_size=5000)

    def expire(self) -> None:
        self.versions += 1
        self.oldest_version = self.versions

    def to_json(self, row: Row) -> dict[str, Any]:
        at = datetime.fromtimestamp(row.modified_ms // 1000, timezone.utc)
        return {
            "@odata.etag": self.etag(row),
            "accountid": row.id,
            "name": self.shown(row),
            "accountnumber": row.name,
            "versionnumber": row.version,
            "modifiedon": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def page(self, path: str, query: Mapping[str, str], size: int) -> Reply:
        if self.hidden:  # a list under change tracking needs the right to see all
            return Reply(status=403, body={"error": {"code": "0x80040220", "message": "no right"}})
        # The list is fixed with its first page, as the link that leads on carries all that is left of it.
        if "$skiptoken" in query:
            ids, gone, upto = _unpack(query["$skiptoken"])
        else:
            since = int(query.get("$deltatoken", "0").partition("!")[0])
            if 0 < since < self.oldest_version:
                return Reply(status=400, body={"error": {"code": "0x80044352", "message": "expired"}})
            upto = min([self.versions, *(row.version - 1 for row in self.locked.values())])
            changed = sorted(
                (row for row in self.visible() if row.version > since), key=lambda row: (row.version, row.id)
            )
            ids = [row.id for row in changed]
            gone = [record_id for record_id, version in self.deleted if version > since > 0]
        now, rest = ids[:size], ids[size:]
        value = [self.to_json(self.rows[record_id]) for record_id in now if record_id in self.rows and not self.hidden]
        if rest:
            link = f"https://crm/{path}?$skiptoken={quote(_pack(rest, gone, upto))}"
            return Reply(status=200, body={"value": value, "@odata.nextLink": link})
        value += [
            {"@odata.context": "https://crm/$metadata#accounts/$deletedEntity", "id": record_id, "reason": "deleted"}
            for record_id in gone
        ]
        link = f"https://crm/{path}?$deltatoken={upto}%21now"
        return Reply(status=200, body={"value": value, "@odata.deltaLink": link})


def _pack(ids: Sequence[str], gone: Sequence[str], upto: int) -> str:
    return ";".join([",".join(ids), ",".join(gone), str(upto)])


def _unpack(text: str) -> tuple[list[str], list[str], int]:
    ids, gone, upto = unquote(text).split(";")
    return [each for each in ids.split(",") if each], [each for each in gone.split(",") if each], int(upto)


class Store:
    """What a broker keeps: committed messages by topic, and who may write."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.topics: dict[str, list[InMessage]] = {}
        self.epoch = 0
        self.before_publish: Callable[[Sequence[OutMessage]], None] = lambda _: None

    def events(self) -> list[ChangeEvent]:
        return [
            decode(ChangeEvent, message.value)
            for topic, messages in self.topics.items()
            if topic.endswith(".changes")
            for message in messages
            if message.value is not None
        ]

    def commit(self, messages: Iterable[OutMessage]) -> None:
        for message in messages:
            log = self.topics.setdefault(message.topic, [])
            log.append(
                InMessage(
                    topic=message.topic,
                    partition=0,
                    offset=len(log),
                    key=message.key,
                    value=message.value,
                    headers=message.headers,
                )
            )


class SimLedger:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.epoch = -1

    def take_over(self) -> None:
        self.store.fate.call()
        self.store.epoch += 1
        self.epoch = self.store.epoch

    def read(self, topic: str) -> list[InMessage]:
        self.store.fate.call()
        return list(self.store.topics.get(topic, []))

    def publish(self, messages: Sequence[OutMessage]) -> None:
        self.store.fate.call()
        if self.epoch != self.store.epoch:
            raise Fenced("test")
        self.store.before_publish(messages)
        self.store.commit(messages)
        self.store.fate.call()  # killed after the commit, before we know of it
        if self.store.fate.publish_fails:
            self.store.fate.publish_fails -= 1
            raise BusUnavailable("the answer to the commit was lost")

    def place(self, message: OutMessage) -> tuple[int, int]:
        self.publish([message])
        return 0, len(self.store.topics[message.topic]) - 1


class Rig:
    """One entity under capture, in a world that can be made to go wrong."""

    def __init__(self, kind: type[World] = SimBusinessCentral, **settings: Any) -> None:
        self.fate = Fate()
        self.clock = SimClock()
        self.world = kind(self.clock, self.fate)
        self.store = Store(self.fate)
        self.store.before_publish = self._no_delete_of_what_can_be_read
        self.settings = CaptureSettings(**settings)
        self.fields: tuple[str, ...] = ("displayName",) if self.world.system is System.ERP else ("name",)
        self.machine = self.start()

    def start(self) -> EntityCapture:
        """A new process takes the entity over."""
        self.machine = EntityCapture(
            self.world.source(self.fields),
            SimLedger(self.store),
            self.clock,
            subject=Subject(system=self.world.system, entity=self.world.entity, field_set=field_set_of(self.fields)),
            settings=self.settings,
        )
        return self.machine

    def step(self, after_s: float = 0.0) -> None:
        """Let time pass and do what is due; a process that is killed is started again."""
        self.clock.seconds += after_s
        try:
            self.machine.step()
        except Killed:
            self.start()

    def look(self, *, sweep: bool = True) -> None:
        self.machine.look(sweep=sweep)
        self.step()

    def settle(self) -> None:
        """Let the world be still and whole until capture has found nothing for a while."""
        self.world.commit_late()
        self.fate.answers.clear()
        self.fate.publish_fails = 0
        for _ in range(12):
            self.step(after_s=61.0)
        assert self.machine.status()["state"] == "polling", self.machine.status()

    def published(self, record_id: str) -> list[ChangeEvent]:
        return [event for event in self.store.events() if event.ref.id == record_id]

    def last(self) -> dict[str, str]:
        """The last published version of each record that is not deleted."""
        last = {event.ref.id: event for event in self.store.events()}
        return {
            record_id: event.version for record_id, event in last.items() if event.operation is not Operation.DELETE
        }

    def truth(self) -> dict[str, str]:
        return {row.id: self.world.etag(row) for row in self.world.rows.values()}

    def watermarks(self) -> list[InMessage]:
        return self.store.topics.get(WATERMARKS, [])

    def _no_delete_of_what_can_be_read(self, messages: Sequence[OutMessage]) -> None:
        for message in messages:
            if message.topic.endswith(".changes") and message.value is not None:
                event = decode(ChangeEvent, message.value)
                if event.operation is Operation.DELETE:
                    assert event.ref.id not in self.world.rows, "a delete of a record that is there"
