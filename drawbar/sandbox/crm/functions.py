"""Dataverse's functions that are bound to nothing and tell of the service as a whole. Pure.

Sources: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrievetotalrecordcount,
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/retrieveversion
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from drawbar.sandbox.crm.messages import Message
from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.store import Values

VERSION = "9.2.26081.00190"  # of the form of the service's own: 9.2, then the build
OF_THE_SERVICE = {"RetrieveVersion": Message(run=lambda _: {"Version": VERSION}, is_function=True)}


def counted_tables(key: str | None, options: Mapping[str, str], entities: Mapping[str, Entity]) -> list[Entity]:
    """The tables that `RetrieveTotalRecordCount(EntityNames=['account'])` names, in the address or by an alias."""
    parameter, _, value = (key or "").partition("=")
    if parameter.strip() != "EntityNames":
        raise CrmError(400, "0x80060888", "The function 'RetrieveTotalRecordCount' takes the parameter 'EntityNames'.")
    text = options.get(value.strip(), value.strip())
    try:
        names = json.loads(text.replace("'", '"'))
    except ValueError as error:
        raise CrmError(400, "0x80060888", "The parameter 'EntityNames' is a list of names.") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CrmError(400, "0x80060888", "The parameter 'EntityNames' is a list of names.")
    unknown = [name for name in names if name not in entities]
    if unknown:
        raise CrmError(
            404,
            "0x80040217",
            f"The entity with a name = '{unknown[0]}' with namemapping = 'Logical' was not found in the MetadataCache.",
        )
    return [entities[name] for name in names]


def record_counts(tables: list[Entity], count: Callable[[Entity], int]) -> Values:
    return {
        "EntityRecordCountCollection": {
            "Count": len(tables),
            "IsReadOnly": False,
            "Keys": [entity.logical for entity in tables],
            "Values": [count(entity) for entity in tables],
        }
    }
