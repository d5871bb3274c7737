"""Dataverse's sales actions: what becomes of opportunities, quotes, orders, invoices and products by order of a client.

An action closes a document, makes another one of it, locks its prices or works them out. What closing is told in an
activity is kept as a row (`orderclose`, `quoteclose`, `opportunityclose`).
Sources: the actions' pages below https://learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/,
https://learn.microsoft.com/dynamics365/sales/close-quote
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from drawbar.sandbox.crm.catalog import publish
from drawbar.sandbox.crm.model import CrmError, Entity, Right, payload_error, to_stored, whole_seconds
from drawbar.sandbox.crm.operations import (
    BOUND,
    CLOSED,
    CLOSINGS,
    CONVERSIONS,
    ID_OF,
    LOCKS,
    UNBOUND,
    WON,
    Closing,
    check_parameters,
)
from drawbar.sandbox.crm.records import CrmRecords, no_row
from drawbar.sandbox.crm.sales import DOCUMENTS, TOTALS, Document, add_up_anew, lines_of, show_in_lines
from drawbar.sandbox.crm.states import DEFAULT_STATUS, no_move, status_for
from drawbar.sandbox.odata import GUID
from drawbar.sandbox.store import Values

REVISED = 7  # status of a quote that was revised
INVOICED = 4  # state of an order
_NOT_COPIED = frozenset(
    (
        "importsequencenumber",
        "ispricelocked",
        "lastbackofficesubmit",
        "lastonholdtime",
        "onholdtime",
        "ordercreationmethod",
        "overriddencreatedon",
        "pricingerrorcode",
        "processid",
        "stageid",
        "statecode",
        "statuscode",
        "submitdate",
        "submitstatus",
        "submitstatusdescription",
        "traversedpath",
        *TOTALS,
    )
)


class Allow(Protocol):
    """Raises CrmError when the caller has not the right, to that row if one is named."""

    def __call__(self, entity: Entity, right: Right, row_id: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Made:
    """The row an action answers with, and the columns that are wanted of it (None: all)."""

    entity: Entity
    row_id: str
    columns: tuple[str, ...] | None


# What the activity of a closing shows of its document, by the name it has there.
_TOLD: Mapping[str, Mapping[str, str]] = {
    "opportunity": {
        "actualrevenue": "actualvalue",
        "opportunitystatecode": "statecode",
        "opportunitystatuscode": "statuscode",
    },
    "quote": {"quotenumber": "quotenumber", "revision": "revisionnumber"},
    "salesorder": {"ordernumber": "ordernumber"},
}
# How `ConvertQuoteToSalesOrder` tells of the closing of the quote.
_OF_CONVERSION: Mapping[str, str] = {
    "actualend": "QuoteCloseDate",
    "subject": "QuoteCloseSubject",
    "description": "QuoteCloseDescription",
}


class CrmActions:
    def __init__(self, records: CrmRecords) -> None:
        self._records = records

    def is_unbound(self, name: str) -> bool:
        return name in UNBOUND and not (name in LOCKS and self._records.switches["crm_lock_pricing"] == "bound")

    def is_bound_to(self, name: str, entity: Entity) -> bool:
        is_unbound_alone = name in LOCKS and self._records.switches["crm_lock_pricing"] == "unbound"
        return BOUND.get(name) == entity.logical and not is_unbound_alone

    def run(self, name: str, body: Values, *, user: Values, allow: Allow) -> Made | None:
        """An action that is bound to nothing. Raises CrmError when it may not be carried out."""
        check_parameters(name, body)
        if name in CLOSINGS:
            self._close(CLOSINGS[name], body, user=user, allow=allow)
            return None
        if name in CONVERSIONS:
            return self._convert(name, body, user=user, allow=allow)
        if name in LOCKS:
            table, locked = LOCKS[name]
            entity = self._records.entities[table]
            self._lock(entity, self._named(entity, body, ID_OF[table]), user=user, allow=allow, locked=locked)
            return None
        entity, row_id = self._target(body)
        allow(entity, "write", row_id)
        add_up_anew(self._records, entity, row_id, user=user)
        return None

    def run_on(self, name: str, entity: Entity, row_id: str, *, user: Values, allow: Allow) -> None:
        """An action that is bound to a row. Raises CrmError when it may not be carried out."""
        self._records.find(entity, row_id)
        if name in LOCKS:
            self._lock(entity, row_id, user=user, allow=allow, locked=LOCKS[name][1])
            return
        allow(entity, "write", row_id)
        publish(self._records, row_id, user=user)

    # ------------------------------------------------------------ parameters

    def _named(self, entity: Entity, body: Values, parameter: str) -> str:
        value = body.get(parameter)
        if not isinstance(value, str) or not GUID.match(value):
            raise payload_error(entity, f"The parameter '{parameter}' is the id of a row.")
        row_id = value.lower()
        if row_id not in self._records.store.table(entity.logical).rows:
            raise no_row(entity, row_id)
        return row_id

    def _target(self, body: Values) -> tuple[Entity, str]:
        target = body.get("Target")
        kind = str(target.get("@odata.type", "")).rpartition(".")[2] if isinstance(target, dict) else ""
        if not isinstance(target, dict) or kind not in DOCUMENTS:
            raise payload_error(self._records.entities["salesorder"], "'Target' is a sales document with its type.")
        entity = self._records.entities[kind]
        return entity, self._named(entity, target, entity.id)

    # ------------------------------------------------------------ closing

    def _close(self, closing: Closing, body: Values, *, user: Values, allow: Allow) -> None:
        entity = self._records.entities[closing.table]
        activity = body.get(closing.activity)
        if not isinstance(activity, dict):
            raise payload_error(entity, f"The parameter '{closing.activity}' is an activity.")
        bound = activity.get(f"{entity.id}@odata.bind")
        if bound is None:
            raise payload_error(entity, f"'{closing.activity}' does not say which '{entity.id}' it closes.")
        other, row_id = self._records.reference(entity, bound)
        if other is not entity:
            raise payload_error(entity, f"'{entity.id}' cannot point to '{other.set}'.")
        if body.get("Status") is None:
            raise payload_error(entity, "The parameter 'Status' is a status of the row.")
        allow(entity, "write", row_id)
        when = self._leave(entity, row_id, closing.source, closing.state, body["Status"], activity=activity, user=user)
        self._keep(entity, row_id, activity, when, user=user, allow=allow)

    def _leave(
        self,
        entity: Entity,
        row_id: str,
        source: frozenset[int],
        state: int,
        status: object,
        *,
        activity: Values,
        user: Values,
    ) -> str:
        """Bring a document to the state it ends in; returns when it ended."""
        before = self._records.find(entity, row_id).values
        status_code = status_for(entity, status, state)
        if before["statecode"] not in source:
            raise no_move(entity, before["statecode"], state, status_code)
        end = activity.get("actualend")
        when = whole_seconds(end) if isinstance(end, str) else self._records.store.clock.whole_seconds()
        changes: Values = {"statecode": state, "statuscode": status_code}
        match entity.logical, state:
            case "opportunity", _:
                changes["actualclosedate"] = when[:10]
                is_estimated = state == 1 and self._records.switches["crm_actual_value"] == "estimated"
                value = activity.get("actualrevenue", before.get("estimatedvalue") if is_estimated else 0)
                changes["actualvalue"] = to_stored(entity, entity.attributes["actualvalue"], value)
            case "quote", _:
                changes["closedon"] = when
            case "salesorder", 3:
                changes["datefulfilled"] = when
        self._alter(entity, row_id, changes, user=user)
        return when

    def _keep(self, entity: Entity, row_id: str, activity: Values, when: str, *, user: Values, allow: Allow) -> None:
        """The activity of a closing, with what it does not say of the document."""
        other = self._records.entities[f"{entity.logical.removeprefix('sales')}close"]
        allow(other, "create")
        row = self._records.find(entity, row_id).values
        known: Values = {
            "actualend": when,
            f"{entity.id}@odata.bind": f"/{entity.set}({row_id})",
            "transactioncurrencyid@odata.bind": f"/transactioncurrencies({row['transactioncurrencyid']})",
        }
        for name, source in _TOLD[entity.logical].items():
            known[name] = row.get(source)
        self._records.insert(other, known | activity, user=user)

    def _alter(self, entity: Entity, row_id: str, changes: Values, *, user: Values) -> None:
        before = self._records.find(entity, row_id).values
        after = self._records.alter(entity, row_id, changes, user=user).values
        show_in_lines(self._records, DOCUMENTS[entity.logical], row_id, before, after)

    # ------------------------------------------------------------ prices

    def _lock(self, entity: Entity, row_id: str, *, user: Values, allow: Allow, locked: bool) -> None:
        allow(entity, "write", row_id)
        if bool(self._records.find(entity, row_id).values.get("ispricelocked")) == locked:
            code, word = ("0x80043b1d", "locked") if locked else ("0x80043b1e", "unlocked")
            raise CrmError(400, code, f"This entity is already {word}.")
        self._alter(entity, row_id, {"ispricelocked": locked}, user=user)

    # ------------------------------------------------------------ one document from another

    def _convert(self, name: str, body: Values, *, user: Values, allow: Allow) -> Made:
        conversion = CONVERSIONS[name]
        source, target = DOCUMENTS[conversion.source], DOCUMENTS[conversion.target]
        entity, other = self._records.entities[source.table], self._records.entities[target.table]
        row_id = self._named(entity, body, conversion.id)
        columns = _columns(other, body.get("ColumnSet"))
        allow(entity, "read", row_id)
        allow(other, "create")
        more: Values = {}
        if name == "ReviseQuote":
            allow(entity, "write", row_id)
            more = self._revise(entity, row_id, user=user)
        elif source.table == "quote":
            self._win(entity, row_id, body, user=user, allow=allow)
            more = {"ispricelocked": True, "ordercreationmethod": 776160001}
        elif name == "ConvertSalesOrderToInvoice" and self._records.switches["crm_invoiced_order"] == "invoiced":
            allow(entity, "write", row_id)
            self._alter(entity, row_id, {"statecode": INVOICED, "statuscode": 100003}, user=user)
        return Made(other, self._copy(source, target, row_id, more, user=user), columns)

    def _win(self, entity: Entity, row_id: str, body: Values, *, user: Values, allow: Allow) -> None:
        """A quote that becomes an order is won, unless it is already."""
        state = self._records.find(entity, row_id).values["statecode"]
        if state == WON:
            return
        allow(entity, "write", row_id)
        status = body.get("QuoteCloseStatus", DEFAULT_STATUS)
        activity = {name: body[given] for name, given in _OF_CONVERSION.items() if body.get(given) is not None}
        when = self._leave(entity, row_id, frozenset((1,)), WON, status, activity=activity, user=user)
        self._keep(entity, row_id, activity, when, user=user, allow=allow)

    def _revise(self, entity: Entity, row_id: str, *, user: Values) -> Values:
        """Close a quote for the sake of its next revision, of which there may be one at a time."""
        quote = self._records.find(entity, row_id).values
        same = self._records.store.table("quote").having("quotenumber", quote["quotenumber"])
        revisions = [self._records.find(entity, other).values for other in same]
        if any(other["statecode"] in (0, 1) and other["quoteid"] != row_id for other in revisions):
            raise CrmError(
                400,
                "0x80048d00",
                "Quote cannot be revised as there already exists another quote in Draft/Active state and with same"
                " quote number.",
            )
        if quote["statecode"] != CLOSED:
            self._leave(entity, row_id, frozenset((1,)), CLOSED, REVISED, activity={}, user=user)
        number = max(other.get("revisionnumber", 0) for other in revisions)
        return {"quotenumber": quote["quotenumber"], "revisionnumber": number + 1}

    def _copy(self, source: Document, target: Document, row_id: str, more: Values, *, user: Values) -> str:
        entity, other = self._records.entities[source.table], self._records.entities[target.table]
        row = self._records.find(entity, row_id).values
        values = _common(entity, other, row, {source.number, target.number, "revisionnumber", "closedon"}) | more
        if source.id in other.attributes and source is not target:
            values[source.id] = row_id
        made, _ = self._records.make(other, values, user=user)
        if source.lines and target.lines:
            self._copy_lines(source, target, row_id, made, user=user)
        return made

    def _copy_lines(self, source: Document, target: Document, row_id: str, made: str, *, user: Values) -> None:
        entity, other = self._records.entities[source.lines], self._records.entities[target.lines]
        for line_id, line in lines_of(self._records, source, row_id):
            values = _common(entity, other, line.values, {source.id, target.id, "parentbundleidref"})
            values |= {target.id: made, "priceperunit": line.values.get("priceperunit")}
            if "iscopied" in other.attributes:
                values["iscopied"] = True
            if entity.id in other.attributes and entity is not other:
                values[entity.id] = line_id
            self._records.make(other, values, user=user)


def _common(entity: Entity, other: Entity, row: Values, without: set[str]) -> Values:
    """What of a row has a column of the same name in another table, and can be said there."""
    values: Values = {}
    for name, attribute in entity.attributes.items():
        twin = other.attributes.get(name)
        if twin is None or not attribute.write or not twin.write or name in without | _NOT_COPIED:
            continue
        if name in (entity.id, other.id) or row.get(name) is None:
            continue
        values[name] = row[name]
        if f"{name}@type" in row:
            values[f"{name}@type"] = row[f"{name}@type"]
    return values


def _columns(entity: Entity, given: Any) -> tuple[str, ...] | None:
    """What a ColumnSet asks for."""
    if given is None or (isinstance(given, dict) and given.get("AllColumns")):
        return None
    names = given.get("Columns", []) if isinstance(given, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and name in entity.attributes for name in names):
        raise payload_error(entity, "The parameter 'ColumnSet' has 'AllColumns' or the names of 'Columns'.")
    return tuple(names)
