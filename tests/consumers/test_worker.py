"""The sink worker: order, acknowledgement, outages and what it says of itself, on a bus and a clock in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from consumers.worker import FORBIDDEN_IN_ROW, Calls, InlineCalls, SinkWorker, call
from drawbar.ports import InMessage, NoReply, OutMessage, Reply
from drawbar.settings import SinkSettings
from drawbar.throttle import Throttle
from schemas.codec import decode, encode
from schemas.errors import BusUnavailable, DrawbarError
from schemas.records import Command, CommandKind, JournalLine, MatchTest, OutcomeStatus, System, Work, home_key
from schemas.topics import DEAD_LETTERS, JOURNAL, PAIRS_WORK, STATUS, commands_topic
from tests.consumers.twin import Faulty
from tests.consumers.worlds import NOW, World, a_command, create, match, twin_world, update


@pytest.fixture(params=list(System), ids=str)
def world(request: pytest.FixtureRequest) -> World:
    return twin_world(request.param)


class SimulatedClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class MemoryBus:
    """One topic of commands with two partitions, and all that was published."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.published: list[OutMessage] = []
        self.committed: dict[tuple[str, int], int] = {}
        self.is_down = False
        self.held = False
        self._waiting: list[InMessage] = []
        self._offsets = [0, 0]

    def send(self, command: Command | bytes, partition: int = 0) -> None:
        key = home_key(command.mapping, command.home).encode() if isinstance(command, Command) else b"?"
        value = encode(command) if isinstance(command, Command) else command
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        self._waiting.append(InMessage(topic=self.topic, partition=partition, offset=offset, key=key, value=value))

    def publish(self, messages: Sequence[OutMessage]) -> None:
        if self.is_down:
            raise BusUnavailable("no broker answers")
        self.published += messages

    def poll(self, timeout_s: float) -> Sequence[InMessage]:
        if self.held:
            return ()
        taken, self._waiting = self._waiting, []
        return taken

    def commit(self, positions: Mapping[tuple[str, int], int], *, wait: bool = False) -> None:
        self.committed.update(positions)

    def hold(self, on: bool) -> None:
        self.held = on

    def outcomes(self) -> list[Work]:
        return [decode(Work, message.value) for message in self.published if message.topic == PAIRS_WORK]

    def statuses(self) -> list[OutcomeStatus]:
        return [work.outcome.status for work in self.outcomes() if work.outcome]

    def lines(self) -> list[JournalLine]:
        return [decode(JournalLine, message.value) for message in self.published if message.topic == JOURNAL]


class HeldCalls:
    """Calls that are answered when the test says so."""

    def __init__(self, http) -> None:
        self._http = http
        self.open: dict[int, object] = {}
        self._done: list[tuple[int, Reply | NoReply]] = []

    def start(self, token, request) -> None:
        self.open[token] = request

    def answer(self, token: int) -> None:
        self._done.append((token, call(self._http, self.open.pop(token))))

    def finished(self, timeout_s: float):
        done, self._done = self._done, []
        return done


class Rig:
    """A worker with everything around it in memory."""

    def __init__(self, world: World, http=None, *, calls: Calls | None = None, max_parallel: int = 4) -> None:
        self.world = world
        self.clock = SimulatedClock()
        self.bus = MemoryBus(commands_topic(world.system.value))
        self.policy = SinkSettings()
        self.calls = calls or InlineCalls(http or world.http)
        self.throttle = Throttle(max_parallel=max_parallel, requests_per_5_min=100_000)
        self.worker = self.fresh_worker()

    def fresh_worker(self) -> SinkWorker:
        worker = SinkWorker(
            adapter=self.world.adapter,
            bus=self.bus,
            calls=self.calls,
            clock=self.clock,
            throttle=self.throttle,
            policy=self.policy,
            fields={self.world.entity.name: self.world.fields},
            dead_letter=a_dead_letter,
            host="here",
            pid=7,
        )
        worker.assigned([(self.bus.topic, 0), (self.bus.topic, 1)])
        return worker

    def run(self, steps: int = 200, *, tick_s: float = 0.05) -> None:
        for _ in range(steps):
            self.worker.step(0.0)
            self.clock.seconds += tick_s
            if not self.worker.in_flight:
                self.worker.step(0.0)
                return

    def status(self) -> dict:
        return json.loads(json.dumps(self.worker.status()))


def a_dead_letter(message: InMessage, error: DrawbarError) -> Sequence[OutMessage]:
    return [
        OutMessage(topic=DEAD_LETTERS, key=message.key, value=message.value, headers=(("code", error.code.encode()),))
    ]


class TestOutcome:
    def test_goes_to_the_home_and_into_the_journal(self, world: World):
        """Every outcome is published with its journal line before the command is acknowledged."""
        rig = Rig(world)
        command = replace(create(world, world.record(name="Fabrikam")), changed_at=NOW - timedelta(seconds=2))
        rig.bus.send(command)

        rig.run()

        (work,), (line,) = rig.bus.outcomes(), rig.bus.lines()
        assert work.outcome is not None
        assert work.outcome.observed == world.read(command.target.id)
        assert (work.mapping, work.home) == (command.mapping, command.home)
        assert (line.event, line.ref, line.fields) == ("written", str(command.target), (world.name,))
        assert 2000 <= line.latency_ms <= 2100
        assert rig.bus.committed == {(rig.bus.topic, 0): 1}

    def test_has_an_id_that_a_repetition_shares(self, world: World):
        """The same outcome published twice is one message."""
        ids = set()
        seen = world.add(name="Fabrikam")
        command = a_command(world, CommandKind.READ, seen.id)
        for _ in range(2):
            rig = Rig(world)
            rig.bus.send(command)
            rig.run()
            ids |= {work.message_id for work in rig.bus.outcomes()}

        assert len(ids) == 1

    def test_is_kept_until_the_broker_is_back(self, world: World):
        """A broker that goes away is waited for; nothing is lost and nothing written twice."""
        rig = Rig(world)
        rig.bus.send(create(world, world.record(name="Fabrikam")))
        rig.bus.is_down = True
        rig.run(20)

        assert rig.status()["paused_reason"] == "bus"
        assert rig.bus.committed == {}

        rig.bus.is_down = False
        rig.run()

        assert rig.bus.statuses() == [OutcomeStatus.WRITTEN]
        assert rig.bus.committed == {(rig.bus.topic, 0): 1}
        assert rig.status()["state"] == "running"


class TestOrder:
    def test_of_one_key_is_kept(self, world: World):
        """Commands of one key go one after the other; the next begins after the outcome of the first is out."""
        seen = world.add(name="Fabrikam", phone="1")
        calls = HeldCalls(world.http)
        rig = Rig(world, calls=calls)
        first = update(world, seen, world.record(phone="2"))
        rig.bus.send(first)
        rig.bus.send(a_command(world, CommandKind.READ, seen.id))
        rig.run(3)
        (token,) = calls.open

        calls.answer(token)
        rig.run(3)
        calls.answer(*calls.open)
        rig.run()

        assert rig.bus.statuses() == [OutcomeStatus.WRITTEN, OutcomeStatus.OBSERVED]

    def test_of_different_keys_does_not_matter(self, world: World):
        """Different keys go side by side, as many as the lane admits."""
        calls = HeldCalls(world.http)
        rig = Rig(world, calls=calls, max_parallel=3)
        for number in range(5):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))

        rig.run(3)

        assert len(calls.open) == 3

    def test_acknowledges_below_the_oldest_unfinished(self, world: World):
        """What finished early is not acknowledged past what has not."""
        calls = HeldCalls(world.http)
        rig = Rig(world, calls=calls)
        for number in range(3):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))
        rig.run(3)
        first, second, third = sorted(calls.open)

        calls.answer(third)
        calls.answer(second)
        rig.run(3)
        assert rig.bus.committed == {}

        calls.answer(first)
        rig.run(3)
        assert rig.bus.committed == {(rig.bus.topic, 0): 3}

    def test_answers_a_repeated_command_once(self, world: World):
        """A command sent again while the first is under way needs one answer, and both are acknowledged."""
        rig = Rig(world, calls=(calls := HeldCalls(world.http)))
        command = create(world, world.record(name="Fabrikam"))
        rig.bus.send(command)
        rig.run(2)
        rig.bus.send(command)
        rig.run(2)

        calls.answer(*calls.open)
        rig.run()

        assert rig.bus.statuses() == [OutcomeStatus.WRITTEN]
        assert rig.bus.committed == {(rig.bus.topic, 0): 2}


class TestCrash:
    @pytest.mark.parametrize("after_steps", range(5))
    def test_loses_nothing_and_doubles_nothing(self, world: World, after_steps: int):
        """A worker that dies at any step is followed by one that begins where the acknowledgement stands."""
        rig = Rig(world)
        seen = world.add(name="Fabrikam", phone="1")
        commands = [update(world, seen, world.record(phone="2")), create(world, world.record(name="Contoso"))]
        for command in commands:
            rig.bus.send(command)
        rig.run(after_steps)

        rig.worker = rig.fresh_worker()
        done = rig.bus.committed.get((rig.bus.topic, 0), 0)
        rig.bus._waiting = []
        rig.bus._offsets = [done, 0]
        for command in commands[done:]:
            rig.bus.send(command)
        rig.run()

        assert {command.command_id for command in commands} == {
            work.outcome.command_id for work in rig.bus.outcomes() if work.outcome
        }
        assert world.read(seen.id).state[world.phone] == "2"  # type: ignore[union-attr]
        assert len(world.named("Contoso")) == 1


class TestPartitions:
    def test_revoked_are_finished_as_far_as_begun(self, world: World):
        """What was sent is awaited, answered and acknowledged; the rest is left to the next owner."""
        rig = Rig(world, calls=(calls := HeldCalls(world.http)), max_parallel=1)
        for number in range(2):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))
        rig.run(2)
        calls.answer(*calls.open)

        rig.worker.revoked([(rig.bus.topic, 0)])

        assert rig.bus.committed == {(rig.bus.topic, 0): 1}
        assert rig.worker.in_flight == 0
        assert not calls.open

    def test_lost_are_dropped_without_a_word(self, world: World):
        """Somebody else has them: an answer that still comes is not published and not acknowledged."""
        rig = Rig(world, calls=(calls := HeldCalls(world.http)))
        rig.bus.send(create(world, world.record(name="Fabrikam")))
        rig.run(2)

        rig.worker.lost([(rig.bus.topic, 0)])
        calls.answer(*calls.open)
        rig.run(3)

        assert rig.bus.outcomes() == []
        assert rig.bus.committed == {}

    def test_drain_finishes_what_has_begun(self, world: World):
        """SIGTERM: no new command, but every answer that is under way."""
        rig = Rig(world, calls=(calls := HeldCalls(world.http)), max_parallel=1)
        for number in range(2):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))
        rig.run(2)
        calls.answer(*calls.open)

        rig.worker.drain()

        assert rig.bus.statuses() == [OutcomeStatus.WRITTEN]
        assert rig.bus.committed == {(rig.bus.topic, 0): 1}
        assert rig.status()["state"] == "draining"


class TestOutage:
    def test_makes_no_dead_letter_and_goes_on_by_itself(self, world: World):
        """An outage pauses the lane, visibly; afterwards everything is written once."""
        port = Faulty(world.http, {0: "not sent"}, repeat=True)
        rig = Rig(world, port)
        for number in range(20):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))
        rig.run(600)
        status = rig.status()

        assert (status["state"], status["paused_reason"]) == ("paused", "connection refused")
        assert status["limit"] == 1
        assert rig.bus.statuses() == []
        asked = port.calls
        assert asked < 40

        port.faults = {}
        rig.run(3000)

        assert rig.bus.statuses() == [OutcomeStatus.WRITTEN] * 20
        assert rig.status()["state"] == "running"

    def test_of_writes_alone_pauses_too(self, world: World):
        """503 to every write while reads are answered: paused, no letter, and written once it is over."""
        away = Reply(status=503, headers={}, body={"error": {"code": "ServiceUnavailable", "message": ""}})

        class Port:
            is_away = True

            def call(self, method, path, **more):
                return away if self.is_away and method != "GET" else world.http.call(method, path, **more)

        port = Port()
        rig = Rig(world, port)
        for number in range(2):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))
        for number in range(40):
            wanted = (MatchTest(equals=world.record(name=f"Contoso {number}")),)
            rig.bus.send(a_command(world, CommandKind.MATCH, "", tests=wanted, home=f"a-home-{number}"))
            rig.run(4)

        assert (rig.status()["state"], rig.status()["paused_reason"]) == ("paused", "status 503")
        assert set(rig.bus.statuses()) == {OutcomeStatus.MATCHED}

        port.is_away = False
        rig.run(3000)

        assert Counter(rig.bus.statuses()) == {OutcomeStatus.WRITTEN: 2, OutcomeStatus.MATCHED: 40}
        assert rig.status()["state"] == "running"

    def test_waits_for_the_time_that_the_system_names(self, world: World):
        """After a 429 nobody asks before Retry-After is over."""
        throttled = Reply(status=429, headers={"retry-after": "7"}, body={"error": {"code": "0x80072322"}})
        asked_at: list[float] = []

        class Port:
            def call(self, method, path, **more):
                asked_at.append(rig.clock.seconds)
                return throttled if len(asked_at) == 1 else world.http.call(method, path, **more)

        rig = Rig(world, Port(), max_parallel=1)
        for number in range(3):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))
        rig.run(1000)

        assert asked_at[1] >= 7
        assert rig.bus.statuses() == [OutcomeStatus.WRITTEN] * 3
        assert rig.status()["throttled"] == 1

    def test_gives_up_a_record_whose_write_alone_fails(self, world: World):
        """One record that the system cannot digest does not stop its key for ever, once others are written."""
        poison = create(world, world.record(name="Poison"))

        class Port:
            def call(self, method, path, *, body=None, **more):
                if body and body.get(world.name) == "Poison":
                    return Reply(status=500, body={"error": {"code": "0x80040216", "message": ""}})
                return world.http.call(method, path, body=body, **more)

        rig = Rig(world, Port())
        rig.bus.send(poison)
        for _ in range(30):
            rig.bus.send(create(world, world.record(name="Fine")))
            rig.run(400)

        (rejected,) = [work.outcome for work in rig.bus.outcomes() if work.outcome and work.outcome.code]
        assert (rejected.command_id, rejected.code, rejected.detail) == (
            poison.command_id,
            "DRW-4001",
            "500 0x80040216",
        )

    def test_of_rights_waits_instead_of_rejecting_everything(self, world: World):
        """A right that was taken away refuses every record: the lane waits after a few."""
        port = Faulty(world.http, {0: "403"}, repeat=True)
        rig = Rig(world, port)
        for number in range(30):
            rig.bus.send(create(world, world.record(name=f"Fabrikam {number}")))
        rig.run(200)

        assert rig.bus.statuses() == [OutcomeStatus.REJECTED] * (FORBIDDEN_IN_ROW - 1)
        assert rig.status()["paused_reason"] == "forbidden"

        port.faults = {}
        rig.run(3000)

        assert rig.bus.statuses().count(OutcomeStatus.WRITTEN) == 31 - FORBIDDEN_IN_ROW


class TestUndecodable:
    def test_bytes_are_set_aside_untouched(self, world: World):
        """What cannot be read is a dead letter with its bytes; its neighbours go on."""
        rig = Rig(world)
        rig.bus.send(b"what is this")
        rig.bus.send(create(world, world.record(name="Fabrikam")))

        rig.run()

        (letter,) = [message for message in rig.bus.published if message.topic == DEAD_LETTERS]
        assert (letter.value, letter.headers) == (b"what is this", (("code", b"DRW-3010"),))
        assert rig.bus.statuses() == [OutcomeStatus.WRITTEN]
        assert rig.bus.committed == {(rig.bus.topic, 0): 2}


class TestBeat:
    def test_is_published_every_second(self, world: World):
        """The heartbeat says who, what and how many."""
        rig = Rig(world)
        rig.bus.send(create(world, world.record(name="Fabrikam")))
        rig.run()
        rig.clock.seconds += 1
        rig.worker.step(0.0)

        beats = [message for message in rig.bus.published if message.topic == STATUS]
        said = json.loads(beats[-1].value or b"")
        assert beats[-1].key == f"sink-{world.system}:here:7".encode()
        assert (said["state"], said["counts"], said["in_flight"], said["requests"]) == (
            "running",
            {"written": 1},
            0,
            1,
        )
        assert datetime.fromisoformat(said["last_outcome_at"]) >= NOW


class TestChangeToVisible:
    def test_is_counted_once_written(self, world: World):
        """From the change in the source; a look-up, and a write whose change has no time, say nothing of it."""
        rig = Rig(world)
        rig.clock.seconds = 3.0
        made = create(world, world.record(name="Fabrikam"))
        rig.bus.send(replace(made, changed_at=NOW))
        rig.bus.send(create(world, world.record(name="Contoso")))
        rig.bus.send(replace(match(world, world.record(name="Fabrikam")), changed_at=NOW))
        rig.run()

        said = rig.status()["change_to_visible_s"]
        assert [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0] == said["counts"]
        assert 3.0 <= said["sum_s"] < 5.0
