"""The row of a home: what decide knows of one record and of the pair it belongs to.

Pure types; the rules are in `processors/coupling.py`, `processors/decide.py` and `processors/react.py`. A row is kept
under `<mapping>:<record id>`. It has two parts that share nothing but the id: the *pair* of the ERP record with this
id, and the *home* of the CRM record with this id, which says to which pair that record belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from schemas.records import Command, Values


class PairState(str, Enum):
    SINGLE = "single"  # one record, no counterpart
    CLAIMING = "claiming"  # a match was found and its home asked
    COUPLED = "coupled"
    UNCOUPLED = "uncoupled"  # by hand: stays so until an order says otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """The one command under way, whole, and what the source held when it was decided."""

    command: Command
    direction: str
    source_fingerprints: Mapping[str, str] = field(default_factory=dict)
    purpose: str = "sync"  # sync, uncouple, propagate, verify
    sent_at: datetime
    sends: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why one direction of the pair does not go on."""

    code: str
    slug: str
    order: int  # of the source side when it was held: a newer one is decided anew
    since: datetime
    letter_id: str
    missing: tuple[str, ...] = ()  # what would release it
    fields: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A CRM record asked for (at the ERP home) or wanted by another pair (at the CRM home)."""

    erp_id: str
    crm_id: str
    order_id: str
    by: str
    use: str = ""
    verified: bool = False
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
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
    claim: Claim | None = None  # CLAIMING: the CRM record asked for
    wants_uncouple: str = ""  # order id: uncouple once nothing is in flight
    no_match_for: str = ""  # fingerprint of the match fields for which no free match was found
    last_cause: str = ""  # id of the message last absorbed


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """To which pair the CRM record with this id belongs."""

    belongs_to: str
    wanted: Claim | None = None  # a claim that waits until a command of this record is answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    mapping: str
    id: str
    pair: Pair | None = None
    home: Home | None = None

    @property
    def is_empty(self) -> bool:
        return self.pair is None and self.home is None
