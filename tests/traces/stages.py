"""Every stage of the pipeline in one process, each with a bus in memory, so that one change can be followed by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from drawbar.ports import InMessage, OutMessage
from drawbar.traces import Traces
from processors.agents import Decide, Pulse, Route
from processors.brakes import Brakes
from processors.coupling import Fingerprints
from processors.mapping import EntityMapping, FieldMapping
from processors.react import World
from processors.release import Releaser, Waiting
from processors.route import routes_of
from processors.tables import Kept, LetterPositions, Receipt
from processors.view import ReferenceView
from schemas.coupling import Row
from schemas.records import System
from schemas.topics import PAIRS_WORK, commands_topic
from tests.consumers.test_worker import Rig as SinkRig
from tests.consumers.worlds import twin_world
from tests.processors_shell.given import NOON, SALESPERSON
from tests.producers.worlds import Rig as CaptureRig

NAMES = EntityMapping(
    name="customer-account",
    erp="customer",
    crm="account",
    fields=(
        FieldMapping(erp="displayName", crm="name", required=True, erp_length=100, crm_length=160),
        FieldMapping(erp="salespersonCode", crm="ownerid", owner="salesperson-systemuser", direction="to_crm"),
    ),
)
MAPPINGS = {mapping.name: mapping for mapping in (SALESPERSON, NAMES)}


class Sent:
    """Stands for `Outbox`: what was sent, and a place for each message."""

    def __init__(self) -> None:
        self.messages: list[OutMessage] = []

    def post(self, message: OutMessage, *, partition: int = -1) -> Receipt:
        self.messages.append(message)
        receipt = Receipt()
        receipt.done, receipt.partition, receipt.offset = True, 0, len(self.messages) - 1
        return receipt

    async def confirmed(self, receipts: Sequence[Receipt]) -> None: ...

    async def send(self, messages: Iterable[OutMessage]) -> Sequence[Receipt]:
        return [self.post(message) for message in messages]


class Rows:
    """Stands for `CouplingTable`."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Row] = {}

    def row(self, key: bytes) -> Row | None:
        return self.rows.get(key)

    def store(self, key: bytes, row: Row | None, *, partition: int) -> None:
        self.rows = {**self.rows, key: row} if row is not None else {k: v for k, v in self.rows.items() if k != key}

    async def stored(self) -> Sequence[Kept]:
        return [Kept(key, row, b"", 0, Receipt()) for key, row in self.rows.items()]


class View:
    """Stands for `ViewFeed`: the rows of this process go straight into the view."""

    def __init__(self, view: ReferenceView) -> None:
        self._view = view

    def wrote(self, rows: Sequence[Kept]) -> None:
        for kept in rows:
            if kept.row is not None:
                self._view.apply(kept.row)

    def passed(self, rows: Sequence[Kept]) -> None: ...


class Stages:
    """`traces` gives each stage its own."""

    def __init__(self, traces: Callable[[str], Traces]) -> None:
        self.sent = Sent()
        self.capture = CaptureRig()
        self.capture.machine._traces = traces("capture")
        self.sink = SinkRig(twin_world(System.CRM))
        self.sink.worker._traces = traces("sink-crm")
        process = traces("process")
        self.route = Route(routes_of(MAPPINGS.values()), self.sent, _taken, lambda: NOON, process)
        self.view = ReferenceView(MAPPINGS.values(), company_id="")
        self.rows = Rows()
        waiting = Waiting(command_timeout_s=60)
        self.decide = Decide(
            World(mappings=MAPPINGS, view=self.view, prints=Fingerprints.of_key("test")),
            self.rows,
            self.sent,
            waiting,
            Releaser(waiting, self.sent, self.view, MAPPINGS, per_s=1, brakes=Brakes(), clock=lambda: NOON),
            LetterPositions(),
            View(self.view),
            _taken,
            Pulse(limit_s=3600),
            lambda: NOON,
            name="here",
            traces=process,
        )

    def captured(self) -> InMessage:
        """A customer is made; its change event."""
        self.capture.world.create("Fabrikam")
        self.capture.step()
        (message,) = self.capture.store.topics["erp.customer.changes"]
        return message

    def routed(self, change: InMessage) -> InMessage:
        return delivered(self._sent_by(self.route, change), PAIRS_WORK)

    def decided(self, work: InMessage) -> InMessage:
        return delivered(self._sent_by(self.decide, work), commands_topic("crm"))

    def decided_only(self, work: InMessage) -> list[OutMessage]:
        """Everything that it sends; the view has the row by then."""
        return self._sent_by(self.decide, work)

    def written(self, command: InMessage) -> InMessage:
        self.sink.bus._waiting.append(command)
        self.sink.run()
        return delivered(self.sink.bus.published, PAIRS_WORK)

    def _sent_by(self, stage: Route | Decide, message: InMessage) -> list[OutMessage]:
        before = len(self.sent.messages)
        asyncio.run(_handled(stage, message))
        return self.sent.messages[before:]


def delivered(messages: Iterable[OutMessage], topic: str) -> InMessage:
    """The one message of a topic, as its reader gets it."""
    (message,) = [message for message in messages if message.topic == topic]
    return InMessage(
        topic=topic, partition=0, offset=0, key=message.key, value=message.value, headers=tuple(message.headers)
    )


async def _handled(stage: Route | Decide, message: InMessage) -> None:
    await stage([message])


async def _taken(positions: Mapping[tuple[str, int], int]) -> bool:
    return True
