"""Dataverse's metadata: `EntityDefinitions` as far as a check of a mapping needs it, and a CSDL. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from drawbar.sandbox.crm_keys import Key
from drawbar.sandbox.crm_model import CHOICES, LOOKUPS, Attribute, CrmError, Entity
from drawbar.sandbox.odata import (
    Getter,
    Literal,
    Predicate,
    QueryError,
    QueryFunction,
    Segment,
    compile_filter,
    parse_filter,
    split_list,
    unquote_key,
)

_REQUIRED = {"S": "SystemRequired", "A": "ApplicationRequired", "R": "Recommended", "": "None"}
_OWNERSHIP = {"user": "UserOwned", "organization": "OrganizationOwned", "businessunit": "BusinessOwned", "none": "None"}
_NAMESPACE = uuid.UUID("6d2f9a34-0c57-4a5e-9d0e-6a1f3b0c7e11")  # metadata ids are names, not state
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

Described = dict[str, Any]


class _AnyShape:
    """Metadata is filtered by whatever member it has, down to `CanChangeTrackingBeEnabled/Value`."""

    def property(self, path: tuple[str, ...]) -> tuple[Getter, str]:
        def read(row: Mapping[str, Any]) -> Any:
            value: Any = row
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            return None if isinstance(value, (Mapping, list)) else value

        return read, "any"

    def literal(self, kind: str, literal: Literal) -> Any:  # noqa: ARG002
        return literal.value

    def query_function(self, function: QueryFunction) -> Predicate:
        raise QueryError(f"The query function '{function.name}' is not supported on metadata.")


class EntityDefinitions:
    def __init__(self, entities: Mapping[str, Entity], base_url: str, keys_of: Callable[[Entity], list[Key]]) -> None:
        self._entities = entities
        self._keys_of = keys_of
        self._base_url = base_url

    def answer(self, segments: list[Segment], options: Mapping[str, str]) -> Described:
        """The body for a path below `EntityDefinitions`."""
        key = segments[0].key
        if key is None:
            rows = [_entity(entity) for entity in self._entities.values()]
            return self._list("EntityDefinitions", rows, options)
        entity = self.named(key)
        if len(segments) == 1:
            return self._one("EntityDefinitions", _entity(entity), options)
        match segments[1].name:
            case "Attributes":
                return self._attributes(entity, segments[1:], options)
            case "Keys":
                return self._keys(entity, segments[1], options)
            case "OneToManyRelationships":
                return self._list("OneToManyRelationships", _collections(entity), options)
            case "ManyToOneRelationships":
                return self._list("ManyToOneRelationships", _relationships(entity), options)
            case other:
                raise CrmError(404, "0x80060888", f"Resource not found for the segment '{other}'.")

    def _attributes(self, entity: Entity, segments: list[Segment], options: Mapping[str, str]) -> Described:
        kind = segments[1].name.rpartition(".")[2].removesuffix("AttributeMetadata") if len(segments) > 1 else None
        key = segments[0].key
        if key is not None:
            name = unquote_key(key.partition("=")[2] or key)
            attribute = entity.attributes.get(name)
            if attribute is None or (kind is not None and attribute.type != kind):
                raise CrmError(404, "0x80060888", f"There is no such attribute '{name}' of '{entity.logical}'.")
            return self._one("Attributes", _attribute(entity, attribute, options), options)
        rows = [
            _attribute(entity, attribute, options)
            for attribute in entity.attributes.values()
            if kind is None or attribute.type == kind
        ]
        return self._list("Attributes", rows, options)

    def _keys(self, entity: Entity, segment: Segment, options: Mapping[str, str]) -> Described:
        rows = [_key(entity, key) for key in self._keys_of(entity)]
        if segment.key is None:
            return self._list("Keys", rows, options)
        name = key_name(segment.key)
        for row in rows:
            if name in (row["MetadataId"], row["LogicalName"]):
                return self._one("Keys", row, options)
        raise CrmError(404, "0x80060888", f"There is no key '{name}' of '{entity.logical}'.")

    def named(self, key: str) -> Entity:
        name = unquote_key(key.partition("=")[2] or key).lower()
        for entity in self._entities.values():
            if name in (entity.logical, _metadata_id(entity.logical)):
                return entity
        raise CrmError(404, "0x80060888", f"Could not find an entity with the name '{name}'.")

    def _list(self, name: str, rows: list[Described], options: Mapping[str, str]) -> Described:
        if "$filter" in options:
            predicate = compile_filter(parse_filter(options["$filter"]), _AnyShape())
            rows = [row for row in rows if predicate(row)]
        return {
            "@odata.context": f"{self._base_url}/$metadata#{name}",
            "value": [_chosen(row, options) for row in rows],
        }

    def _one(self, name: str, row: Described, options: Mapping[str, str]) -> Described:
        return {"@odata.context": f"{self._base_url}/$metadata#{name}/$entity", **_chosen(row, options)}


def _chosen(row: Described, options: Mapping[str, str]) -> Described:
    names = split_list(options.get("$select", ""))
    if not names:
        return row
    expanded = {part.partition("(")[0] for part in split_list(options.get("$expand", ""))}
    kept = {"@odata.type", "MetadataId", *names, *expanded}
    return {name: value for name, value in row.items() if name in kept}


def _metadata_id(*names: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(names)))


def _managed(value: Any) -> Described:
    return {"Value": value, "CanBeChanged": True}


def _label(text: str) -> Described:
    localized = {"Label": text, "LanguageCode": 1033, "IsManaged": True}
    return {"LocalizedLabels": [localized], "UserLocalizedLabel": localized}


def _entity(entity: Entity) -> Described:
    tracked = "versionnumber" in entity.attributes
    return {
        "MetadataId": _metadata_id(entity.logical),
        "LogicalName": entity.logical,
        "SchemaName": entity.logical[:1].upper() + entity.logical[1:],
        "EntitySetName": entity.set,
        "LogicalCollectionName": entity.set,
        "PrimaryIdAttribute": entity.id,
        "PrimaryNameAttribute": entity.name,
        "ObjectTypeCode": entity.type_code,
        "OwnershipType": _OWNERSHIP[entity.ownership],
        "ChangeTrackingEnabled": tracked,
        "CanChangeTrackingBeEnabled": _managed(value=True),
        "IsOptimisticConcurrencyEnabled": tracked,
        "IsCustomEntity": "_" in entity.logical,
        "DisplayName": _label(entity.logical),
    }


def _attribute(entity: Entity, attribute: Attribute, options: Mapping[str, str]) -> Described:
    described: Described = {
        "@odata.type": f"#Microsoft.Dynamics.CRM.{attribute.type}AttributeMetadata",
        "MetadataId": _metadata_id(entity.logical, attribute.name),
        "LogicalName": attribute.name,
        "SchemaName": attribute.schema,
        "EntityLogicalName": entity.logical,
        "AttributeType": attribute.type,
        "AttributeTypeName": {"Value": f"{attribute.type}Type"},
        "RequiredLevel": {
            "Value": _REQUIRED[attribute.required],
            "CanBeChanged": attribute.required != "S",
            "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings",
        },
        "IsValidForCreate": "C" in attribute.write,
        "IsValidForUpdate": "U" in attribute.write,
        "IsValidForRead": not attribute.secret,
        "IsPrimaryId": attribute.name == entity.id,
        "IsPrimaryName": attribute.name == entity.name,
        "DisplayName": _label(attribute.name),
    }
    match attribute.type:
        case "String":
            described |= {"MaxLength": attribute.max or 100, "FormatName": {"Value": "Text"}}
        case "Memo":
            described |= {"MaxLength": attribute.max or 2000, "FormatName": {"Value": "TextArea"}}
        case "Integer" | "BigInt":
            described |= {"MinValue": attribute.min, "MaxValue": attribute.max}
        case "Money":
            described |= {
                "MinValue": attribute.min,
                "MaxValue": attribute.max,
                "Precision": 2,
                "PrecisionSource": 2,
                "IsBaseCurrency": attribute.name.endswith("_base"),
            }
        case "Decimal" | "Double":
            described |= {"MinValue": attribute.min, "MaxValue": attribute.max, "Precision": 10}
        case "DateTime":
            behavior = "DateOnly" if attribute.date_only else "UserLocal"
            described |= {
                "DateTimeBehavior": {"Value": behavior},
                "Format": "DateOnly" if attribute.date_only else "DateAndTime",
            }
        case "Boolean":
            described |= {"DefaultValue": bool(attribute.default)}
    if attribute.type in LOOKUPS:
        described["Targets"] = list(attribute.targets)
    if attribute.type in CHOICES and "OptionSet" in options.get("$expand", "OptionSet"):
        described["OptionSet"] = {
            "MetadataId": _metadata_id(entity.logical, attribute.name, "options"),
            "Name": f"{entity.logical}_{attribute.name}",
            "IsGlobal": False,
            "OptionSetType": attribute.type,
            "Options": [
                {"Value": value, "Label": _label(text)}
                | ({"State": attribute.states[value]} if value in attribute.states else {})
                for value, text in attribute.options.items()
            ],
        }
        described["GlobalOptionSet"] = None
    return described


def key_name(text: str) -> str:
    """`LogicalName='x'`, `'x'` or an id."""
    return unquote_key(text.partition("=")[2] or text).lower()


def _key(entity: Entity, key: Key) -> Described:
    return {
        "MetadataId": key.metadata_id,
        "LogicalName": key.schema.lower(),
        "SchemaName": key.schema,
        "EntityLogicalName": entity.logical,
        "KeyAttributes": list(key.columns),
        "EntityKeyIndexStatus": "Active" if key.active else "Failed",
        "IsCustomizable": _managed(value=True),
        "IsManaged": False,
        "DisplayName": _label(key.schema),
    }


def _relationships(entity: Entity) -> list[Described]:
    return [
        {
            "MetadataId": _metadata_id(entity.logical, name, target),
            "SchemaName": f"{entity.logical}_{name}_{target}",
            "ReferencingAttribute": attribute.name,
            "ReferencingEntity": entity.logical,
            "ReferencingEntityNavigationPropertyName": name,
            "ReferencedEntity": target,
        }
        for name, (attribute, targets) in entity.navigations.items()
        for target in targets
    ]


def _collections(entity: Entity) -> list[Described]:
    return [
        {
            "MetadataId": _metadata_id(entity.logical, name),
            "SchemaName": name,
            "ReferencedEntity": entity.logical,
            "ReferencedAttribute": entity.id,
            "ReferencedEntityNavigationPropertyName": name,
            "ReferencingEntity": table,
            "ReferencingAttribute": lookup,
        }
        for name, (table, lookup) in entity.collections.items()
    ]


def csdl(entities: Mapping[str, Entity]) -> bytes:
    """Entity types with properties and single-valued navigations; no actions."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>',
        '<Schema Namespace="Microsoft.Dynamics.CRM" Alias="mscrm" xmlns="http://docs.oasis-open.org/odata/ns/edm">',
    ]
    for entity in entities.values():
        lines.append(f'<EntityType Name="{entity.logical}"><Key><PropertyRef Name="{entity.id}"/></Key>')
        for attribute in entity.attributes.values():
            if attribute.type in LOOKUPS:
                edm = "Edm.Guid"
            elif attribute.type in CHOICES:
                edm = "Edm.Int32"
            elif attribute.date_only:
                edm = "Edm.Date"
            else:
                edm = _EDM[attribute.type]
            lines.append(f"<Property Name={quoteattr(attribute.wire_name)} Type={quoteattr(edm)}/>")
        for name, (_, targets) in entity.navigations.items():
            target = targets[0] if len(targets) == 1 and targets[0] in entities else "crmbaseentity"
            lines.append(f'<NavigationProperty Name="{name}" Type="mscrm.{target}" Nullable="true"/>')
        for name, (table, _) in entity.collections.items():
            lines.append(f'<NavigationProperty Name="{name}" Type="Collection(mscrm.{table})"/>')
        lines.append("</EntityType>")
    lines.append('<EntityType Name="crmbaseentity" Abstract="true"/><EntityContainer Name="System">')
    lines += [f'<EntitySet Name="{e.set}" EntityType="mscrm.{e.logical}"/>' for e in entities.values()]
    lines.append("</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>")
    return "".join(lines).encode()
