"""The row of a home: what decide knows of one record and of the pair it belongs to.

Pure types; the rules are in `processors/coupling.py`, `processors/decide.py` and `processors/react.py`. A row is kept
under `<mapping>:<record id>`. It has two parts that share nothing but the id: the *pair* of the ERP record with this
id, and the *home* of the CRM record with this id, which says to which pair that record belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum

from msgspec import field

from schemas.records import Command, CommandKind, DeadLetter, JournalLine, Order, Record, Values, Work

RECORD = "(record)"  # in `Pair.differs`: the record itself was gone from a system that was restored


class PairState(str, Enum):
    SINGLE = "single"  # one record, no counterpart
    CLAIMING = "claiming"  # the ERP record found its match and asked the match's home
    COUPLED = "coupled"
    UNCOUPLED = "uncoupled"  # by hand: stays so until an order says otherwise


class Side(Record, frozen=True, kw_only=True):
    """One record of the pair as last seen, and what it held when both last agreed."""

    id: str
    version: str
    order: int
    modified_at: datetime
    state: Values
    deleted: bool = False
    captured_at: datetime | None = None
    base: Mapping[str, str] = field(default_factory=dict)  # field -> fingerprint at the last agreement
    touched: Mapping[str, datetime] = field(default_factory=dict)  # field -> when it last left the base
    forms: Mapping[str, str] = field(default_factory=dict)  # field -> "written>held": how the system rewrote our value


class InFlight(Record, frozen=True, kw_only=True):
    """The one command under way, whole, and fingerprints of what the source held in the fields that it writes."""

    command: Command
    direction: str
    source_fingerprints: Mapping[str, str] = field(default_factory=dict)
    purpose: str = "sync"  # sync, uncouple, propagate, verify
    sent_at: datetime
    sends: int = 1


class Hold(Record, frozen=True, kw_only=True):
    """Why one direction of the pair does not go on."""

    code: str
    slug: str
    order: int  # of the source side when it was held: a newer one is decided anew
    since: datetime
    letter_id: str
    missing: tuple[str, ...] = ()  # what would release it
    fields: tuple[str, ...] = ()
    detail: str = ""


class Matched(Record, frozen=True, kw_only=True):
    """What the last look-up of matches found."""

    test: str  # fingerprint of the values that were looked for
    candidates: tuple[str, ...] = ()  # ids in the other system
    ruled_out: tuple[str, ...] = ()  # of these, those that belong to somebody else
    ambiguous: bool = False  # a person has to say
    at: datetime | None = None  # when it was answered


class KeptBack(Record, frozen=True, kw_only=True):
    """A write that is due in one direction, and that a brake keeps back. What it would write is decided anew then."""

    since: datetime
    kind: CommandKind
    fields: tuple[str, ...] = ()  # of the target


class Pair(Record, frozen=True, kw_only=True):
    """The pair of one ERP record; the record itself may not exist yet."""

    state: PairState = PairState.SINGLE
    erp: Side | None = None
    crm: Side | None = None
    key_id: str = ""  # of the fingerprint key the bases were made with
    coupled_at: datetime | None = None
    first_use: str = ""  # whose values stand at the first agreement: erp, crm, or blank for the mapping's way
    in_flight: InFlight | None = None
    holds: Mapping[str, Hold] = field(default_factory=dict)  # direction -> why
    soft_missing: tuple[str, ...] = ()  # went on without these; decided again when they appear
    news: tuple[str, ...] = ()  # directions whose source changed and that have not come to rest since
    matched: Matched | None = None
    claim: str = ""  # the claim by which the CRM record came
    batch: str = ""  # the batch of orders that coupled the two; blank: none did
    spent: tuple[str, ...] = ()  # the last claims that were given back: they count no more, however often they come
    claiming: str = ""  # CLAIMING: id of the CRM record asked for
    create_as: str = ""  # id that a restored CRM record is to have; blank: that of the ERP record
    restoring: bool = False  # a lost counterpart is made again, whatever the mapping says of new records
    to_be_made: bool = False  # a person ordered the counterpart, whatever the mapping says of new records
    kept_back: Mapping[str, KeptBack] = field(default_factory=dict)  # direction -> what a brake keeps back
    in_step: bool = False  # both sides have agreed in all fields, once at least since they were coupled
    updated: Mapping[str, datetime] = field(default_factory=dict)  # direction -> last write while in step
    rebasing: tuple[str, ...] = ()  # systems whose record is to be read before anything is decided
    differs: tuple[str, ...] = ()  # CRM fields that differed when a new base was taken; RECORD: one is not there
    first: str = ""  # id of the CRM record that is put into the line with `first`, while that is blank
    again: tuple[str, ...] = ()  # CRM fields whose lines were changed: looked at as at the first agreement


class Home(Record, frozen=True, kw_only=True):
    """To which pair the CRM record with this id belongs."""

    belongs_to: str  # id of an ERP home; blank: to none, and the record is `evicted`
    claim: str = ""  # the claim that was granted; only this one can be given back
    to_be_made: bool = False  # as in a pair: for the case that the claim comes back
    evicted: Side | None = None  # uncoupled by hand, while the ERP record of the same id has another partner


class Emission(Record, frozen=True, kw_only=True):
    """What the last message made this row send. The message may come again before all of it was confirmed: then just
    this is sent again, and a command in flight with it.
    """

    cause_id: str = ""
    works: tuple[Work, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    lines: tuple[JournalLine, ...] = ()
    with_command: bool = False


class Row(Record, frozen=True, kw_only=True):
    mapping: str
    id: str
    pair: Pair | None = None
    home: Home | None = None
    deferred: tuple[Order, ...] = ()  # orders that wait until the command in flight is answered
    last: Emission = Emission()

    @property
    def is_empty(self) -> bool:
        return self.pair is None and self.home is None and not self.deferred
