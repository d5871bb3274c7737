"""Dataverse's metadata: `EntityDefinitions` as far as a check of a mapping needs it. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from drawbar.sandbox.crm.access import RIGHTS, Depth, depths_of, privilege_id, privilege_name, rights_of
from drawbar.sandbox.crm.keys import Key
from drawbar.sandbox.crm.model import CHOICES, LOOKUPS, Attribute, CrmError, Entity, no_resource
from drawbar.sandbox.odata import (
    Getter,
    Literal,
    Predicate,
    QueryError,
    QueryFunction,
    Row,
    Schema,
    Segment,
    compile_filter,
    parse_expand,
    parse_filter,
    parse_order,
    plain_text_test,
    sort_rows,
    split_list,
    unquote_key,
)
from drawbar.sandbox.switches import Switches

_REQUIRED = {"S": "SystemRequired", "A": "ApplicationRequired", "R": "Recommended", "": "None"}
_OWNERSHIP = {"user": "UserOwned", "organization": "OrganizationOwned", "businessunit": "BusinessOwned", "none": "None"}
_NAMESPACE = uuid.UUID("6d2f9a34-0c57-4a5e-9d0e-6a1f3b0c7e11")  # metadata ids are names, not state
_OPTIONS = frozenset(("$select", "$filter", "$expand", "$orderby", "$top"))

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

    def text_test(self, name: str, part: str) -> Callable[[str], bool]:
        return plain_text_test(name, part)

    def collection(self, path: tuple[str, ...]) -> tuple[Callable[[Row], Iterable[Row]], Schema]:
        raise QueryError(f"The collection '{'/'.join(path)}' cannot be filtered by.")


class EntityDefinitions:
    def __init__(
        self,
        entities: Mapping[str, Entity],
        base_url: str,
        keys_of: Callable[[Entity], list[Key]],
        switches: Switches,
    ) -> None:
        self._switches = switches
        self._entities = entities
        self._keys_of = keys_of
        self._base_url = base_url

    def answer(self, segments: list[Segment], options: Mapping[str, str]) -> Described:
        """The body for a path below `EntityDefinitions`."""
        for option in options:
            if option.startswith("$") and option not in _OPTIONS:
                raise CrmError(400, "0x80060888", f"The query parameter {option} is not supported on metadata.")
        if {"$orderby", "$top"} & set(options) and self._switches["crm_metadata_options"] == "refused":
            raise CrmError(400, "0x80060888", "Metadata is queried without $orderby and $top.")
        key = segments[0].key
        if key is None:
            rows = [self._entity(entity, options) for entity in self._entities.values()]
            return self._list("EntityDefinitions", rows, options)
        entity = self.named(key)
        if len(segments) == 1:
            return self._one("EntityDefinitions", self._entity(entity, options), options)
        name = segments[1].name
        match name:
            case "Attributes":
                return self._attributes(entity, segments[1:], options)
            case "Keys":
                return self._keys(entity, segments[1], options)
            case "OneToManyRelationships" | "ManyToOneRelationships" | "ManyToManyRelationships":
                return self._list(name, self._members(entity, name, {}), options)
        whole = _entity(entity)
        if name not in whole or len(segments) > 2:
            raise no_resource(name)
        where = f"EntityDefinitions(LogicalName='{entity.logical}')/{name}"
        return {"@odata.context": f"{self._base_url}/$metadata#{where}", "value": whole[name]}

    def _entity(self, entity: Entity, options: Mapping[str, str]) -> Described:
        row = _entity(entity)
        for name, inner in parse_expand(options.get("$expand", "")):
            row[name] = _picked(_matching(self._members(entity, name, inner), inner), inner)
        return row

    def _members(self, entity: Entity, name: str, options: Mapping[str, str]) -> list[Described]:
        """What a table consists of, by the name of the collection."""
        match name:
            case "Attributes":
                return [_attribute(entity, one, options, self._switches) for one in entity.attributes.values()]
            case "Keys":
                return [_key(entity, key) for key in self._keys_of(entity)]
            case "OneToManyRelationships":
                return _collections(entity)
            case "ManyToOneRelationships":
                return _relationships(entity)
            case "ManyToManyRelationships":
                return _associations(entity)
        raise QueryError(f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.EntityMetadata'.")

    def _attributes(self, entity: Entity, segments: list[Segment], options: Mapping[str, str]) -> Described:
        kind = segments[1].name.rpartition(".")[2].removesuffix("AttributeMetadata") if len(segments) > 1 else None
        key = segments[0].key
        if key is not None:
            name = unquote_key(key.partition("=")[2] or key)
            attribute = entity.attributes.get(name)
            if attribute is None or (kind is not None and _class_of(attribute) != kind):
                raise CrmError(404, "0x80060888", f"There is no such attribute '{name}' of '{entity.logical}'.")
            return self._one("Attributes", _attribute(entity, attribute, options, self._switches), options)
        rows = [
            _attribute(entity, attribute, options, self._switches)
            for attribute in entity.attributes.values()
            if kind is None or _class_of(attribute) == kind
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
        rows = _matching(rows, options)
        if {"$orderby", "$top"} & set(options):
            rows = self._some(rows, options)
        return {"@odata.context": f"{self._base_url}/$metadata#{name}", "value": _picked(rows, options)}

    def _some(self, rows: list[Described], options: Mapping[str, str]) -> list[Described]:
        if "$orderby" in options:
            sort_rows(rows, parse_order(options["$orderby"], _AnyShape()), row_of=lambda row: row)
        top = options.get("$top", str(len(rows)))
        if not top.isdigit():
            raise CrmError(400, "0x80060888", "The value of $top is not a whole number.")
        return rows[: int(top)]

    def _one(self, name: str, row: Described, options: Mapping[str, str]) -> Described:
        return {"@odata.context": f"{self._base_url}/$metadata#{name}/$entity", **_picked([row], options)[0]}


def _matching(rows: list[Described], options: Mapping[str, str]) -> list[Described]:
    if "$filter" not in options:
        return rows
    predicate = compile_filter(parse_filter(options["$filter"]), _AnyShape())
    return [row for row in rows if predicate(row)]


def _picked(rows: list[Described], options: Mapping[str, str]) -> list[Described]:
    """The rows with the members that are asked for."""
    names = split_list(options.get("$select", ""))
    known = set().union(*rows) if rows else set(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise QueryError(f"Could not find a property named '{unknown[0]}' on this type of metadata.")
    if not names:
        return rows
    expanded = {name for name, _ in parse_expand(options.get("$expand", ""))}
    kept = {"@odata.type", "MetadataId", *names, *expanded}
    return [{name: value for name, value in row.items() if name in kept} for row in rows]


def _class_of(attribute: Attribute) -> str:
    """The type of metadata that describes an attribute: customers and owners are lookups."""
    if attribute.type in LOOKUPS:
        return "Lookup"
    return {"Uniqueidentifier": "UniqueIdentifier"}.get(attribute.type, attribute.type)


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
        "Privileges": [] if entity.read_only else _privileges(entity),
        "DisplayName": _label(entity.logical),
    }


def _privileges(entity: Entity) -> list[Described]:
    depths = depths_of(entity)
    return [
        {
            "CanBeBasic": Depth.BASIC in depths,
            "CanBeDeep": Depth.DEEP in depths,
            "CanBeGlobal": Depth.GLOBAL in depths,
            "CanBeLocal": Depth.LOCAL in depths,
            "CanBeEntityReference": False,
            "CanBeParentEntityReference": False,
            "Name": privilege_name(entity, right),
            "PrivilegeId": privilege_id(privilege_name(entity, right)),
            "PrivilegeType": RIGHTS[right].word,
        }
        for right in rights_of(entity)
    ]


def _attribute(entity: Entity, attribute: Attribute, options: Mapping[str, str], switches: Switches) -> Described:
    described: Described = {
        "@odata.type": f"#Microsoft.Dynamics.CRM.{_class_of(attribute)}AttributeMetadata",
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
            is_date = attribute.date_only and switches["crm_date_columns"] == "Edm.Date"
            behavior = "DateOnly" if is_date else "UserLocal"
            described |= {
                "DateTimeBehavior": {"Value": behavior},
                "Format": "DateOnly" if attribute.date_only else "DateAndTime",
            }
        case "Boolean":
            described |= {"DefaultValue": bool(attribute.default)}
    if attribute.type in LOOKUPS:
        described["Targets"] = list(attribute.targets)
    for name, inner in parse_expand(options.get("$expand", "")):
        if name not in ("OptionSet", "GlobalOptionSet") or attribute.type not in CHOICES:
            raise QueryError(f"Could not find a property named '{name}' on type '{described['@odata.type'][1:]}'.")
        described[name] = _picked([_options(entity, attribute)], inner)[0] if name == "OptionSet" else None
    return described


def _options(entity: Entity, attribute: Attribute) -> Described:
    return {
        "MetadataId": _metadata_id(entity.logical, attribute.name, "options"),
        "Name": f"{entity.logical}_{attribute.name}",
        "IsGlobal": False,
        "OptionSetType": attribute.type,
        "Options": [
            {"Value": value, "Label": _label(text)}
            | ({"State": attribute.states[value], "TransitionData": None} if value in attribute.states else {})
            for value, text in attribute.options.items()
        ],
    }


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
        "EntityKeyIndexStatus": key.status,
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


def _associations(entity: Entity) -> list[Described]:
    return [
        {
            "MetadataId": _metadata_id(association.intersect, name),
            "SchemaName": name,
            "IntersectEntityName": association.intersect,
            "Entity1LogicalName": entity.logical,
            "Entity1IntersectAttribute": association.mine,
            "Entity1NavigationPropertyName": name,
            "Entity2LogicalName": association.other,
            "Entity2IntersectAttribute": association.theirs,
            "Entity2NavigationPropertyName": name,
        }
        for name, association in entity.associations.items()
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
