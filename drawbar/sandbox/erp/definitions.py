"""Business Central's entity definitions: what entities, properties, actions and members are called. Pure.

In English alone (1033), which is the one language installed. Members of an enumeration are an entry of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from drawbar.sandbox.erp.model import Column, EntitySet, ErpError, ErpSchema, unescape
from drawbar.sandbox.erp.reading import must_be_known
from drawbar.sandbox.odata import compile_filter, parse_filter, split_list
from drawbar.sandbox.store import Values

ENGLISH = 1033
_OPTIONS = frozenset(("$filter", "$select"))
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CAPTIONS = {  # of the public pages, where they are not the words of the name
    "lastModifiedDateTime": "Last Modified Date",
    "country": "Country/Region Code",
    "postalCode": "Post Code",
    "defaultVATProductPostingGroup": "Default VAT Product Posting Group",
    "commisionPercent": "Commission Percent",
}
_SCHEMA = EntitySet(  # what a filter may name
    name="entityDefinitions",
    route="",
    entity="entityMetadata",
    source="",
    key="entityName",
    key_caption="",
    id="entityName",
    order=(),
    verbs=frozenset(("GET",)),
    columns={"entityName": Column(name="entityName", type="String")},
    rights=(),
    navigations={},
    collections={},
)


def caption(name: str) -> str:
    """`billToCustomerNumber` as `Bill To Customer No.`."""
    if name in _CAPTIONS:
        return _CAPTIONS[name]
    words = [word if word.isupper() else word.capitalize() for word in _WORD.findall(name)]
    return " ".join("No." if word == "Number" else word for word in words)


def definitions(sets: Iterable[EntitySet], actions: Iterable[tuple[str, str]]) -> list[Values]:
    """`actions`: set and name of each bound action."""
    bound = list(actions)
    defined: list[Values] = []
    for each in sets:
        shown = [*each.columns, *each.parts, *each.collections]
        mine = [action for set_name, action in bound if set_name == each.name]
        defined.append(
            _definition(
                each.entity,
                each.name,
                properties=[{"name": name, "captions": _labels(caption(name))} for name in shown],
                actions=[{"name": name, "captions": _labels(caption(name))} for name in mine],
            )
        )
        for column in each.columns.values():
            if column.type == "Enum":
                members = [
                    {"name": option, "value": index, "captions": _labels(unescape(option))}
                    for index, option in enumerate(column.options)
                ]
                defined.append(_definition(f"{each.entity}_{column.name}", "", members=members))
    return defined


def _definition(
    entity: str,
    set_name: str,
    *,
    properties: list[Values] | None = None,
    actions: list[Values] | None = None,
    members: list[Values] | None = None,
) -> Values:
    return {
        "entityName": entity,
        "entitySetName": set_name,
        "entityCaptions": _labels(caption(entity)) if set_name else [],
        "entitySetCaptions": _labels(caption(set_name)) if set_name else [],
        "properties": properties or [],
        "actions": actions or [],
        "enumMembers": members or [],
    }


def _labels(text: str) -> list[Values]:
    return [{"languageCode": ENGLISH, "caption": text}]


def asked(defined: list[Values], options: Mapping[str, str]) -> list[Values]:
    """Those that a query selects; it may filter by `entityName` alone."""
    must_be_known(options, _OPTIONS)
    if "$filter" in options:
        keep = compile_filter(parse_filter(options["$filter"]), ErpSchema(_SCHEMA, ""))
        defined = [each for each in defined if keep(each)]
    names = split_list(options.get("$select", ""))
    unknown = [name for name in names if name not in _definition("", "")]
    if unknown:
        text = f"Could not find a property named '{unknown[0]}' on type 'Microsoft.NAV.entityMetadata'."
        raise ErpError(400, "BadRequest", text)
    return [{name: each[name] for name in names or each} for each in defined]
