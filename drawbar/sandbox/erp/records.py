"""Business Central's rows and how they are written: the platform's rules, for every set alike.

What the application adds for a single set comes in as `SetRules`. Whoever writes begins a transaction of the store
and calls `begin`, which gives the time that every write of it bears.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from drawbar.sandbox.erp.model import (
    EMPTY_GUID,
    Column,
    EntitySet,
    ErpError,
    entity_sets,
    milliseconds,
    no_property,
    no_value,
    read_only,
    refusal,
    time_text,
    to_stored,
)
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.switches import Switches

# What the first number of a series comes after, where nobody set it.
FIRST_NUMBERS = {
    "contact": "CT000000",
    "item": "I-1000",
    "opportunity": "OP000000",
    "salesQuote": "S-QUO1000",
    "salesOrder": "S-ORD101000",
    "salesInvoice": "S-INV102000",
    "postedInvoice": "PS-INV103000",
    "salesCreditMemo": "S-CR1000",
    "postedCreditMemo": "PS-CR104000",
    "journalDocument": "G04000",
    "salesShipment": "S-SHPT104000",
}


class SetRules:
    """What the application does for one set beyond the platform's rules. Every method may be left as it is."""

    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:  # noqa: ARG002
        """Put one checked value of a body into `row`."""
        row[name] = value

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        """What follows from a row's other fields, before it is kept; `before` is None when it is new."""

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """What other rows become when this one was made (no `before`), changed, or taken away (no `after`)."""

    def view(self, records: ErpRecords, company: str, stored: Stored) -> Stored | None:  # noqa: ARG002
        """A row of another set as one of this set; None when it is none."""
        return stored

    def implied(self, records: ErpRecords, company: str) -> Iterable[Stored]:  # noqa: ARG002
        """Entities that follow from rows of other sets and are kept nowhere, until somebody writes them."""
        return ()

    def implied_by(self, records: ErpRecords, company: str, entity_set: EntitySet, row_id: str) -> Stored | None:
        """The one of them with an id."""
        implied = self.implied(records, company)
        return next((stored for stored in implied if stored.values[entity_set.id] == row_id), None)

    def make(self, records: ErpRecords, entity_set: EntitySet, body: Values, app: str) -> Stored:  # noqa: ARG002
        """A new entity of a set that has no rows of its own."""
        raise ErpError(405, "BadRequest_MethodNotAllowed", "Entity does not support POST.")

    def alter(self, records: ErpRecords, entity_set: EntitySet, row_id: str, body: Values) -> Stored:  # noqa: ARG002
        """Write fields of one."""
        raise ErpError(405, "BadRequest_MethodNotAllowed", "Entity does not support PATCH.")

    def unmake(self, records: ErpRecords, row_id: str, app: str) -> None:  # noqa: ARG002
        """Take one away."""
        raise ErpError(405, "BadRequest_MethodNotAllowed", "Entity does not support DELETE.")

    def write_through(self, records: ErpRecords, company: str, before: Values, after: Values, app: str) -> None:
        """Write what changed in an entity of a view into the rows that it shows."""

    def below(self, records: ErpRecords, company: str, column: str, parent_id: str) -> list[Stored]:  # noqa: ARG002
        """The rows of a view that have `parent_id` in a column."""
        return []

    def with_new(self, records: ErpRecords, company: str, row: Values, body: Values) -> Values:  # noqa: ARG002
        """The row that parts are made of, with one more of them."""
        return row


class ErpRecords:
    def __init__(self, store: Store, rules: Mapping[str, SetRules], switches: Switches) -> None:
        self.store = store
        self.sets = entity_sets()
        self.switches = switches
        self.now = ""  # of the running transaction
        self._rules = rules
        self._plain = SetRules()
        self._last_ms = max(
            (
                milliseconds(stored.values["lastModifiedDateTime"])
                for company in self.companies()
                for set_name in self.sets
                for stored in store.table(f"{company['id']}/{set_name}").rows.values()
            ),
            default=0,
        )

    def begin(self) -> None:
        """The time every write of this transaction bears; strictly after that of the one before."""
        self._last_ms = max(self.store.clock.now_ms(), self._last_ms + 1)
        self.now = time_text(self._last_ms)

    def rules_of(self, set_name: str) -> SetRules:
        return self._rules.get(set_name, self._plain)

    # ------------------------------------------------------------ finding

    def companies(self) -> list[dict[str, Any]]:
        companies: list[dict[str, Any]] = self.store.fact("companies", [])
        return companies

    def local_currency(self, company: str) -> str:
        return str(self.store.fact(f"local_currency/{company}", "USD"))

    def rows(self, company: str, set_name: str) -> dict[str, Stored]:
        table = self.store.table(f"{company}/{set_name}")
        key = self.sets[set_name].key
        if key != "id":
            table.index(key)
        return table.rows

    def candidates(self, company: str, entity_set: EntitySet) -> list[Stored]:
        if entity_set.view_of is None:
            kept = self.rows(company, entity_set.name).values()
            return [*kept, *self.rules_of(entity_set.name).implied(self, company)]
        view = self.rules_of(entity_set.name).view
        shown = [view(self, company, stored) for stored in self.rows(company, entity_set.view_of).values()]
        return [stored for stored in shown if stored is not None]

    def below(self, company: str, entity_set: EntitySet, column: str, parent_id: str) -> list[Stored]:
        """The entities that belong to one of another set."""
        if entity_set.view_of is not None or entity_set.part:
            return self.rules_of(entity_set.name).below(self, company, column, parent_id)
        table = self.store.table(f"{company}/{entity_set.name}")
        kept = [table.rows[row_id] for row_id in table.having(column, parent_id)]
        implied = self.rules_of(entity_set.name).implied(self, company)
        return kept + [stored for stored in implied if stored.values[column] == parent_id]

    def find(self, company: str, entity_set: EntitySet, row_id: str) -> Stored | None:
        stored = self.rows(company, entity_set.view_of or entity_set.name).get(row_id)
        if stored is None:
            return self.rules_of(entity_set.name).implied_by(self, company, entity_set, row_id)
        if entity_set.view_of is None:
            return stored
        return self.rules_of(entity_set.name).view(self, company, stored)

    # ------------------------------------------------------------ writing

    def insert(self, company: str, set_name: str, body: Values, *, app: str, by_api: bool = True) -> Stored:
        """One new row, within a transaction that has started. Only outside the API may read-only fields be given."""
        entity_set = self.sets[set_name]
        if not entity_set.kept:
            return self.rules_of(set_name).make(self, entity_set, body, app)
        table = self.store.table(f"{company}/{set_name}")
        row = self.blank_row(set_name)
        body = dict(body)
        given_id = body.pop("id", None)
        row_id = self._given_id(entity_set, table.rows, given_id)
        row["id"] = row_id
        children = {name: body.pop(name) for name in entity_set.collections if name in body}
        self._assign(company, entity_set, row, body, by_api=by_api, creating=True)
        if entity_set.name == "customers" and self.switches["customer_template"]:
            template = {name: value for name, value in self.switches["customer_template"].items() if name not in body}
            self._assign(company, entity_set, row, template)
        if entity_set.series is not None and not row[entity_set.key]:
            row[entity_set.key] = self.next_number(company, entity_set)
        if not row[entity_set.key]:
            raise no_value(entity_set.key_caption, f"{entity_set.source}: {entity_set.key_caption}=")
        for name in entity_set.required:
            if name not in body:
                raise refusal(f'A "{name}" must be provided.')
            if not row[name]:
                raise refusal(f'The blank "{name}" is not allowed.')
        self._key_is_free(company, entity_set, row)
        rules = self.rules_of(set_name)
        rules.settle(self, company, row, None)
        self._put(company, entity_set, row, app)
        rules.after(self, company, None, row, app)
        for name, given in children.items():
            self._insert_children(company, entity_set, name, row_id, given, app)
        return table.rows[row_id]

    def _insert_children(
        self, company: str, entity_set: EntitySet, name: str, row_id: str, given: Any, app: str
    ) -> None:
        """Entities nested in the body of the one they belong to."""
        set_name, column = entity_set.collections[name]
        if self.sets[set_name].part:
            self._nest_parts(company, entity_set, set_name, row_id, given, app)
            return
        if "POST" not in self.sets[set_name].verbs:
            raise ErpError(405, "BadRequest_MethodNotAllowed", f"Entity {set_name} does not support POST.")
        if not isinstance(given, list) or not all(isinstance(child, dict) for child in given):
            raise ErpError(400, "BadRequest", f"'{name}' is not a list of entities.")
        parent = {column: row_id}
        for child in given:
            self.insert(company, set_name, {**parent, **child, **parent}, app=app)

    def _nest_parts(
        self, company: str, entity_set: EntitySet, set_name: str, row_id: str, given: Any, app: str
    ) -> None:
        """Entities nested in the body of the row that they are made of."""
        if not isinstance(given, list) or not all(isinstance(child, dict) for child in given):
            raise ErpError(400, "BadRequest", f"'{set_name}' is not a list of entities.")
        row = self.rows(company, entity_set.name)[row_id].values
        for child in given:
            row = self.rules_of(set_name).with_new(self, company, row, child)
        self.keep(company, entity_set.name, row, app=app)

    def _given_id(self, entity_set: EntitySet, rows: dict[str, Stored], given: Any) -> str:
        row_id = to_stored(entity_set.columns["id"], given) if given is not None else EMPTY_GUID
        if row_id == EMPTY_GUID:
            return self.store.new_id()
        if row_id in rows:
            raise ErpError(
                400,
                "Internal_EntityWithSameKeyExists",
                f"The {entity_set.source} already exists. Identification fields and values: SystemId='{row_id}'",
            )
        return str(row_id)

    def _key_is_free(self, company: str, entity_set: EntitySet, row: Values) -> None:
        key, table = row[entity_set.key], self.store.table(f"{company}/{entity_set.name}")
        if entity_set.key == "id":
            return
        if entity_set.key_within is None:
            holder = table.index(entity_set.key).get(key)
        else:
            columns = (entity_set.key_within, entity_set.key)
            holder = table.index(columns, _together).get(_together(row, columns))
        if holder is not None and holder != row["id"]:
            raise ErpError(
                400,
                "Internal_EntityWithSameKeyExists",
                f"The {entity_set.source} already exists."
                f" Identification fields and values: {entity_set.key_caption}='{key}'",
            )

    def blank_row(self, set_name: str) -> Values:
        row = self.sets[set_name].blank()
        return row | {"type": self.switches["erp_contact_type"]} if set_name == "contacts" else row

    def next_number(self, company: str, entity_set: EntitySet, *, series: str | None = None) -> str:
        """The next free one of a series: the set's, or another."""
        taken = self.store.table(f"{company}/{entity_set.name}").index(entity_set.key)
        word = series or entity_set.series or "x"
        series = f"series/{company}/{word}"
        last = str(self.store.fact(series, FIRST_NUMBERS.get(word, f"{word[0].upper()}00000")))
        while True:
            digits = len(last) - len(last.rstrip("0123456789"))
            last = last[: len(last) - digits] + str(int(last[len(last) - digits :]) + 1).rjust(digits, "0")
            if last not in taken:
                self.store.set_fact(series, last)
                return last

    def change(
        self,
        company: str,
        set_name: str,
        row_id: str,
        body: Values,
        *,
        app: str,
        late_ms: int = 0,
        by_api: bool = True,
    ) -> Stored:
        """Write fields of a row; nothing happens when none of them really changes.

        `late_ms` dates the write back, as a transaction that commits after its time stamp was taken.
        """
        entity_set = self.sets[set_name]
        if not entity_set.kept:
            return self.rules_of(set_name).alter(self, entity_set, row_id, _without_id(body, row_id))
        if entity_set.view_of is not None:
            return self._change_through(company, entity_set, row_id, body, app=app)
        name = f"{company}/{set_name}"
        before = self.store.table(name).rows.get(row_id) or self._kept(company, entity_set, row_id, app)
        row = dict(before.values)
        self._assign(company, entity_set, row, _without_id(body, row_id), by_api=by_api)
        for required in entity_set.required:
            if not row[required]:
                raise refusal(f'The blank "{required}" is not allowed.')
        rules = self.rules_of(set_name)
        rules.settle(self, company, row, before.values)
        if row == before.values:
            return before
        key = entity_set.key
        if row[key] != before.values[key]:
            if not row[key]:
                raise ErpError(
                    400, "BadRequest_RequiredParamNotProvided", f"{entity_set.key_caption} must have a value."
                )
            self._key_is_free(company, entity_set, row)
        calculated = {name for name, column in entity_set.columns.items() if column.calculated}
        if all(row[name] == value for name, value in before.values.items() if name not in calculated):
            return self.store.put(name, row_id, row, note=app, silent=True)
        self._put(company, entity_set, row, app, late_ms=late_ms)
        if row[key] != before.values[key]:
            self._rename(company, entity_set, before.values[key], row[key], app)
        rules.after(self, company, before.values, row, app)
        return self.store.table(name).rows[row_id]

    def _put(self, company: str, entity_set: EntitySet, row: Values, app: str, *, late_ms: int = 0) -> Stored:
        """Keep a row that has changed, under the time and the version of this write."""
        row["lastModifiedDateTime"] = time_text(self._last_ms - late_ms) if late_ms else self.now
        if "systemRowVersion" in entity_set.columns:
            row["systemRowVersion"] = self.store.version + 1
        return self.store.put(f"{company}/{entity_set.name}", row["id"], row, note=app)

    def keep(self, company: str, set_name: str, row: Values, *, app: str) -> Stored:
        """A row in which something changed that is no property of its page; nothing happens when nothing did."""
        before = self.rows(company, set_name)[row["id"]]
        if row == before.values:
            return before
        self._put(company, self.sets[set_name], row, app)
        self.rules_of(set_name).after(self, company, before.values, row, app)
        return self.rows(company, set_name)[row["id"]]

    def fill(self, company: str, set_name: str, row_id: str, name: str, content: str, *, app: str) -> Stored:
        """Write a stream of a row, given as it is kept."""
        before = self.rows(company, set_name)[row_id].values
        row = {**before, name: content}
        self.rules_of(set_name).settle(self, company, row, before)
        return self.keep(company, set_name, row, app=app)

    def _kept(self, company: str, entity_set: EntitySet, row_id: str, app: str) -> Stored:
        """An entity that follows from others, as a row of its own from now on."""
        implied = self.find(company, entity_set, row_id)
        if implied is None:
            raise KeyError(row_id)
        return self.store.put(f"{company}/{entity_set.name}", row_id, implied.values, note=app)

    def _change_through(self, company: str, entity_set: EntitySet, row_id: str, body: Values, *, app: str) -> Stored:
        """Write fields of an entity of a view: checked as its own, kept in the row that it shows."""
        seen = self.find(company, entity_set, row_id)
        if seen is None:
            raise KeyError(row_id)
        row = dict(seen.values)
        self._assign(company, entity_set, row, _without_id(body, row_id))
        if row != seen.values:
            self.rules_of(entity_set.name).write_through(self, company, seen.values, row, app)
        return self.find(company, entity_set, row_id) or Stored(row, seen.version)

    def _rename(self, company: str, entity_set: EntitySet, old: str, new: str, app: str) -> None:
        """Rows that name the old key follow."""
        for other in self.sets.values():
            for column in other.columns.values():
                if column.relation == (entity_set.name, entity_set.key) and other.view_of is None:
                    for stored in list(self.rows(company, other.name).values()):
                        if stored.values[column.name] == old:
                            self._put(company, other, {**stored.values, column.name: new}, app)

    def remove(self, company: str, set_name: str, row_id: str, *, app: str) -> None:
        """Take a row away, and what cannot stand without it. Of a view: the row that it shows."""
        if not self.sets[set_name].kept:
            self.rules_of(set_name).unmake(self, row_id, app)
            return
        set_name = self.sets[set_name].view_of or set_name
        if row_id not in self.rows(company, set_name):
            self._kept(company, self.sets[set_name], row_id, app)
        row = self.rows(company, set_name)[row_id].values
        self.store.remove(f"{company}/{set_name}", row_id, note=app)
        self.rules_of(set_name).after(self, company, row, None, app)
        for children, column in self.sets[set_name].collections.values():
            if column == "parentId":  # what hangs on a record goes with it
                for child_id in self.store.table(f"{company}/{children}").having(column, row_id):
                    self.store.remove(f"{company}/{children}", child_id, note=app)

    def _assign(
        self,
        company: str,
        entity_set: EntitySet,
        row: Values,
        body: Values,
        *,
        by_api: bool = True,
        creating: bool = False,
    ) -> None:
        """Validate the fields of a body one by one, in the order they came, each into `row`."""
        rules = self.rules_of(entity_set.name)
        for name, value in self._in_order(entity_set, body):
            if "@odata." in name:
                continue
            if value is None and by_api and not self._null_resets(name):
                continue
            column = entity_set.columns.get(name)
            if column is None:
                raise no_property(name, entity_set)
            if column.access in ("key", "server") or (column.access == "read" and (by_api or column.calculated)):
                raise read_only(name)
            stored = to_stored(column, value)
            if column.fixed and not creating and stored != row[name] != column.empty:
                raise refusal(column.fixed)
            if column.access == "create" and not creating and stored != row[name]:
                raise refusal(f"You cannot change the value of the key field {name}.")
            if name == "currencyCode" and "currencyId" in entity_set.columns:
                self._assign_currency(company, row, body, name, stored)
                continue
            if column.relation is not None and stored not in ("", EMPTY_GUID, row[name]):
                self._must_relate(company, entity_set, column, stored)
            if name == "currencyId":
                self._assign_currency(company, row, body, name, stored)
            elif name in ("postalCode", "city") and "country" in entity_set.columns:
                changed = row[name] != stored
                row[name] = stored
                if changed and stored and self.switches["post_codes"]:
                    self._fill_address(company, row, name)
            else:
                self._assign_pair(company, entity_set, row, body, name, stored)
                rules.assign(self, company, row, name, stored)

    def _in_order(self, entity_set: EntitySet, body: Values) -> list[tuple[str, Any]]:
        """The members of a body as they are validated."""
        given = list(body.items())
        if self.switches["erp_validation_order"] == "as_sent":
            return given
        declared = {name: at for at, name in enumerate(entity_set.columns)}
        return sorted(given, key=lambda member: declared.get(member[0], -1))

    def _null_resets(self, name: str) -> bool:
        if self.switches["erp_null_resets"] == "refused":
            raise ErpError(400, "BadRequest", f"The property '{name}' cannot be null.")
        return bool(self.switches["erp_null_resets"] == "yes")

    def _assign_pair(
        self, company: str, entity_set: EntitySet, row: Values, body: Values, name: str, value: str
    ) -> None:
        """Where a row is named by id and by code, each of them follows from the other; they cannot differ."""
        for id_name, code_name, set_name, text in entity_set.pairs:
            if name not in (id_name, code_name):
                continue
            key = self.sets[set_name].key
            rows = self.rows(company, set_name)
            if value in ("", EMPTY_GUID):
                row_id, code = EMPTY_GUID, ""
            elif name == id_name:
                row_id, code = value, rows[value].values[key]
            else:
                row_id, code = self.store.table(f"{company}/{set_name}").index(key)[value], value
            other, other_value = (code_name, code) if name == id_name else (id_name, row_id)
            if body.get(other) is not None and to_stored(entity_set.columns[other], body[other]) != other_value:
                said = text or f'The "{other}" does not match to a {self.sets[set_name].source}.'
                raise refusal(said)
            row[id_name], row[code_name] = row_id, code

    def _must_relate(self, company: str, entity_set: EntitySet, column: Column, value: str) -> None:
        set_name, key = column.relation or ("", "")
        other = self.sets[set_name]
        if key == "id" or column.missing:
            table = self.store.table(f"{company}/{set_name}")
            if value not in (table.rows if key == "id" else table.index(key)):
                text = column.missing or f'The "{column.name}" does not match to a {other.source}.'
                raise refusal(text)
        elif value not in self.store.table(f"{company}/{set_name}").index(key):
            raise ErpError(
                400,
                "Internal_InvalidTableRelation",
                f"The field {column.caption} of table {entity_set.source} contains a value ({value})"
                f" that cannot be found in the related table ({other.source}).",
            )

    def _assign_currency(self, company: str, row: Values, body: Values, name: str, value: str) -> None:
        """Code and id say the same currency; the local one is blank, whatever was sent."""
        currencies = self.store.table(f"{company}/currencies")
        if name == "currencyId":
            found = currencies.rows.get(value)
            code = found.values["code"] if found else ""
            row["currencyId"], row["currencyCode"] = value, code
            return
        if value in ("", self.local_currency(company)):
            row["currencyId"], row["currencyCode"] = EMPTY_GUID, ""
        else:
            found_id = currencies.index("code").get(value)
            if found_id is None:
                raise refusal('The "currencyCode" does not match to a Currency.')
            row["currencyId"], row["currencyCode"] = found_id, value
        sent = body.get("currencyId")
        if sent is not None and str(sent).lower() != row["currencyId"]:
            text = "The currency values do not match to a specific Currency."
            raise refusal(text)

    def _fill_address(self, company: str, row: Values, name: str) -> None:
        """Where the post code table knows exactly one place, the rest of the address follows from it."""
        column = {"postalCode": "code", "city": "city"}[name]
        wanted = row[name].casefold()
        matches = [
            place for place in self.store.fact(f"post_codes/{company}", []) if place[column].casefold() == wanted
        ]
        if len(matches) == 1:
            row["postalCode"], row["city"] = matches[0]["code"], matches[0]["city"]
            row["state"], row["country"] = matches[0]["county"], matches[0]["country"]


def _without_id(body: Values, row_id: str) -> Values:
    """A change's body; an id in it can only be the entity's own."""
    rest = dict(body)
    if str(rest.pop("id", row_id)).lower() != row_id:
        raise read_only("id")
    return rest


def _together(values: Values, columns: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(values[name] for name in columns)
