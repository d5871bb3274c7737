"""Which state follows which in Dataverse's sales tables, and what a state lets be written. Pure.

A client moves a row by PATCH or by an action; some moves are the actions' alone.
Sources: https://learn.microsoft.com/dynamics365/sales/close-quote,
https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.store import Values

DEFAULT_STATUS = -1  # an action's word for the first status of the state it leads to
_READ_ONLY = ("0x80043b09", "The parent is read only and cannot be edited.")
_ONLY_IN_DRAFT = ("0x8004f995", "Product, product family and bundle can only be updated in draft state.")
_STATE = frozenset(("statecode", "statuscode"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    first: int  # the state in which rows are made
    moves: Mapping[int, frozenset[int]]  # from a state to those that PATCH reaches
    written: frozenset[int]  # the states in which columns may be written
    always: frozenset[str]  # columns that may be written in any
    closed: tuple[str, str] = _READ_ONLY  # the refusal of any other column


def _to(*states: int) -> frozenset[int]:
    return frozenset(states)


_DOCUMENT = _STATE | {"ownerid"}
LIFECYCLES: Mapping[str, Lifecycle] = {
    "quote": Lifecycle(first=0, moves={0: _to(1), 1: _to(0), 2: _to(0), 3: _to(0)}, written=_to(0), always=_DOCUMENT),
    "salesorder": Lifecycle(
        first=0,
        moves={0: _to(1, 4), 1: _to(0, 4), 2: _to(0), 3: _to(0, 4), 4: _to(0)},
        written=_to(0, 1),
        always=_DOCUMENT,
    ),
    "invoice": Lifecycle(first=0, moves={0: _to(2, 3), 2: _to(0), 3: _to(0)}, written=_to(0), always=_DOCUMENT),
    "opportunity": Lifecycle(first=0, moves={1: _to(0), 2: _to(0)}, written=_to(0), always=_DOCUMENT),
    "product": Lifecycle(
        first=2,
        moves={2: _to(0), 0: _to(1, 3), 3: _to(0, 1)},
        written=_to(2, 3),
        always=_STATE | {"pricelevelid"},
        closed=_ONLY_IN_DRAFT,
    ),
}
# Moves of a product that have a refusal of their own.
_PRODUCT_REFUSALS = {
    (0, 0): ("0x8004f982", "Product is already in Active State."),
    (0, 2): ("0x8004f912", "You can't set a published product to the draft state."),
    (1, 0): ("0x8004f977", "You can't set a retired property to an active state."),
    (1, 2): ("0x8004f979", "It is not possible to move product from Retired to Draft State."),
    (1, 3): ("0x8004f913", "You can't revise a draft or a retired product."),
    (2, 1): ("0x8004f978", "A product should be in Active/ Under Revision state for retiring."),
    (2, 3): ("0x8004f913", "You can't revise a draft or a retired product."),
    (3, 2): ("0x8004f912", "You can't set a published product to the draft state."),
}


def check_write(entity: Entity, row: Values, before: Values | None, written: set[str]) -> None:
    """Raises CrmError when a client may not bring a row from `before` to `row` by writing these columns."""
    life = LIFECYCLES[entity.logical]
    state = row["statecode"]
    if before is None:
        if state != life.first:
            raise no_status(entity, row.get("statuscode"), life.first)
        return
    old = before["statecode"]
    if old not in life.written and not written <= life.always:
        raise CrmError(400, *life.closed)
    if state != old and state not in life.moves.get(old, ()):
        raise no_move(entity, old, state, row.get("statuscode"))


def check_line(parent: Values) -> None:
    """Raises CrmError when the lines of a document cannot be written: they are read only unless it is in state 0."""
    if parent["statecode"] != 0:
        raise CrmError(400, *_READ_ONLY)


def status_for(entity: Entity, status: object, state: int) -> int:
    """The status an action leads to. Raises CrmError when the state has no such status."""
    states = entity.attributes["statuscode"].states
    if status == DEFAULT_STATUS:
        return next(value for value, belongs in states.items() if belongs == state)
    if not isinstance(status, int) or isinstance(status, bool) or states.get(status) != state:
        raise no_status(entity, status, state)
    return status


def no_move(entity: Entity, old: int, new: int, status: object) -> CrmError:
    if entity.logical == "product" and (old, new) in _PRODUCT_REFUSALS:
        return CrmError(400, *_PRODUCT_REFUSALS[old, new])
    return no_status(entity, status, old)


def no_status(entity: Entity, status: object, state: int) -> CrmError:
    return CrmError(
        400, "0x80048408", f"{status} is not a valid status code for state code {state} on {entity.logical}."
    )
