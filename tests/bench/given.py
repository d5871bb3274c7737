"""What the decide stage is measured on: coupled customers under the shipped mappings, one change of each, a broker."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer

from drawbar.bus.apache import ApacheKafka
from drawbar.bus.clients import make_admin, make_producer
from drawbar.bus.topics import apply
from drawbar.settings import Settings
from schemas.codec import encode, to_json
from schemas.coupling import Row
from schemas.records import Value, Work, derived_id
from schemas.topics import COUPLINGS, PAIRS_WORK, TOPICS
from tests.builders import (
    COMPANY_ID,
    a_change,
    a_customer,
    a_row,
    a_side,
    an_account,
    an_agreed_pair,
    reference_rows,
    work_of,
)

PARTITIONS = 4  # as in the sandbox
FINGERPRINT_KEY = "test"  # that of the builders


def customer_id(number: int) -> str:
    return derived_id("bench", number)


def coupled(number: int) -> Row:
    """A customer and its account, in agreement, as Drawbar leaves them: one id on both sides, values of their own."""
    record = customer_id(number)
    erp = a_side(record, state=customer_state(number))
    account = {
        "name": f"Fabrikam {number}",
        "address1_line1": f"Unter den Linden {number}",
        "emailaddress1": f"info@fabrikam-{number}.example",
        "telephone1": f"+49 30 {number:06}",
    }
    return a_row(an_agreed_pair(erp, a_side(record, state=an_account(**account))), row_id=record)


def customer_state(number: int, **changed: Value) -> dict[str, Value]:
    named: dict[str, Value] = {
        "number": f"C-{number}",
        "displayName": f"Fabrikam {number}",
        "addressLine1": f"Unter den Linden {number}",
        "email": f"info@fabrikam-{number}.example",
        "phoneNumber": f"+49 30 {number:06}",
    }
    return a_customer(**{**named, **changed})


def phone_change(number: int) -> Work:
    """The customer's phone number was changed: one field is to be written."""
    state = customer_state(number, phoneNumber=f"+49 30 555 {number:06}")
    return work_of(a_change(f"erp:customer:{customer_id(number)}", state=state))


@contextmanager
def broker() -> Iterator[tuple[str, Path]]:
    """An Apache Kafka with our topics, and a folder; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="drawbar-bench-") as name:
        folder = Path(name)
        with ApacheKafka.start(folder / "kafka", heap_mb=512) as kafka:
            apply(make_admin(kafka.bootstrap_servers, client_id="bench", extra={}), TOPICS, partitions=PARTITIONS)
            yield kafka.bootstrap_servers, folder


def put(bootstrap: str, messages: Iterable[tuple[str, bytes, bytes]]) -> None:
    """Topic, key, value; returns when the broker has all of them."""
    producer: Producer = make_producer(bootstrap, client_id="bench", extra={})
    for topic, key, value in messages:
        while True:
            try:
                producer.produce(topic, value=value, key=key)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush(60)


def row_message(row: Row) -> tuple[str, bytes, bytes]:
    return COUPLINGS, f"{row.mapping}:{row.id}".encode(), to_json(row)


def work_message(work: Work) -> tuple[str, bytes, bytes]:
    return PAIRS_WORK, work.key.encode(), encode(work)


def references() -> list[tuple[str, bytes, bytes]]:
    """The rows that the shipped mapping looks things up in: owner, currency, terms, company."""
    return [row_message(row) for row in reference_rows()]


def settings_for(bootstrap: str, state_dir: Path, *, group_prefix: str = "bench") -> Settings:
    """Of a decide process: nothing stops by itself, and nothing is sent again while it is measured."""
    return Settings.model_validate(
        {
            "bus": {"bootstrap_servers": bootstrap, "partitions": PARTITIONS, "group_prefix": group_prefix},
            "erp": {"company_id": COMPANY_ID},
            "state_dir": state_dir,
            "brakes": {"share": 1},
            "decide": {"command_timeout_s": 3600},
        }
    )
