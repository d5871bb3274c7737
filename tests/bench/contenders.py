"""Programs that the decide stage is measured against, and the stage itself: `python -m tests.bench.contenders WHICH …`.

`decide`: the process that is shipped. `faust`: an agent as the Faust tutorial writes it, which does no work at all and
awaits one send per event. `faust-confirmed`: the same, and it also waits until the broker has each message before it
takes the next event, which is the least that would be needed to lose nothing. `faust-work`: the same decisions as the
stage in an agent as Faust's documentation has it, rows in a table of Faust's, one awaited send per message. `loop`: the same decisions as the stage
in a plain loop of confluent-kafka, without rows that survive a restart, journal, or view of other processes.
"""

from __future__ import annotations

import gc
import logging
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import faust
from confluent_kafka import TopicPartition
from pydantic import SecretStr

from drawbar.bus.clients import latest_by_key, make_consumer, make_producer
from drawbar.settings import Settings
from processors.react import World, react
from processors.worker import GC_THRESHOLDS, run_process
from schemas.codec import decode, encode, from_json, to_json
from schemas.coupling import Row
from schemas.records import Work
from schemas.topics import COUPLINGS, PAIRS_WORK, commands_topic
from tests.bench.given import FINGERPRINT_KEY, PARTITIONS
from tests.builders import MAPPINGS, a_world

OUTPUT = {"decide": commands_topic("crm"), "loop": "bench.loop"}  # the topic that each writes its commands to
BATCH = 1000  # as `decide.batch_size`


def bare_faust(bootstrap: str, folder: Path, which: str, *, confirmed: bool) -> None:
    (folder / which).mkdir(parents=True)
    app: Any = faust.App(
        which,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=str(folder / which),
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    works, out = app.topic(PAIRS_WORK, **raw), app.topic(f"bench.{which}", **raw)

    @app.agent(works)
    async def decide_work(stream: Any) -> None:
        async for event in stream.events():
            sent = await out.send(key=event.key, value=event.value)
            if confirmed:
                await sent

    app.finalize()
    worker = faust.Worker(app, loglevel=logging.WARNING)
    worker.execute_from_commandline()


def working_faust(bootstrap: str, folder: Path) -> None:
    which = "faust-work"
    (folder / which).mkdir(parents=True)
    app: Any = faust.App(
        which,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=str(folder / which),
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        web_enabled=False,
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    works, out = app.topic(PAIRS_WORK, **raw), app.topic(f"bench.{which}", **raw)
    journal = app.topic(f"bench.{which}.journal", **raw)
    table = app.Table("rows", partitions=PARTITIONS, key_type=bytes, value_type=bytes)
    world: World = a_world()
    texts = {key: message.value() for key, message in latest_by_key(bootstrap, COUPLINGS, extra={}).items()}

    @app.agent(works)
    async def decide_work(stream: Any) -> None:
        async for event in stream.events():
            work = decode(Work, event.value)
            row = from_json(Row, table.get(event.key) or texts[event.key])
            step = react(work, row, world, now=datetime.now(timezone.utc))
            if step.row is not None:
                table[event.key] = to_json(step.row)
            if step.command is not None:
                await out.send(key=event.key, value=encode(step.command))
            for line in step.lines:
                await journal.send(key=event.key, value=encode(line))

    app.finalize()
    worker = faust.Worker(app, loglevel=logging.WARNING)
    worker.execute_from_commandline()


def plain_loop(bootstrap: str) -> None:
    world: World = a_world()
    texts = {key: message.value() for key, message in latest_by_key(bootstrap, COUPLINGS, extra={}).items()}
    rows: dict[bytes, Row] = {}
    consumer = make_consumer(bootstrap, client_id="loop", group_id="loop", extra={})
    consumer.assign([TopicPartition(PAIRS_WORK, partition, 0) for partition in range(PARTITIONS)])
    producer = make_producer(bootstrap, client_id="loop", extra={"linger.ms": "1"})
    while True:
        messages = consumer.consume(BATCH, 0.1)
        for message in messages:
            key = message.key() or b""
            work = decode(Work, message.value())
            row = rows.get(key) or from_json(Row, texts[key] or b"")
            step = react(work, row, world, now=datetime.now(timezone.utc))
            if step.row is not None:
                rows[key] = step.row
            if step.command is not None:
                producer.produce(OUTPUT["loop"], value=encode(step.command), key=key)
        producer.flush(30)
        if messages:
            ends = {message.partition(): (message.offset() or 0) + 1 for message in messages}
            places = [TopicPartition(PAIRS_WORK, partition or 0, end) for partition, end in ends.items()]
            consumer.commit(offsets=places, asynchronous=False)


if __name__ == "__main__":
    contender, settings_text = sys.argv[1], sys.argv[2]
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # each has what the stage has
    given = Settings.model_validate_json(settings_text)
    if contender == "decide":
        # secrets are not in the text of settings
        run_process(given.model_copy(update={"fingerprint_key": SecretStr(FINGERPRINT_KEY)}), MAPPINGS)
    elif contender == "loop":
        plain_loop(given.bus.bootstrap_servers)
    elif contender == "faust-work":
        working_faust(given.bus.bootstrap_servers, given.state_dir)
    else:
        bare_faust(given.bus.bootstrap_servers, given.state_dir, contender, confirmed=contender.endswith("-confirmed"))
