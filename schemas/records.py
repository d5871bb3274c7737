"""The record types of the contract: what travels between the stages.

Pure. Each class has an `.avsc` file of its name beside this module; `schemas/codec.py` carries one into the other.
Field names inside `after`, `values`, `seen` and `state` are the source system's own (`displayName`, `telephone1`);
a lookup is the id of its target, a lookup with several possible targets is `entity:id` (`systemuser:…`), an enum
member is its plain text, and blank is `None` on both sides.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

if TYPE_CHECKING:
    from decimal import Decimal

    Value = None | bool | int | str | Decimal
else:
    Value = Any  # msgspec takes no union of text and Decimal: `schemas/codec.py` tells them apart
Values = Mapping[str, Value]

BETWEEN_PARTS = "\t"  # in a value that several columns hold together, such as a person's name
NAMESPACE = uuid.UUID("6f1dcb0e-4c3e-5a57-9d3c-0d1a3b5f7e21")  # of all ids that Drawbar derives


def derived_id(*parts: object) -> str:
    """A UUIDv5 of the parts: the same parts give the same id, on every machine and in every run."""
    text = "|".join(map(str, parts)).encode()
    digits = sha1(NAMESPACE.bytes + text, usedforsecurity=False).hexdigest()
    # written out here, in a quarter of the time that an object of class UUID takes: RFC 9562, sections 5.5 and 4.1
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


class Record(Struct, frozen=True, omit_defaults=True, gc=False):
    """What all record types are: frozen trees without cycles. A field that has its default is not written into a
    datum or a text; whoever reads it finds the default again.
    """


class System(str, Enum):
    ERP = "erp"
    CRM = "crm"

    @property
    def other(self) -> System:
        return System.CRM if self is System.ERP else System.ERP

    def __str__(self) -> str:
        return self.value


class RecordRef(Record, frozen=True):
    """One row of one table, written `erp:customer:<id>`."""

    system: System
    entity: str
    id: str

    def __str__(self) -> str:
        return f"{self.system.value}:{self.entity}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> RecordRef:
        """Raises ValueError when `text` is not `system:entity:id`."""
        system, _, rest = text.partition(":")
        entity, _, record_id = rest.partition(":")
        if not (entity and record_id):
            raise ValueError(f"not a record: {text!r}; write system:entity:id, such as erp:customer:<id>")
        return cls(System(system), entity, record_id)


class Operation(str, Enum):
    """What an event says of its record: read in a snapshot, found changed, found deleted."""

    SNAPSHOT = "snapshot"
    CHANGE = "change"
    DELETE = "delete"


class ChangeEvent(Record, frozen=True, kw_only=True):
    """One observed state of one record; the value of every `*.changes` topic."""

    event_id: str  # UUIDv5 of ref and version: a change captured twice is one event
    ref: RecordRef
    operation: Operation
    version: str  # the source's ETag; equality only, it has no order
    order: int  # grows with each change of the record: CRM versionnumber, ERP ms of last modification
    modified_at: datetime  # UTC, the source's clock; for people and for `latest`, never for ordering
    captured_at: datetime  # UTC, our clock, when the reply arrived
    after: Values | None  # the full captured state; a field not in it is unknown, not blank; None once deleted
    field_set: str = ""  # names the set of fields that capture asked for
    skew_ms: int = 0  # the source's clock minus ours, by its Date headers


class MatchTest(Record, frozen=True, kw_only=True):
    """One group of criteria: a target record matches when every field equals its value, letter case ignored but for
    the fields named `exact`.
    """

    equals: Values
    exact: tuple[str, ...] = ()

    def is_met_by(self, state: Values) -> bool:
        return self.key_of(state) == self.key_of(self.equals)

    def key_of(self, state: Values) -> tuple[object, ...]:
        """What two records have in common that this test takes for equal: blank is blank, blanks at the end do not
        count, numbers count by value, and a value that is divided into parts is the same however it is divided.
        """
        return tuple(_comparable(state.get(name), exact=name in self.exact) for name in sorted(self.equals))


def as_one(text: str) -> str:
    """A value that is divided into parts, without their borders."""
    return " ".join(word for part in text.split(BETWEEN_PARTS) for word in part.split())


def _comparable(value: Value, *, exact: bool) -> object:
    if isinstance(value, str):
        text = as_one(value) if BETWEEN_PARTS in value else value.rstrip()
        return (text if exact else text.casefold()) or None
    return ("boolean", value) if isinstance(value, bool) else value


class CommandKind(str, Enum):
    """MATCH looks for records that equal the tests; READ reports the record."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READ = "read"
    MATCH = "match"


class Command(Record, frozen=True, kw_only=True):
    """The write we want in the target."""

    command_id: str  # derived from its cause: the same decision makes the same command
    mapping: str
    home: str  # record id of the home that decided; with `mapping` the message key
    kind: CommandKind
    target: RecordRef  # MATCH: the id is blank
    values: Values = field(default_factory=dict)  # only what is to change
    expected_version: str | None = None  # the version the decision was based on
    seen: Values = field(default_factory=dict)  # the target's mapped fields as the decision saw them
    tests: tuple[MatchTest, ...] = ()  # MATCH: in order of priority
    within: Values = field(default_factory=dict)  # every match must also hold these: the mapping's filter
    within_blank_or: Values = field(default_factory=dict)  # … and these, or be blank: the company stamp
    cause_id: str = ""  # the message that led to the decision
    changed_at: datetime | None = None  # when the change was made in the source; for latency
    issued_at: datetime


class Observed(Record, frozen=True, kw_only=True):
    """A record of the target as a sink found it."""

    id: str
    version: str
    order: int
    modified_at: datetime
    state: Values


class OutcomeStatus(str, Enum):
    """WRITTEN: our write and its reply. OBSERVED: what the target holds now, however it came to that (a conflict, a
    look-up after a lost reply, a READ). MISSING: the record is not there. MATCHED: candidates (none: an empty
    tuple). DELETED: our delete, or it was gone already. REJECTED: the record is at fault.
    """

    WRITTEN = "written"
    OBSERVED = "observed"
    MISSING = "missing"
    MATCHED = "matched"
    DELETED = "deleted"
    REJECTED = "rejected"


class Outcome(Record, frozen=True, kw_only=True):
    """What became of a command."""

    command_id: str
    mapping: str
    home: str
    status: OutcomeStatus
    target: RecordRef
    observed: Observed | None = None  # WRITTEN, OBSERVED
    candidates: tuple[Observed, ...] = ()  # MATCHED
    code: str = ""  # REJECTED: our code
    detail: str = ""  # REJECTED: the target's own error code and field names, never values
    requests: int = 0  # requests that carrying it out took
    skew_ms: int = 0  # target clock minus ours, by its Date headers
    at: datetime


class OrderKind(str, Enum):
    """What may be asked of a home. COUPLE and UNCOUPLE come from people (or from a match); the next five are how two
    homes settle a claim; RETRY decides again; RESEND repeats a command that was not answered; CLOSE gives a letter up.
    REBASE takes what both systems hold as the new base and writes nothing; SETTLE says what becomes of the differences;
    REMAP looks again at lines that other mapping files changed; FIRST names a record that may be the first of its kind.
    """

    COUPLE = "couple"  # to the CRM record's home: claim it for `erp_id`
    CLAIMED = "claimed"  # to the ERP record's home: the claim is granted, with the last state of the CRM record
    REFUSED = "refused"  # to the ERP record's home: the claim is not granted
    GIVE_BACK = "give_back"  # to the CRM record's home: the claim is not used, or no longer
    ADOPT = "adopt"  # to a home that has no record yet: make an ERP record for this CRM record (a restore)
    UNCOUPLE = "uncouple"  # to the ERP record's home
    RETRY = "retry"
    RESEND = "resend"
    CLOSE = "close"
    REBASE = "rebase"
    SETTLE = "settle"
    REMAP = "remap"
    FIRST = "first"  # to the ERP record's home: `crm_id` was made in the CRM, and refers to this pair's CRM record


class Order(Record, frozen=True, kw_only=True):
    """Something asked of a home, by a person or by another home."""

    order_id: str
    kind: OrderKind
    root_id: str = ""  # the order of a person that this one serves
    by: str = ""  # who asks: "operator", "match", "release", …; for the journal
    erp_id: str = ""
    crm_id: str = ""
    claim: str = ""  # CLAIMED, GIVE_BACK: which claim
    # RETRY: erp, crm, restore, uncouple, propagate, create; COUPLE: erp, crm, agree, or blank for the mapping's way;
    # REBASE: the system to read, or blank for both; SETTLE: erp, crm, keep
    use: str = ""
    batch: str = ""  # COUPLE: recorded with the pair; UNCOUPLE: only if the pair was coupled by this batch
    fields: tuple[str, ...] = ()  # REMAP: CRM names of the lines to look at again
    reason: str = ""  # REFUSED, GIVE_BACK, CLOSE: taken, ambiguous, no-match, …
    holder: str = ""  # REFUSED: the ERP record that holds the claim; GIVE_BACK for a restore: the home that adopts
    candidates: tuple[str, ...] = ()  # REFUSED, GIVE_BACK: refs of ambiguous candidates
    record: Observed | None = None  # COUPLE, CLAIMED, GIVE_BACK, ADOPT: last state of the CRM record
    letter_id: str = ""  # CLOSE, RETRY


class Work(Record, frozen=True, kw_only=True):
    """One message on `pairs.work`: exactly one of change, outcome, order."""

    message_id: str
    mapping: str
    home: str
    hops: int = 0  # how often one home has handed this change to another
    change: ChangeEvent | None = None
    outcome: Outcome | None = None
    order: Order | None = None

    @property
    def key(self) -> str:
        return home_key(self.mapping, self.home)


def home_key(mapping: str, record_id: str) -> str:
    """The message key that keeps all about one home together."""
    return f"{mapping}:{record_id}"


class LetterState(str, Enum):
    OPEN = "open"
    CLOSED = "closed"  # by a later success
    DISCARDED = "discarded"  # by a person


class DeadLetter(Record, frozen=True, kw_only=True):
    """One line of `dead-letters.index`: what could not go on, why, and what would clear it."""

    letter_id: str
    code: str  # DRW-nnnn
    slug: str  # owner-not-coupled, …
    mapping: str
    home: str
    ref: str  # the source record
    direction: str  # to_crm, to_erp
    missing: str = ""  # ref or business key of what it waits for
    cause: str = ""  # letters of one cause share this text
    detail: str = ""
    fields: tuple[str, ...] = ()
    state: LetterState = LetterState.OPEN
    opened_at: datetime
    changed_at: datetime
    changed_by: str = ""
    topic: str = ""  # where the message came from
    partition: int = -1  # position in `dead-letters`
    offset: int = -1
    next_step: str = ""


class JournalLine(Record, frozen=True, kw_only=True):
    """One decision or outcome, explained."""

    line_id: str
    at: datetime
    mapping: str
    home: str
    event: str  # decided, written, observed, coupled, uncoupled, claim, letter, …
    ref: str
    direction: str = ""
    reason: str = ""
    fields: tuple[str, ...] = ()
    command_id: str = ""
    cause_id: str = ""
    code: str = ""
    latency_ms: int = -1  # source modification to reply of the write; -1 where it means nothing


class Watermark(Record, frozen=True, kw_only=True):
    """How far capture has come for one entity; `position` is the source's own."""

    system: System
    entity: str
    position: str
    field_set: str
    snapshot_done: bool
    at: datetime
