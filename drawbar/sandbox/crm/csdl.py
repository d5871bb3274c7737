"""Dataverse's `$metadata`: entity types, sets, actions and functions as CSDL. Pure.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-service-documents
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import quoteattr

from drawbar.sandbox.crm.model import CHOICES, LOOKUPS, Attribute, Entity
from drawbar.sandbox.crm.operations import Operation, actions_of, functions
from drawbar.sandbox.switches import Switches

_EDM = {
    "String": "Edm.String",
    "Memo": "Edm.String",
    "Integer": "Edm.Int32",
    "BigInt": "Edm.Int64",
    "Decimal": "Edm.Decimal",
    "Money": "Edm.Decimal",
    "Double": "Edm.Double",
    "Boolean": "Edm.Boolean",
    "DateTime": "Edm.DateTimeOffset",
    "Uniqueidentifier": "Edm.Guid",
}
_COMPLEX: Mapping[str, Mapping[str, str]] = {
    "ColumnSet": {"AllColumns": "Edm.Boolean", "Columns": "Collection(Edm.String)"},
    "WhoAmIResponse": {"BusinessUnitId": "Edm.Guid", "UserId": "Edm.Guid", "OrganizationId": "Edm.Guid"},
    "RetrieveVersionResponse": {"Version": "Edm.String"},
    "CreateMultipleResponse": {"Ids": "Collection(Edm.Guid)"},
    "EntityRecordCountCollection": {
        "Count": "Edm.Int32",
        "IsReadOnly": "Edm.Boolean",
        "Keys": "Collection(Edm.String)",
        "Values": "Collection(Edm.Int64)",
    },
    "RetrieveTotalRecordCountResponse": {"EntityRecordCountCollection": "mscrm.EntityRecordCountCollection"},
}


def csdl(entities: Mapping[str, Entity], switches: Switches) -> bytes:
    operations = [*actions_of([name for name, entity in entities.items() if entity.bulk]), *functions()]
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>',
        '<Schema Namespace="Microsoft.Dynamics.CRM" Alias="mscrm" xmlns="http://docs.oasis-open.org/odata/ns/edm">',
        '<EntityType Name="crmbaseentity" Abstract="true"/>',
    ]
    for entity in entities.values():
        lines += _entity_type(entity, entities, switches["crm_date_columns"])
    for name, members in _COMPLEX.items():
        lines.append(f'<ComplexType Name="{name}">')
        lines += [f'<Property Name="{member}" Type="{kind}"/>' for member, kind in members.items()]
        lines.append("</ComplexType>")
    for operation in operations:
        lines += _operation(operation)
    lines.append('<EntityContainer Name="System">')
    lines += [f'<EntitySet Name="{e.set}" EntityType="mscrm.{e.logical}"/>' for e in entities.values()]
    for operation in operations:
        if operation.bound_to is None and operation.returns != "Edm.Boolean":
            kind = "Function" if operation.is_function else "Action"
            lines.append(f'<{kind}Import Name="{operation.name}" {kind}="mscrm.{operation.name}"/>')
    lines.append("</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>")
    return "".join(lines).encode()


def _entity_type(entity: Entity, entities: Mapping[str, Entity], date: str) -> Iterator[str]:
    yield f'<EntityType Name="{entity.logical}" BaseType="mscrm.crmbaseentity">'
    yield f'<Key><PropertyRef Name="{entity.id}"/></Key>'
    for attribute in entity.attributes.values():
        yield f"<Property Name={quoteattr(attribute.wire_name)} Type={quoteattr(_edm(attribute, date))}/>"
    for name, (_, targets) in entity.navigations.items():
        target = targets[0] if len(targets) == 1 and targets[0] in entities else "crmbaseentity"
        yield f'<NavigationProperty Name="{name}" Type="mscrm.{target}" Nullable="true"/>'
    for name, table in entity.many.items():
        yield f'<NavigationProperty Name="{name}" Type="Collection(mscrm.{table})"/>'
    yield "</EntityType>"


def _edm(attribute: Attribute, date: str) -> str:
    """`date`: the type of a column without a time of day."""
    if attribute.type in LOOKUPS:
        return "Edm.Guid"
    if attribute.type in CHOICES:
        return "Edm.Int32"
    return date if attribute.date_only else _EDM[attribute.type]


def _operation(operation: Operation) -> Iterator[str]:
    kind = "Function" if operation.is_function else "Action"
    bound = ' IsBound="true"' if operation.bound_to else ""
    yield f'<{kind} Name="{operation.name}"{bound}>'
    if operation.bound_to:
        name = "entityset" if operation.bound_to.startswith("Collection(") else "entity"
        yield f'<Parameter Name="{name}" Type="{operation.bound_to}" Nullable="false"/>'
    for name, type_ in operation.parameters.items():
        nullable = "" if name in operation.optional else ' Nullable="false"'
        yield f'<Parameter Name="{name}" Type="{type_}"{nullable}/>'
    if operation.returns:
        yield f'<ReturnType Type="{operation.returns}" Nullable="false"/>'
    yield f"</{kind}>"
