"""Rows that are created together with others: nested in one body, or bound to rows that are there.

What a lookup leads to is created first, then the row itself, then what is below it; the transaction of the request
makes it all or nothing.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-entity-web-api
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drawbar.sandbox.crm.actions import Allow
from drawbar.sandbox.crm.keys import missing
from drawbar.sandbox.crm.model import Entity, payload_error
from drawbar.sandbox.crm.records import CrmRecords
from drawbar.sandbox.store import Stored, Values

_BIND = "@odata.bind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A body in its parts. `below` and `bound` are of collections, by name."""

    own: Values
    above: dict[str, Values]
    below: dict[str, list[Values]]
    bound: dict[str, list[str]]


def read_graph(entity: Entity, body: Values) -> Graph:
    """Raises CrmError for a member of a shape that a navigation does not have."""
    graph = Graph(own={}, above={}, below={}, bound={})
    for name, value in body.items():
        bare = name.removesuffix(_BIND)
        if name in entity.navigations and isinstance(value, dict):
            graph.above[name] = value
        elif name in entity.collections:
            graph.below[name] = _list_of(entity, name, value, dict)
        elif name.endswith(_BIND) and bare in entity.collections:
            graph.bound[bare] = _list_of(entity, name, value, str)
        else:
            graph.own[name] = value
    return graph


def _list_of(entity: Entity, name: str, value: Any, kind: type) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise payload_error(
            entity, f"The value of '{name}' is not a list of {'rows' if kind is dict else 'addresses'}."
        )
    return value


def insert_graph(
    records: CrmRecords,
    entity: Entity,
    body: Values,
    *,
    user: Values,
    allow: Allow,
    row_id: str | None = None,
) -> tuple[str, Stored]:
    """The row that the body is about, and all that is nested in it."""
    allow(entity, "create")
    graph = read_graph(entity, body)
    own = dict(graph.own)
    for name, nested in graph.above.items():
        if f"{name}{_BIND}" in own:
            raise payload_error(entity, f"'{name}' is both bound and nested.")
        other = _created_by(records, entity, name)
        other_id, _ = insert_graph(records, other, nested, user=user, allow=allow)
        own[f"{name}{_BIND}"] = f"/{other.set}({other_id})"
    made, _ = records.insert(entity, own, user=user, row_id=row_id)
    for name, rows in graph.below.items():
        children, bind = _children(records, entity, name)
        for nested in rows:
            whole = {**nested, bind: f"/{entity.set}({made})"}
            insert_graph(records, children, whole, user=user, allow=allow)
    for name, addresses in graph.bound.items():
        children, bind = _children(records, entity, name)
        for address in addresses:
            located = records.located(children, address)
            if located.row_id is None:
                raise missing(children)
            allow(children, "write", located.row_id)
            records.update(children, located.row_id, {bind: f"/{entity.set}({made})"}, user=user)
    return made, records.find(entity, made)


def _created_by(records: CrmRecords, entity: Entity, navigation: str) -> Entity:
    """The table of which a row can be nested under a navigation: one that leads to no other."""
    attribute, targets = entity.navigations[navigation]
    if len(targets) != 1 or targets[0] not in records.entities or "C" not in attribute.write:
        raise payload_error(entity, f"A row cannot be nested in '{navigation}'.")
    return records.entities[targets[0]]


def _children(records: CrmRecords, entity: Entity, collection: str) -> tuple[Entity, str]:
    """The table of a collection, and how its rows are bound to the one they are below."""
    table, lookup = entity.collections[collection]
    children = records.entities[table]
    return children, f"{children.navigation_of(children.attributes[lookup], entity.logical)}{_BIND}"
