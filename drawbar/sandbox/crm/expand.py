"""What a Dataverse query wants of related tables: `$expand` as a tree, its limits, and the tables it touches. Pure.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/join-tables
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.odata import QueryError, parse_expand, split_list

MAX_EXPANDS = 15
REFERENCE = "/$ref"
_KNOWN = frozenset(("$select", "$filter", "$orderby", "$top", "$expand"))
_ORDERING = frozenset(("$top", "$orderby"))


@dataclass(frozen=True, slots=True)
class Expand:
    """One navigation of a row. `reference`: its address alone is wanted."""

    name: str
    options: Mapping[str, str]  # but for the expands within
    inner: tuple[Expand, ...] = field(default=())
    reference: bool = False


def read_expands(entity: Entity, text: str, entities: Mapping[str, Entity]) -> tuple[Expand, ...]:
    """Raises CrmError or QueryError for what the service would refuse."""
    expands = tuple(_read(entity, text, entities))
    everything = list(_each(expands))
    if len(everything) > MAX_EXPANDS:
        raise CrmError(400, "0x80060888", f"A query has up to {MAX_EXPANDS} expands.")
    if any(expand.inner for expand in everything) and any(_ORDERING & set(expand.options) for expand in everything):
        raise _only_select_and_filter()
    return expands


def _read(entity: Entity, text: str, entities: Mapping[str, Entity]) -> Iterator[Expand]:
    for named, options in parse_expand(text):
        name, reference = named.removesuffix(REFERENCE), named.endswith(REFERENCE)
        table = table_behind(entity, name, entities)
        for option in options:
            if option not in _KNOWN:
                raise CrmError(400, "0x80060888", f"The query option '{option}' is not supported in $expand.")
        if reference and name in entity.many:
            raise CrmError(400, "0x80060888", "Expand with $ref is only supported on lookup type navigation property.")
        if name in entity.navigations and _ORDERING & set(options):
            raise _only_select_and_filter()
        inner = tuple(_read(table, options["$expand"], entities)) if "$expand" in options and table else ()
        own = {option: value for option, value in options.items() if option != "$expand"}
        yield Expand(name, own, inner, reference)


def _only_select_and_filter() -> CrmError:
    return CrmError(
        400,
        "0x80060888",
        "Only $select and $filter clause can be provided while doing $expand on many-to-one relationship or nested"
        " one-to-many relationship.",
    )


def _each(expands: Iterable[Expand]) -> Iterator[Expand]:
    for expand in expands:
        yield expand
        yield from _each(expand.inner)


def is_nested(expands: Sequence[Expand]) -> bool:
    return any(expand.inner for expand in expands)


def table_behind(entity: Entity, name: str, entities: Mapping[str, Entity]) -> Entity | None:
    """The table a navigation leads to: the first one that is served, None when none is."""
    if name in entity.many:
        return entities[entity.many[name]]
    if name in entity.navigations:
        return next((entities[target] for target in entity.navigations[name][1] if target in entities), None)
    raise QueryError(f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{entity.logical}'.")


def tables_of(entity: Entity, expands: Iterable[Expand], entities: Mapping[str, Entity]) -> Iterator[Entity]:
    """The tables that must be readable for what is expanded."""
    for expand in expands:
        table = table_behind(entity, expand.name, entities)
        if table is not None:
            yield table
            yield from tables_of(table, expand.inner, entities)


def in_context(options: Mapping[str, str], expands: Iterable[Expand]) -> str:
    """What the context of an answer says in brackets of the columns and rows that are chosen; nothing for all."""
    parts = split_list(options.get("$select", ""))
    parts += [f"{expand.name}{_inside(expand)}" for expand in expands]
    return f"({','.join(parts)})" if parts else ""


def _inside(expand: Expand) -> str:
    return f"{REFERENCE}()" if expand.reference else in_context(expand.options, expand.inner) or "()"


def as_query(expand: Expand) -> str:
    """The options of an expanded collection as those of a query of its own."""
    options = dict(expand.options)
    if expand.inner:
        options["$expand"] = ",".join(_written(inner) for inner in expand.inner)
    return "&".join(f"{name}={quote(value, safe='$,()=;/@:*')}" for name, value in options.items())


def _written(expand: Expand) -> str:
    options = [f"{name}={value}" for name, value in expand.options.items()]
    if expand.inner:
        options.append("$expand=" + ",".join(_written(inner) for inner in expand.inner))
    name = expand.name + (REFERENCE if expand.reference else "")
    return f"{name}({';'.join(options)})" if options else name
