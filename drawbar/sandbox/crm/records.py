"""Dataverse's rows and how they are written: what the platform does to every row of every table.

What it makes of single tables is in `rules`; what the application adds for one comes in as `TableRules`. Whoever
writes has begun a transaction of the store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from drawbar.sandbox.crm.keys import AlternateKeys, missing
from drawbar.sandbox.crm.model import (
    LOOKUPS,
    Attribute,
    CrmError,
    Entity,
    entities,
    key_taken,
    payload_error,
    to_stored,
)
from drawbar.sandbox.crm.origin import Origin
from drawbar.sandbox.crm.rules import (
    backdate,
    check_currency,
    check_delete,
    full_name,
    mirror_customer,
    on_delete,
)
from drawbar.sandbox.crm.webhooks import CrmNote
from drawbar.sandbox.odata import GUID
from drawbar.sandbox.store import Store, Stored, Values
from drawbar.sandbox.switches import Switches

PATH = "/api/data/v9.2"
SHARES = "principalobjectaccess"  # rows that are shared; no set of the API
VERSIONED = re.compile(r"^/api/data/v9\.[012]")  # earlier versions are this one under another address
_PRINCIPALS = frozenset(("systemuser", "team"))  # their types derive from one, whose key is `ownerid`
_REFERENCE = re.compile(r"/?(\w+)\(((?:'(?:[^']|'')*'|[^()'])*)\)\Z")


# Looks at a row that a client makes (no row before) or changes, once it is complete and before it is kept; may refuse
# it. Told the table, the row's id, the row, the one before, and the columns that were written.
Check = Callable[[Entity, str, Values, Values | None, set[str]], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms the running request writes."""

    origin: Origin = field(default_factory=Origin)
    initiating: Values | None = None  # the user who writes in another's name
    checks: tuple[Check, ...] = ()
    detects_duplicates: bool = False


@dataclass(frozen=True, slots=True)
class Located:
    row_id: str | None  # None: no row has the key
    key: Values  # the columns it was named by; none when it was named by its id


def _defaults(entity: Entity) -> Values:
    return {a.name: a.default for a in entity.attributes.values() if a.default is not None}


class TableRules:
    """What the application does for one table beyond the platform's rules. Every method may be left as it is."""

    def admit(self, records: CrmRecords, row: Values, before: Values | None, written: set[str]) -> None:
        """Refuse what a client may not write; `before` is None when the row is new."""

    def admit_delete(self, records: CrmRecords, row: Values) -> None:
        """Refuse what a client may not delete by itself."""

    def settle(self, records: CrmRecords, row_id: str, row: Values, before: Values | None, *, user: Values) -> None:
        """What follows from a row's other columns, and from other rows, before it is kept."""

    def after(
        self, records: CrmRecords, row_id: str, before: Values | None, after: Values | None, *, user: Values
    ) -> None:
        """What other rows become when a client made this one (no `before`), changed it or took it away (no `after`)."""


_NO_RULES = TableRules()


class CrmRecords:
    def __init__(self, store: Store, rules: Mapping[str, TableRules], switches: Switches) -> None:
        self.store = store
        self._rules = rules
        self.switches = switches
        self.terms = Terms()
        self.entities = entities()
        self.by_set = {entity.set: entity for entity in self.entities.values()}
        self.keys = AlternateKeys(store, switches)
        store.table("systemuser").index("applicationid")

    @contextmanager
    def on(self, terms: Terms) -> Iterator[None]:
        """Write on these terms."""
        before, self.terms = self.terms, terms
        try:
            yield
        finally:
            self.terms = before

    def _note(self, message: str, user: Values, columns: tuple[str, ...], *, by_client: bool) -> CrmNote:
        terms = self.terms
        return CrmNote(
            message,
            user,
            columns,
            terms.origin,
            by_client=by_client,
            initiating=terms.initiating,
            detects_duplicates=terms.detects_duplicates,
        )

    def _stamp(self, entity: Entity, row: Values, user: Values, *verbs: str) -> None:
        """Who did it and when, and who did it in his name."""
        now, initiating = self.store.clock.whole_seconds(), self.terms.initiating
        for verb in verbs:
            row[f"{verb}on"], row[f"{verb}by"] = now, user["systemuserid"]
            if f"{verb}onbehalfby" in entity.attributes:
                row[f"{verb}onbehalfby"] = initiating["systemuserid"] if initiating else None

    def locate(self, entity: Entity, key: str) -> Located:
        """What stands in parentheses behind a set: an id, or the values of an alternate key."""
        text = key.strip()
        if entity.logical in _PRINCIPALS and text.startswith(f"{entity.id}="):
            raise CrmError(
                400, "0x80060888", f"The key of '{entity.set}' cannot be named, as it is that of a principal."
            )
        text = text.removeprefix(f"{entity.id}=")
        if GUID.match(text):
            return Located(text.lower(), {})
        if "=" not in text:
            raise CrmError(400, "0x80060888", f"Error in query syntax: the key '{text}' is not valid.")
        given = self.keys.named(entity, text)
        return Located(self.keys.find(entity, given), given)

    def with_key(self, entity: Entity, body: Values, key: Values) -> Values:
        """A body that also says what its address says. Raises CrmError when the two differ."""
        whole = dict(body)
        for name, value in key.items():
            attribute = entity.attributes[name]
            if attribute.type in LOOKUPS:
                target = self.entities[attribute.targets[0]]
                bind = f"{entity.navigation_of(attribute, target.logical)}@odata.bind"
                whole.setdefault(bind, f"/{target.set}({value})")
                continue
            if name in body and to_stored(entity, attribute, body[name]) != value:
                raise CrmError(400, "0x80040203", "The key of the address and the key of the payload differ.")
            whole.setdefault(name, value)
        return whole

    def row_id(self, entity: Entity, key: str) -> str:
        located = self.locate(entity, key)
        if located.row_id is None:
            raise missing(entity)
        return located.row_id

    def find(self, entity: Entity, row_id: str) -> Stored:
        stored = self.store.table(entity.logical).rows.get(row_id)
        if stored is None:
            raise no_row(entity, row_id)
        return stored

    def insert(self, entity: Entity, body: Values, *, user: Values, row_id: str | None = None) -> tuple[str, Stored]:
        """One new row, within a running transaction."""
        row = _defaults(entity)
        written = self._assign(entity, row, body, creating=True)
        self._settle_state(entity, row, written)
        self.rules_of(entity).admit(self, row, None, written)
        return self._keep_new(entity, row, written, user=user, row_id=row_id, by_client=True)

    def make(self, entity: Entity, values: Values, *, user: Values) -> tuple[str, Stored]:
        """One new row of the platform's own making: `values` are as they are kept, and nothing refuses them."""
        written = {name for name in values if "@" not in name}
        return self._keep_new(entity, _defaults(entity) | values, written, user=user)

    def _keep_new(
        self,
        entity: Entity,
        row: Values,
        written: set[str],
        *,
        user: Values,
        row_id: str | None = None,
        by_client: bool = False,
    ) -> tuple[str, Stored]:
        given = row.pop(entity.id, None)
        if row_id is not None and given is not None and given != row_id:
            raise CrmError(400, "0x80040203", "The key of the address and the key of the payload differ.")
        new_id: str = row_id or given or self.store.new_id()
        if new_id in self.store.table(entity.logical).rows:
            raise key_taken(self.switches["crm_taken_answer"])
        self._complete(entity, new_id, row, written, user, before=None)
        self.keys.check(entity, new_id, row)
        for check in self.terms.checks if by_client else ():
            check(entity, new_id, row, None, written)
        self._stamp(entity, row, user, "created", "modified")
        backdate(row)
        row = {name: value for name, value in row.items() if value is not None}
        row[entity.id] = new_id
        note = self._note("Create", user, tuple(sorted(row)), by_client=by_client)
        self.store.put(entity.logical, new_id, row, note=note)
        self.rules_of(entity).after(self, new_id, None, row, user=user)
        return new_id, self.find(entity, new_id)

    def update(self, entity: Entity, row_id: str, body: Values, *, user: Values) -> Stored:
        """Every write counts as a change, whether or not a value differs."""
        before = self.find(entity, row_id)
        row = dict(before.values)
        written = self._assign(entity, row, body, creating=False)
        if row.get(entity.id) != row_id:
            raise CrmError(400, "0x80040203", "The key of the address and the key of the payload differ.")
        if not written:
            return before
        self._settle_state(entity, row, written)
        if not self.switches["crm_equal_values_move"] and not _differs(row, before.values):
            return before
        self.rules_of(entity).admit(self, row, before.values, written)
        self._keep_changed(entity, row_id, row, before.values, written, user=user, by_client=True)
        self.rules_of(entity).after(self, row_id, before.values, self.find(entity, row_id).values, user=user)
        return self.find(entity, row_id)

    def alter(self, entity: Entity, row_id: str, changes: Values, *, user: Values) -> Stored:
        """Change a row as the platform does: `changes` are as they are kept, and nothing refuses them."""
        before = self.find(entity, row_id).values
        written = {name for name in changes if "@" not in name}
        return self._keep_changed(entity, row_id, {**before, **changes}, before, written, user=user)

    def _keep_changed(
        self,
        entity: Entity,
        row_id: str,
        row: Values,
        before: Values,
        written: set[str],
        *,
        user: Values,
        by_client: bool = False,
    ) -> Stored:
        self._complete(entity, row_id, row, written, user, before=before)
        self.keys.check(entity, row_id, row)
        for check in self.terms.checks if by_client else ():
            check(entity, row_id, row, before, written)
        return self.rewrite(entity, row_id, row, written, user=user, by_client=by_client)

    def rewrite(
        self, entity: Entity, row_id: str, row: Values, written: set[str], *, user: Values, by_client: bool = False
    ) -> Stored:
        """Put a row that is complete in the place of one."""
        self._stamp(entity, row, user, "modified")
        row = {name: value for name, value in row.items() if value is not None}
        note = self._note("Update", user, tuple(sorted(written)), by_client=by_client)
        return self.store.put(entity.logical, row_id, row, note=note)

    def rules_of(self, entity: Entity) -> TableRules:
        return self._rules.get(entity.logical, _NO_RULES)

    def remove(self, entity: Entity, row_id: str, *, user: Values, with_another: bool = False) -> None:
        """Delete a row; rows that point to it go with it, forbid it, or lose the lookup."""
        check_delete(entity.logical, row_id, base=self.store.fact("base_currency"))
        before = self.find(entity, row_id).values
        if not with_another:
            self.rules_of(entity).admit_delete(self, before)
        pointing = list(self._pointing_to(entity, row_id))
        for other, attribute, _ in pointing:
            if on_delete(other.logical, attribute.name) == "refuse":
                raise CrmError(
                    405,
                    "0x80040227",
                    "The object you tried to delete is associated with another object and cannot be deleted.",
                )
        self.store.remove(entity.logical, row_id, note=self._note("Delete", user, (), by_client=not with_another))
        shares = self.store.table(SHARES)
        for share_id in [*shares.having("objectid", row_id), *shares.having("principalid", row_id)]:
            self.store.remove(SHARES, share_id)
        for other, attribute, other_id in pointing:
            if other_id not in self.store.table(other.logical).rows:
                continue
            if on_delete(other.logical, attribute.name) == "delete":
                self.remove(other, other_id, user=user, with_another=True)
            else:
                self.alter(other, other_id, {attribute.name: None, f"{attribute.name}@type": None}, user=user)
        self.rules_of(entity).after(self, row_id, before, None, user=user)

    def _pointing_to(self, entity: Entity, row_id: str) -> Iterator[tuple[Entity, Attribute, str]]:
        for other in self.entities.values():
            table = self.store.table(other.logical)
            for attribute in other.attributes.values():
                if attribute.type in LOOKUPS and attribute.write and entity.logical in attribute.targets:
                    for other_id in table.having(attribute.name, row_id):
                        yield other, attribute, other_id

    def _assign(self, entity: Entity, row: Values, body: Values, *, creating: bool) -> set[str]:
        """Put the members of a body into `row`; returns the columns that were written."""
        written: set[str] = set()
        right = "C" if creating else "U"
        bound = self._bound(entity, body)
        for name, value in body.items():
            if value is None and self._binds(entity, name) in bound:
                continue  # not the table that it is bound to
            if name.endswith("@odata.bind"):
                written |= self._bind(entity, row, name.removesuffix("@odata.bind"), value, right)
            elif "@" in name:
                continue
            elif name in entity.by_wire_name and entity.by_wire_name[name].type in LOOKUPS:
                raise payload_error(
                    entity,
                    "CRM do not support direct update of Entity Reference properties, Use Navigation properties"
                    " instead.",
                )
            elif name in entity.attributes and entity.attributes[name].type not in LOOKUPS:
                attribute = entity.attributes[name]
                stored = to_stored(entity, attribute, value)
                if name == entity.id or right in attribute.write:
                    row[name] = stored
                    written.add(name)
                elif self.switches["crm_read_only_columns"] == "refused":
                    raise payload_error(entity, f"The property '{name}' cannot be written.")
            elif name in entity.navigations and value is None:
                written |= self._bind(entity, row, name, None, right)
            else:
                raise payload_error(
                    entity,
                    f"InnerException : Microsoft.OData.ODataException: An undeclared property '{name}' which only has"
                    " property annotations in the payload but no property value was found in the payload.",
                )
        written.discard(entity.id)
        return written

    @staticmethod
    def _binds(entity: Entity, name: str) -> str | None:
        """The lookup that a member of a body binds."""
        attribute, _ = entity.navigations.get(name.removesuffix("@odata.bind"), (None, ()))
        return attribute.name if attribute is not None and name.endswith("@odata.bind") else None

    def _bound(self, entity: Entity, body: Values) -> set[str]:
        """Raises CrmError when a lookup is bound to two rows at once, by the names that two tables give it."""
        bound: set[str] = set()
        for name, value in body.items():
            lookup = self._binds(entity, name)
            if lookup is None or value is None:
                continue
            if lookup in bound:
                raise payload_error(entity, f"'{lookup}' is bound more than once.")
            bound.add(lookup)
        return bound

    def _bind(self, entity: Entity, row: Values, name: str, value: Any, right: str) -> set[str]:
        navigation = name
        if name not in entity.navigations and name in entity.attributes:
            attribute = entity.attributes[name]
            if attribute.type == "Lookup":  # by its logical name, which the service takes as well
                navigation = attribute.navigation or name
        if navigation not in entity.navigations:
            raise payload_error(entity, f"An undeclared property '{name}' was found in the payload.")
        attribute, targets = entity.navigations[navigation]
        if right not in attribute.write:
            if self.switches["crm_read_only_columns"] == "refused":
                raise payload_error(entity, f"The property '{name}' cannot be written.")
            return set()
        if value is None:
            row[attribute.name] = None
            row.pop(f"{attribute.name}@type", None)
            return {attribute.name}
        other, row_id = self.reference(entity, value)
        if other.logical not in targets:
            raise payload_error(entity, f"'{name}' cannot point to '{other.set}'.")
        target = self.find(other, row_id)
        if attribute.type == "Owner" and target.values.get("isdisabled"):
            raise CrmError(403, "0x80040225", f"The specified user(Id = {row_id}) is disabled.")
        row[attribute.name] = row_id
        if len(attribute.targets) > 1:
            row[f"{attribute.name}@type"] = other.logical
        return {attribute.name}

    def reference(self, entity: Entity, value: Any) -> tuple[Entity, str]:
        other, key = self._address(entity, value)
        return other, self.row_id(other, key)

    def located(self, entity: Entity, value: Any) -> Located:
        """The row of this very table that an address names."""
        other, key = self._address(entity, value)
        if other is not entity:
            raise payload_error(entity, f"The address '{value}' is not one of '{entity.set}'.")
        return self.locate(entity, key)

    def _address(self, entity: Entity, value: Any) -> tuple[Entity, str]:
        text = str(value)
        if "://" in text:
            try:
                text = urlsplit(text).path
            except ValueError as error:
                raise payload_error(entity, f"'{value}' is not a valid address.") from error
        match = _REFERENCE.match(unquote(VERSIONED.sub("", text)))
        other = self.by_set.get(match.group(1)) if match else None
        if match is None or other is None:
            raise payload_error(entity, f"Resource not found for the reference '{value}'.")
        return other, match.group(2)

    def _complete(
        self, entity: Entity, row_id: str, row: Values, written: set[str], user: Values, *, before: Values | None
    ) -> None:
        """What the platform makes of a row before it is kept."""
        rules = self._rules.get(entity.logical)
        if rules is not None:
            unsettled = dict(row)
            rules.settle(self, row_id, row, before, user=user)
            written = written | {name for name, value in row.items() if value != unsettled.get(name)}
        if entity.ownership == "user":
            self._settle_owner(row, user)
        if "businessunitid" in entity.attributes and entity.id != "businessunitid":
            row.setdefault("businessunitid", user.get("businessunitid"))
        if "administratorid" in entity.attributes:
            row.setdefault("administratorid", user["systemuserid"])
        if "organizationid" in entity.attributes:
            row["organizationid"] = self.store.fact("organization_id")
        if "exchangerate" in entity.attributes and entity.logical != "transactioncurrency":
            self.settle_money(entity, row, written, before)
        for prefix in ("address1_", "address2_", "billto_", "shipto_"):
            if f"{prefix}composite" in entity.attributes:
                row[f"{prefix}composite"] = _composite(row, prefix)
        if "fullname" in entity.attributes:
            row["fullname"] = full_name(row, self.switches["full_name"])
        if entity.logical == "contact":
            mirror_customer(row, "parentcustomerid", "parentcontactid")
        for attribute in entity.attributes.values():
            enforced = attribute.required == "S" and attribute.write == "CU" and attribute.type != "Owner"
            if enforced and row.get(attribute.name) is None:
                raise CrmError(
                    400, "0x80040200", f"The required field '{attribute.name}' of '{entity.logical}' is missing."
                )
        if entity.logical == "transactioncurrency":
            others = {other: stored.values for other, stored in self.store.table(entity.logical).rows.items()}
            check_currency(row_id, row, before, base=self.store.fact("base_currency"), others=others)

    @staticmethod
    def _settle_state(entity: Entity, row: Values, written: set[str]) -> None:
        status = entity.attributes.get("statuscode")
        if status is None or not {"statecode", "statuscode"} & written:
            return
        if row.get("statecode") is None:
            raise CrmError(400, "0x80048408", f"A state code of {entity.logical} cannot be null.")
        if "statuscode" not in written or row.get("statuscode") is None:
            row["statuscode"] = next(value for value, state in status.states.items() if state == row["statecode"])
        elif "statecode" not in written:
            row["statecode"] = status.states[row["statuscode"]]
        elif status.states[row["statuscode"]] != row["statecode"]:
            raise CrmError(
                400,
                "0x80048408",
                f"{row['statuscode']} is not a valid status code for state code {row['statecode']}"
                f" on {entity.logical}.",
            )

    def _settle_owner(self, row: Values, user: Values) -> None:
        if row.get("ownerid") is None:
            row["ownerid"], row["ownerid@type"] = user["systemuserid"], "systemuser"
        is_user = row["ownerid@type"] == "systemuser"
        owner = self.store.table(row["ownerid@type"]).rows[row["ownerid"]].values
        row["owninguser"] = row["ownerid"] if is_user else None
        row["owningteam"] = None if is_user else row["ownerid"]
        row["owningbusinessunit"] = owner.get("businessunitid")

    def settle_money(self, entity: Entity, row: Values, written: set[str], before: Values | None) -> None:
        """The rate is copied to the row when money or currency is written; base amounts follow from it."""
        row.setdefault("transactioncurrencyid", self.store.fact("base_currency"))
        if row["transactioncurrencyid"] is None:
            row["transactioncurrencyid"] = self.store.fact("base_currency")
        money = [attribute.name for attribute in entity.attributes.values() if attribute.type == "Money"]
        if before is not None and not written & {"transactioncurrencyid", *money}:
            return
        currency = self.store.table("transactioncurrency").rows.get(row["transactioncurrencyid"] or "")
        rate = currency.values.get("exchangerate", 1.0) if currency else 1.0
        row["exchangerate"] = rate
        for name in money:
            if not name.endswith("_base"):
                amount = row.get(name)
                row[f"{name}_base"] = None if amount is None else round(amount / rate, 2)

    def application_user(self, app: str) -> Values:
        user_id = self.store.table("systemuser").index("applicationid").get(app)
        if user_id is None:
            raise CrmError(404, "0x80072560", "The application has no user.")
        return self.store.table("systemuser").rows[user_id].values

    def entity_of(self, set_name: str) -> Entity:
        entity = self.by_set.get(set_name)
        if entity is None:
            raise CrmError(404, "0x80060888", f"There is no set '{set_name}'.")
        return entity


def _differs(row: Values, other: Values) -> bool:
    return any(row.get(name) != other.get(name) for name in {*row, *other})


def no_row(entity: Entity, row_id: str) -> CrmError:
    return CrmError(404, "0x80040217", f"Entity '{entity.logical}' With Id = {row_id} Does Not Exist")


def _composite(row: Values, prefix: str) -> str | None:
    def part(name: str) -> str:
        return row.get(prefix + name) or ""

    region = " ".join(text for text in (part("stateorprovince"), part("postalcode")) if text)
    place = ", ".join(text for text in (part("city"), region) if text)
    lines = [part("line1"), part("line2"), part("line3"), place, part("country")]
    return "\r\n".join(line for line in lines if line)[:1000] or None
