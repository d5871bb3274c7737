"""What the live systems say of their own fields: kind, length, what may be written, choices, what a lookup points to.

Business Central tells it in its `$metadata` document, Dataverse in `EntityDefinitions`. What Business Central does not
tell there (which fields of a page are read-only) is known of few fields only: those that Drawbar itself derives, and
those that the service sets.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from urllib.parse import quote

from drawbar.asking import Asker
from drawbar.business_central import MODIFIED, unescape
from drawbar.entities import Entity, Expanded, FirstOf, Joined, Kind, SystemAdapter
from drawbar.ports import Http, Reply
from schemas.errors import SourceBroken
from schemas.records import System


class Form(str, Enum):
    """What a field holds, as the system declares it."""

    TEXT = "text"
    AMOUNT = "number"
    INTEGER = "whole number"
    BOOLEAN = "yes or no"
    ID = "id"
    LOOKUP = "lookup"
    CHOICE = "choice"
    TIME = "date or time"
    OTHER = "of another kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFacts:
    """One field as its system declares it."""

    name: str
    form: Form
    length: int | None = None  # of text
    creatable: bool = True
    updatable: bool = True
    readable: bool = True
    options: frozenset[int | str] | None = (
        None  # of a choice: the CRM's values, the ERP's members; blank is one of them
    )
    targets: tuple[str, ...] = ()  # of a lookup: the tables it may point to


Facts = Mapping[str, FieldFacts]  # by name of the field


def read_facts(http: Http, adapter: SystemAdapter, entities: Iterable[str]) -> dict[str, Facts | None]:
    """The fields of these entities by entity; None for one that the system does not have.

    Raises KeyError for an entity that the adapter does not know, Unreachable, and the coded error of a refusal.
    """
    wanted = [adapter.entity(name) for name in entities]
    if adapter.system is System.CRM:
        return {entity.name: _crm_facts(http, entity) for entity in wanted}
    sets = erp_facts(_ask(http, System.ERP, "$metadata", accept="application/xml").xml)
    return {entity.name: sets.get(entity.entity_set) for entity in wanted}


def fact_of(entity: Entity, facts: Facts, name: str) -> FieldFacts | None:
    """A field of a mapping, which may be derived or consist of several columns. None: the system does not have it."""
    derived = entity.derived.get(name)
    if derived is not None:
        form = Form.AMOUNT if entity.kind(name) is Kind.AMOUNT else Form.TEXT
        needed = _needs(derived)
        known = FieldFacts(name=name, form=form, creatable=False, updatable=False)
        return known if all(column in facts for column in needed) else None
    columns = [facts.get(column) for column in entity.composites.get(name, (name,))]
    found = [column for column in columns if column is not None]
    if len(found) < len(columns):
        return None
    if len(found) == 1:
        return found[0]
    return FieldFacts(
        name=name,
        form=Form.TEXT,
        creatable=all(column.creatable for column in found),
        updatable=all(column.updatable for column in found),
        readable=all(column.readable for column in found),
    )


def names_of(entity: Entity, facts: Facts) -> tuple[str, ...]:
    """Every name that a mapping may use."""
    return tuple(sorted({*facts, *entity.derived, *entity.composites}))


def _needs(derived: Expanded | FirstOf | Joined) -> tuple[str, ...]:
    if isinstance(derived, FirstOf):
        return derived.fields
    return (derived.key,) if isinstance(derived, Joined) else ()


# --- Business Central ---------------------------------------------------------------------------------------------

_EDM = {
    "Edm.String": Form.TEXT,
    "Edm.Decimal": Form.AMOUNT,
    "Edm.Double": Form.AMOUNT,
    "Edm.Single": Form.AMOUNT,
    "Edm.Int16": Form.INTEGER,
    "Edm.Int32": Form.INTEGER,
    "Edm.Int64": Form.INTEGER,
    "Edm.Boolean": Form.BOOLEAN,
    "Edm.Guid": Form.ID,
    "Edm.Date": Form.TIME,
    "Edm.DateTimeOffset": Form.TIME,
    "Edm.TimeOfDay": Form.TIME,
}


def erp_facts(document: bytes) -> dict[str, Facts]:
    """Entity set -> its fields, from a CSDL document. Raises SourceBroken when it is none."""
    try:
        root = ET.fromstring(document)  # noqa: S314 - from the company's own ERP, over its certificate
    except ET.ParseError as fault:
        raise SourceBroken("the ERP's $metadata is no XML document", where="erp.base_url") from fault
    enums: dict[str, frozenset[int | str]] = {}
    types: dict[str, Facts] = {}
    sets: dict[str, str] = {}
    for schema in root.iter():
        if _tag(schema) != "Schema":
            continue
        namespace = schema.get("Namespace", "")
        for item in schema:
            named = f"{namespace}.{item.get('Name', '')}"
            if _tag(item) == "EnumType":
                members = (unescape(member.get("Name", "")).strip() for member in item if _tag(member) == "Member")
                enums[named] = frozenset(members)
        for item in schema:
            named = f"{namespace}.{item.get('Name', '')}"
            if _tag(item) == "EntityType":
                types[named] = {fact.name: fact for fact in _erp_fields(item, enums)}
            elif _tag(item) == "EntityContainer":
                sets |= {part.get("Name", ""): part.get("EntityType", "") for part in item if _tag(part) == "EntitySet"}
    return {name: types[of] for name, of in sets.items() if of in types}


def _erp_fields(item: ET.Element, enums: Mapping[str, frozenset[int | str]]) -> Iterator[FieldFacts]:
    for part in item:
        if _tag(part) != "Property":
            continue
        name, edm, length = part.get("Name", ""), part.get("Type", ""), part.get("MaxLength", "")
        fact = FieldFacts(
            name=name,
            form=Form.CHOICE if edm in enums else _EDM.get(edm, Form.OTHER),
            length=int(length) if length.isdigit() else None,
            options=enums.get(edm),
        )
        yield replace(fact, creatable=False, updatable=False) if name == MODIFIED else fact


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


# --- Dataverse ----------------------------------------------------------------------------------------------------

_CHOICES = ("Picklist", "State", "Status")
_ATTRIBUTES = {
    "String": Form.TEXT,
    "Memo": Form.TEXT,
    "EntityName": Form.TEXT,
    "Decimal": Form.AMOUNT,
    "Double": Form.AMOUNT,
    "Money": Form.AMOUNT,
    "Integer": Form.INTEGER,
    "BigInt": Form.INTEGER,
    "Boolean": Form.BOOLEAN,
    "Uniqueidentifier": Form.ID,
    "Lookup": Form.LOOKUP,
    "Customer": Form.LOOKUP,
    "Owner": Form.LOOKUP,
    "DateTime": Form.TIME,
    **dict.fromkeys(_CHOICES, Form.CHOICE),
}


def _crm_facts(http: Http, entity: Entity) -> Facts | None:
    """One request for all columns, and one for each kind of choice: a choice's options come with its own kind only."""
    path = f"EntityDefinitions(LogicalName='{entity.name}')/Attributes"
    reply = _ask(http, System.CRM, path)
    if reply.status == 404:
        return None
    options: dict[str, frozenset[int | str]] = {}
    present = {row.get("AttributeType") for row in _rows(reply)}
    for kind in (kind for kind in _CHOICES if kind in present):
        cast = f"{path}/Microsoft.Dynamics.CRM.{kind}AttributeMetadata"
        query = f"?$select=LogicalName&$expand={quote('OptionSet($select=Options)', safe='()$=')}"
        for row in _rows(_ask(http, System.CRM, cast + query)):
            found = (row.get("OptionSet") or {}).get("Options") or ()
            options[str(row.get("LogicalName"))] = frozenset(int(option["Value"]) for option in found)
    facts = (_crm_field(row, options) for row in _rows(reply))
    return {fact.name: fact for fact in facts}


def _crm_field(row: Mapping[str, Any], options: Mapping[str, frozenset[int | str]]) -> FieldFacts:
    name, length = str(row.get("LogicalName", "")), row.get("MaxLength")
    return FieldFacts(
        name=name,
        form=_ATTRIBUTES.get(str(row.get("AttributeType")), Form.OTHER),
        length=length if isinstance(length, int) else None,
        creatable=bool(row.get("IsValidForCreate", True)),
        updatable=bool(row.get("IsValidForUpdate", True)),
        readable=bool(row.get("IsValidForRead", True)),
        options=options.get(name),
        targets=tuple(row.get("Targets") or ()),
    )


# --- asking -------------------------------------------------------------------------------------------------------


def _ask(http: Http, system: System, path: str, *, accept: str = "application/json") -> Reply:
    """One answer that can be read. A 404 is an answer of the CRM only: it names the table that is asked for."""
    asker = Asker(http=http, system=system)
    reply = asker.answer("GET", path, headers={"Accept": accept})
    if reply.status == 200 and (reply.xml if accept == "application/xml" else isinstance(reply.body, Mapping)):
        return reply
    if reply.status == 404 and system is System.CRM:
        return reply
    raise asker.refusal("to tell its metadata", reply)


def _rows(reply: Reply) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = reply.body.get("value", []) if isinstance(reply.body, Mapping) else []
    return rows
