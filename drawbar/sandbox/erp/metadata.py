"""Business Central's metadata document. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from drawbar.sandbox.erp.model import EntitySet


def _properties(**types: str) -> str:
    return "".join(f'<Property Name="{name}" Type="{kind}"/>' for name, kind in types.items())


def _many(kind: str) -> str:
    return f"Collection(Microsoft.NAV.entityMetadata{kind})"


_NAMED = {"name": "Edm.String", "captions": _many("Label")}
_DEFINITIONS = (
    '<EntityType Name="entityMetadata"><Key><PropertyRef Name="entityName"/></Key>'
    + _properties(
        entityName="Edm.String",
        entitySetName="Edm.String",
        entityCaptions=_many("Label"),
        entitySetCaptions=_many("Label"),
        properties=_many("Field"),
        actions=_many("Action"),
        enumMembers=_many("EnumMember"),
    )
    + "</EntityType>",
    '<ComplexType Name="entityMetadataLabel">'
    + _properties(languageCode="Edm.Int32", caption="Edm.String")
    + "</ComplexType>",
    *(
        f'<ComplexType Name="entityMetadata{kind}">{_properties(**more, **_NAMED)}</ComplexType>'
        for kind, more in (("Field", {}), ("Action", {}), ("EnumMember", {"value": "Edm.Int32"}))
    ),
)


def csdl(companies: EntitySet, sets: Mapping[str, EntitySet], actions: Iterable[tuple[str, str]]) -> bytes:
    """`companies`: the set that all others are below; `actions`: set and name of each bound action."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>',
        '<Schema Namespace="Microsoft.NAV" xmlns="http://docs.oasis-open.org/odata/ns/edm">',
        *_DEFINITIONS,
    ]
    for entity_set in (companies, *sets.values()):
        lines.append(f'<EntityType Name="{entity_set.entity}"><Key><PropertyRef Name="{entity_set.id}"/></Key>')
        for column in entity_set.columns.values():
            edm = {"Enum": f"Microsoft.NAV.{entity_set.entity}_{column.name}", "DateFormula": "Edm.String"}.get(
                column.type, f"Edm.{column.type}"
            )
            length = f' MaxLength="{column.max}"' if column.max else ""
            lines.append(f'<Property Name="{column.name}" Type="{edm}"{length}/>')
        for name, (set_name, _) in entity_set.navigations.items():
            lines.append(f'<NavigationProperty Name="{name}" Type="Microsoft.NAV.{sets[set_name].entity}"/>')
        for name, (set_name, _) in entity_set.collections.items():
            kind = f"Collection(Microsoft.NAV.{sets[set_name].entity})"
            lines.append(f'<NavigationProperty Name="{name}" Type="{kind}" ContainsTarget="true"/>')
        for name, set_name in entity_set.parts.items():
            lines.append(f'<NavigationProperty Name="{name}" Type="Microsoft.NAV.{sets[set_name].entity}"/>')
        for other in sets.values() if entity_set is companies else ():
            kind = f"Collection(Microsoft.NAV.{other.entity})"
            lines.append(f'<NavigationProperty Name="{other.name}" Type="{kind}" ContainsTarget="true"/>')
        lines.append("</EntityType>")
        for column in entity_set.columns.values():
            if column.type == "Enum":
                members = "".join(
                    f'<Member Name="{option}" Value="{index}"/>' for index, option in enumerate(column.options)
                )
                lines.append(f'<EnumType Name="{entity_set.entity}_{column.name}">{members}</EnumType>')
    for set_name, action in actions:
        bound = f'<Parameter Name="bindingParameter" Type="Microsoft.NAV.{sets[set_name].entity}"/>'
        lines.append(f'<Action Name="{action}" IsBound="true">{bound}</Action>')
    lines.append('<EntityContainer Name="NAV">')
    lines.append('<EntitySet Name="entityDefinitions" EntityType="Microsoft.NAV.entityMetadata"/>')
    lines += [
        f'<EntitySet Name="{s.name}" EntityType="Microsoft.NAV.{s.entity}"/>' for s in (companies, *sets.values())
    ]
    lines.append("</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>")
    return "".join(lines).encode()
