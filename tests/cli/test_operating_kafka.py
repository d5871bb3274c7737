"""The operating commands on a real Apache Kafka, with homes that decide as the processors do.

`Homes` takes the place of the process and sink stages: one thread that carries `processors.react` between the topics.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import pytest
from msgspec.structs import replace

from drawbar.bus.apache import ApacheKafka
from drawbar.bus.clients import make_admin, make_consumer, read_to_end
from drawbar.bus.topics import apply
from drawbar.cli import changes, couplings, dead_letters, explain
from drawbar.kafka_bus import KafkaBus
from drawbar.letters import bytes_letter, index_message, letter_message
from drawbar.ports import InMessage, OutMessage
from drawbar.rows import KafkaRows, to_in_message
from drawbar.settings import BusSettings
from processors.coupling import Fingerprints
from processors.react import World, react
from processors.view import ReferenceView
from schemas.codec import decode, encode, to_json
from schemas.coupling import PairState, Row
from schemas.errors import DrawbarError, Undecodable
from schemas.records import (
    ChangeEvent,
    Command,
    DeadLetter,
    LetterState,
    Observed,
    Operation,
    Outcome,
    OutcomeStatus,
    RecordRef,
    System,
    Value,
    Work,
    derived_id,
    home_key,
)
from schemas.topics import COUPLINGS, DEAD_LETTERS, JOURNAL, PAIRS_WORK, TOPICS, changes_topic
from tests.cli.rows_fake import CUSTOMERS, JANE, JR, PEOPLE, PETE, PS, Result, app_of, run, shipped
from tests.kafka_fixture import until

pytestmark = pytest.mark.kafka

COMPANY, COMPANY_ROW, TEAM = "c0bba000-0000-4000-8000-000000000001", "c0bba000-0000-4000-8000-000000000002", "7ea3"
ACME = "ac3e0000-0000-4000-8000-000000000001"


class Homes:
    """All homes of a small system, and sinks that always succeed."""

    def __init__(self, bus: BusSettings) -> None:
        self.bus = bus
        self.rows: dict[str, Row] = {}
        view = ReferenceView(shipped().values(), company_id=COMPANY)
        self.world = World(mappings=shipped(), view=view, prints=Fingerprints.of_key("test"), company_id=COMPANY)
        self.out = KafkaBus(bus, client_id="homes")
        self.letters: dict[str, DeadLetter] = {}
        self.crash: Exception | None = None
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Homes]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(30)
        if self.crash is not None:
            raise self.crash

    def changed(self, mapping: str, system: System, entity: str, record_id: str, order: int, **state: Value) -> None:
        """Capture brings a change."""
        now = datetime.now(timezone.utc)
        ref = RecordRef(system, entity, record_id)
        event = ChangeEvent(
            event_id=derived_id("event", ref, order),
            ref=ref,
            operation=Operation.CHANGE,
            version=f'W/"{order}"',
            order=order,
            modified_at=now,
            captured_at=now,
            after=state,
        )
        work = Work(message_id=f"{event.event_id}:{mapping}", mapping=mapping, home=record_id, change=event)
        change = OutMessage(topic=changes_topic(system.value, entity), key=record_id.encode(), value=encode(event))
        self.out.publish([change, OutMessage(topic=PAIRS_WORK, key=work.key.encode(), value=encode(work))])

    def row(self, mapping: str, record_id: str) -> Row | None:
        return self.rows.get(home_key(mapping, record_id))

    def _run(self) -> None:
        consumer = make_consumer(self.bus.bootstrap_servers, client_id="homes", group_id="homes", extra={})
        try:
            consumer.subscribe([PAIRS_WORK])
            while not self._stop.is_set():
                for raw in consumer.consume(100, 0.05):
                    assert raw.error() is None
                    self._take(to_in_message(raw))
        except Exception as bug:  # noqa: BLE001 - told by the test's own thread
            self.crash = bug
        finally:
            consumer.close()

    def _take(self, message: InMessage) -> None:
        now = datetime.now(timezone.utc)
        try:
            work = decode(Work, message.value)
        except Undecodable:
            self._set_aside(bytes_letter(message, Undecodable, now=now), message)
            return
        step = react(work, self.rows.get(work.key), self.world, now=now)
        key = work.key.encode()
        if step.row is None:
            self.rows.pop(work.key, None)
        else:
            self.rows[work.key] = step.row
        row = OutMessage(topic=COUPLINGS, key=key, value=to_json(step.row) if step.row else None)
        self.world.view.apply(step.row or Row(mapping=work.mapping, id=work.home))
        works = [*step.works, *([self._written(step.command, now)] if step.command else [])]
        self.out.publish(
            [
                row,
                *(OutMessage(topic=PAIRS_WORK, key=item.key.encode(), value=encode(item)) for item in works),
                *(OutMessage(topic=JOURNAL, key=key, value=encode(line)) for line in step.lines),
            ]
        )
        for letter in step.letters:
            self._set_aside(letter, message)

    def _set_aside(self, letter: DeadLetter, message: InMessage) -> None:
        before = self.letters.get(letter.letter_id)
        partition, offset = (before.partition, before.offset) if before else (-1, -1)
        if letter.state is LetterState.OPEN:
            partition, offset = 0, len(list(read_to_end(self.bus.bootstrap_servers, DEAD_LETTERS, extra={})))
            self.out.publish(
                [
                    letter_message(
                        letter,
                        key=message.key,
                        value=message.value,
                        headers=message.headers,
                        stage="process",
                        partition=message.partition,
                        offset=message.offset,
                    )
                ]
            )
        self.letters[letter.letter_id] = replace(letter, partition=partition, offset=offset)
        self.out.publish([index_message(letter, partition=partition, offset=offset)])

    @staticmethod
    def _written(command: Command, now: datetime) -> Work:
        observed = Observed(
            id=command.target.id,
            version=f"after {command.command_id}",
            order=1000 + int(now.timestamp()),
            modified_at=now,
            state={**command.seen, **command.values},
        )
        outcome = Outcome(
            command_id=command.command_id,
            mapping=command.mapping,
            home=command.home,
            status=OutcomeStatus.WRITTEN if command.target.id else OutcomeStatus.MATCHED,
            target=command.target,
            observed=observed if command.target.id else None,
            at=now,
        )
        message_id = derived_id("outcome", command.command_id)
        return Work(message_id=message_id, mapping=command.mapping, home=command.home, outcome=outcome)


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusSettings]:
    """A broker of this module alone: the topics have their real names here."""
    with ApacheKafka.start(tmp_path_factory.mktemp("kafka"), heap_mb=256) as kafka:
        settings = BusSettings(bootstrap_servers=kafka.bootstrap_servers, partitions=3)
        apply(make_admin(kafka.bootstrap_servers, client_id="test", extra={}), TOPICS, partitions=3)
        yield settings


@pytest.fixture(scope="module")
def homes(bus: BusSettings) -> Iterator[Homes]:
    """A company, two salespeople and two users, none of them coupled."""
    with Homes(bus).running() as homes:
        company = {"bcbi_externalid": COMPANY, "bcbi_name": "Contoso", "bcbi_defaultowningteamid": TEAM}
        homes.changed("company", System.CRM, "bcbi_company", COMPANY_ROW, 1, **company)
        for record_id, code in ((JR, "JR"), (PS, "PS")):
            homes.changed(PEOPLE, System.ERP, "salesperson", record_id, 1, code=code, displayName=code, email=None)
        for record_id, name in ((JANE, "jane"), (PETE, "pete")):
            user = {"internalemailaddress": f"{name}@contoso.com", "fullname": name, "isdisabled": False}
            homes.changed(
                PEOPLE, System.CRM, "systemuser", record_id, 1, **user, islicensed=True, isintegrationuser=False
            )
        until(lambda: all(homes.row(PEOPLE, known) for known in (JR, PS, JANE, PETE)), "all four are known")
        yield homes


def on(bus: BusSettings, app: object, *args: str) -> Result:
    return run(app, *args, rows=KafkaRows(bus))  # type: ignore[arg-type]


def user(name: str) -> str:
    return f"crm:systemuser:internalemailaddress={name}@contoso.com"


class TestCouplings:
    def test_couple_uncouple_and_couple_with_another(self, bus, homes):
        """The whole way: claim, refusal with its holder, giving back, and the row tells each result."""
        done = on(bus, couplings.app, "couple", "erp:salesperson:code=JR", user("jane"), "--json")
        assert (0, "coupled") == (done.exit_code, done.json[0]["state"])
        assert [(JR, JANE)] == [
            (line["erp_id"], line["crm_id"]) for line in on(bus, couplings.app, "list", "--json").json
        ]
        assert PairState.COUPLED is homes.row(PEOPLE, JR).pair.state

        taken = on(bus, couplings.app, "couple", "erp:salesperson:code=PS", user("jane"))
        assert 1 == taken.exit_code
        assert f"crm:systemuser:{JANE} is coupled with erp:salesperson:{JR}" in taken.err

        again = on(bus, couplings.app, "couple", f"erp:salesperson:{JR}", f"crm:systemuser:{JANE}")
        assert (0, "was coupled already") == (again.exit_code, again.out.splitlines()[0].partition(": ")[2])

        for _ in range(2):
            parted = on(bus, couplings.app, "uncouple", user("jane"), "--json")
            assert (0, "uncoupled") == (parted.exit_code, parted.json[0]["state"])
        until(lambda: homes.row(PEOPLE, JANE).home is None, "the claim is given back")

        other = on(bus, couplings.app, "couple", user("jane"), "erp:salesperson:code=PS", "--json")
        assert (0, "coupled") == (other.exit_code, other.json[0]["state"])

    def test_a_refusal_by_the_home_is_told(self, bus, homes):
        """Two orders for one record: what the rows did not show yet, the home knows."""
        on(bus, couplings.app, "couple", "erp:salesperson:code=JR", user("pete"))
        stale = _StaleRows(bus)  # as it was before

        refused = run(couplings.app, "couple", "erp:salesperson:code=PS", user("pete"), rows=stale)

        assert 1 == refused.exit_code
        assert "refused: it belongs to another pair" in refused.err

    def test_explain_tells_the_story(self, bus, homes):
        """Of both homes, newest last."""
        told = on(bus, app_of(explain.explain), "explain", "erp:salesperson:code=JR", "--json").json[0]

        assert "coupled" in [line["event"] for line in told["timeline"]]
        assert told["timeline"] == sorted(told["timeline"], key=lambda line: line["at"])
        followed = on(bus, app_of(explain.explain), "explain", f"crm:systemuser:{PETE}", "--json").json[0]
        assert JR == followed["mappings"][0]["home"]


class _StaleRows(KafkaRows):
    """Rows as somebody read them before the last coupling."""

    def rows(self, keys=None):
        found = super().rows(keys)
        holder = next((row for row in found.values() if row.pair and row.pair.crm and row.pair.crm.id == PETE), None)
        assert holder is not None
        alone = {
            home_key(PEOPLE, PETE): replace(
                holder, id=PETE, pair=replace(holder.pair, erp=None, state=PairState.SINGLE)
            )
        }
        freed = {home_key(PEOPLE, PS): replace(found[home_key(PEOPLE, PS)], pair=_single(found[home_key(PEOPLE, PS)]))}
        return {**{key: row for key, row in found.items() if row is not holder}, **alone, **freed}


def _single(row: Row):
    return replace(row.pair, state=PairState.SINGLE, crm=None)


class TestDeadLetters:
    def test_a_waiting_record_is_listed_replayed_and_given_up(self, bus, homes):
        """Its owner is not coupled; replayed it waits again under the same letter; given up it is no longer open."""
        homes.changed(
            PEOPLE, System.ERP, "salesperson", "5a1e5000-0000-4000-8000-000000000009", 1, code="XX", email=None
        )
        until(lambda: homes.world.view.erp_id_by_key(PEOPLE, "XX") is not None, "the salesperson is known")
        customer = {"number": "C-1", "displayName": "Acme", "blocked": None, "salespersonCode": "XX"}
        homes.changed(CUSTOMERS, System.ERP, "customer", ACME, 5, **customer)
        until(lambda: any(letter.home == ACME for letter in homes.letters.values()), "a letter is opened")

        (line,) = on(bus, dead_letters.app, "list", "--json", "--ref", "erp:customer:number=C-1").json
        assert ("DRW-3001", f"erp:customer:{ACME}", "open", "pairs.work") == (
            line["code"],
            line["ref"],
            line["state"],
            line["topic"],
        )
        assert line["offset"] >= 0

        shown = on(bus, dead_letters.app, "show", line["id"][:8], "--json").json[0]["message"]
        assert shown["size"] > 0
        assert "Acme" not in str(shown)

        sent = on(bus, dead_letters.app, "replay", "--yes", "--json", "--code", "owner-not-coupled")
        assert (1, [(line["id"], "open", "DRW-3001")]) == (
            sent.exit_code,
            [(item["id"], item["result"], item["code_now"]) for item in sent.json],
        )

        given_up = on(bus, dead_letters.app, "discard", "--yes", "--code", "DRW-3001")
        assert (0, "discarded: 1 letter\n") == (given_up.exit_code, given_up.out)
        assert [] == on(bus, dead_letters.app, "list", "--json", "--code", "DRW-3001").json
        assert ["discarded"] == [
            item["state"]
            for item in on(bus, dead_letters.app, "list", "--json", "--state", "all", "--code", "DRW-3001").json
        ]

    def test_bytes_that_nobody_can_read_go_back_to_where_they_came_from(self, bus, homes):
        """Key, value and the sender's headers untouched; the letter is closed, and a new fault opens another."""
        self.publish(homes, b"\x00 no work", key=b"\xff key")
        (line,) = self.open_lines(bus)

        assert 0 == on(bus, dead_letters.app, "replay", "--yes", "--id", line["id"]).exit_code

        until(lambda: [line["id"]] != [item["id"] for item in self.open_lines(bus)], "a new letter is opened")
        until(lambda: len(self.open_lines(bus)) == 1, "the first is closed")
        sent = [
            raw for raw in read_to_end(bus.bootstrap_servers, PAIRS_WORK, extra={}) if raw.value() == b"\x00 no work"
        ]
        assert 2 == len(sent)
        assert {(b"\xff key", (("traceparent", b"00-7"),))} == {(raw.key(), tuple(raw.headers())) for raw in sent}

    def test_bytes_that_nobody_can_read_can_be_given_up(self, bus, homes):
        """No home holds them: the index says so at once."""
        lines = self.open_lines(bus)
        assert lines

        assert 0 == on(bus, dead_letters.app, "discard", "--yes", "--code", "undecodable").exit_code

        assert [] == self.open_lines(bus)

    @staticmethod
    def publish(homes: Homes, value: bytes, *, key: bytes) -> None:
        homes.out.publish([OutMessage(topic=PAIRS_WORK, key=key, value=value, headers=(("traceparent", b"00-7"),))])
        until(lambda: any(letter.code == Undecodable.code for letter in homes.letters.values()), "a letter is opened")

    @staticmethod
    def open_lines(bus: BusSettings) -> list[dict]:
        return on(bus, dead_letters.app, "list", "--json", "--code", "undecodable").json


class TestChanges:
    def test_reads_what_capture_published(self, bus, homes):
        """From the beginning, or the last."""
        app = app_of(changes.changes)

        every = on(bus, app, "changes", "erp", "salesperson", "--from-beginning", "--json").json
        (last,) = on(bus, app, "changes", "erp", "salesperson", "--limit", "1", "--json").json

        assert {f"erp:salesperson:{JR}", f"erp:salesperson:{PS}"} <= {line["ref"] for line in every}
        assert last in every


class TestKafkaRows:
    def test_reads_only_what_is_asked_for(self, bus, homes):
        """Rows of two homes, wherever they lie."""
        keys = {home_key(PEOPLE, JR), home_key(PEOPLE, PS)}

        assert keys == set(KafkaRows(bus).rows(keys))

    def test_a_row_that_nobody_can_read_hides_no_other(self, bus, homes):
        """It is left out and counted."""
        homes.out.publish([OutMessage(topic=COUPLINGS, key=b"customer-account:broken", value=b"{")])
        rows = KafkaRows(bus)

        assert home_key(PEOPLE, JR) in rows.rows()
        assert 1 == rows.unreadable

    def test_a_topic_that_is_not_there_says_what_to_do(self, bus):
        """Exit code 3."""
        with pytest.raises(DrawbarError) as refused:
            list(KafkaRows(bus).changes("erp.nothing.changes", last=1, follow=False))

        assert ("DRW-5003", "make the topics: drawbar topics apply") == (refused.value.code, refused.value.todo)
