"""The topics: one table of name, key, value, partitions, retention and writer.

Pure. `drawbar topics plan | apply` holds it against a broker; docs/topics.md is held against it by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DAY_MS = 24 * 60 * 60 * 1000

PAIRS_WORK = "pairs.work"
COUPLINGS = "couplings"
DEAD_LETTERS = "dead-letters"
DEAD_LETTERS_INDEX = "dead-letters.index"
JOURNAL = "journal"
WATERMARKS = "capture.watermarks"
HINTS = "capture.hints"
STATUS = "stages.status"
BRAKES = "brakes"
MAPPINGS = "mappings"


def changes_topic(system: str, entity: str) -> str:
    """`erp.customer.changes`: what capture saw of one entity."""
    return f"{system}.{entity}.changes"


def commands_topic(system: str) -> str:
    """`crm.commands`: the writes we want in one system."""
    return f"{system}.commands"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic. `partitions` None means the installation's number, fixed when the topics are made."""

    name: str
    partitions: int | None
    cleanup: Literal["delete", "compact", "compact,delete"]
    retention_ms: int | None  # None: for ever
    key: str
    schema: str
    writer: str
    doc: str
    segment_ms: int | None = None  # None: the broker's way; only closed segments are compacted or dropped


def _changes(system: str, entity: str) -> TopicSpec:
    return TopicSpec(
        name=changes_topic(system, entity),
        partitions=None,
        cleanup="compact",
        retention_ms=None,
        key="record id",
        schema="change_event",
        writer="capture",
        doc=f"Every observed state of each {entity} of the {system.upper()}; a tombstone follows a delete.",
    )


# Which entities are captured is a matter of the mapping files; these are the shipped ones.
CAPTURED: tuple[tuple[str, str], ...] = (
    ("erp", "salesperson"),
    ("erp", "customer"),
    ("erp", "contact"),
    ("erp", "currency"),
    ("erp", "paymentTerm"),
    ("erp", "shipmentMethod"),
    ("erp", "companyInformation"),
    ("crm", "systemuser"),
    ("crm", "account"),
    ("crm", "contact"),
    ("crm", "transactioncurrency"),
    ("crm", "bcbi_company"),
)

TOPICS: tuple[TopicSpec, ...] = (
    *(_changes(system, entity) for system, entity in CAPTURED),
    TopicSpec(
        name=PAIRS_WORK,
        partitions=None,
        cleanup="delete",
        retention_ms=7 * DAY_MS,
        key="home: mapping and record id",
        schema="work",
        writer="route, decide, sinks, command line",
        doc="Everything about one pair, in one order: changes, outcomes, orders.",
    ),
    TopicSpec(
        name=COUPLINGS,
        partitions=None,
        cleanup="compact",
        retention_ms=None,
        key="home: mapping and record id",
        schema="coupling",
        writer="decide",
        doc="The row of every home; the changelog of decide's table, as JSON text.",
    ),
    TopicSpec(
        name=commands_topic("erp"),
        partitions=None,
        cleanup="delete",
        retention_ms=7 * DAY_MS,
        key="home: mapping and record id",
        schema="command",
        writer="decide",
        doc="The writes we want in the ERP.",
    ),
    TopicSpec(
        name=commands_topic("crm"),
        partitions=None,
        cleanup="delete",
        retention_ms=7 * DAY_MS,
        key="home: mapping and record id",
        schema="command",
        writer="decide",
        doc="The writes we want in the CRM.",
    ),
    TopicSpec(
        name=DEAD_LETTERS,
        partitions=1,
        cleanup="delete",
        retention_ms=None,
        key="the original key",
        schema="the original bytes",
        writer="every stage",
        doc="Messages that could not go on, untouched, their cause in headers.",
    ),
    TopicSpec(
        name=DEAD_LETTERS_INDEX,
        partitions=1,
        cleanup="compact",
        retention_ms=None,
        key="letter id",
        schema="dead_letter",
        writer="every stage, command line",
        doc="State, cause and position of every dead letter.",
    ),
    TopicSpec(
        name=JOURNAL,
        partitions=None,
        cleanup="delete",
        retention_ms=90 * DAY_MS,
        key="home: mapping and record id",
        schema="journal_line",
        writer="decide, sinks",
        doc="One line per outcome and per decision not to write.",
    ),
    TopicSpec(
        name=WATERMARKS,
        partitions=1,
        cleanup="compact",
        retention_ms=None,
        key="system and entity",
        schema="watermark",
        writer="capture",
        doc="How far capture has come, per entity.",
    ),
    TopicSpec(
        name=HINTS,
        partitions=len(CAPTURED),
        cleanup="delete",
        retention_ms=DAY_MS,
        key="system and entity",
        schema="JSON text",
        writer="webhook receiver, command line",
        doc="Look now. Losing all of them costs latency, never data. Its assignment names the owner of each entity.",
    ),
    TopicSpec(
        name=BRAKES,
        partitions=1,
        cleanup="compact",
        retention_ms=None,
        key="mapping and direction, or *",
        schema="JSON text",
        writer="command line, decide",
        doc="Which directions of which mappings write nothing for now, by whom and why.",
    ),
    TopicSpec(
        name=MAPPINGS,
        partitions=1,
        cleanup="compact",
        retention_ms=None,
        key="in-force or next",
        schema="JSON text",
        writer="command line, decide",
        doc="The mapping files by which everything works, word for word, and those that are about to come into force.",
    ),
    TopicSpec(
        name=STATUS,
        partitions=1,
        cleanup="compact,delete",
        retention_ms=DAY_MS,
        key="stage and instance",
        schema="JSON text",
        writer="every stage",
        doc="What each running process says of itself, every second.",
        segment_ms=10 * 60 * 1000,
    ),
)
