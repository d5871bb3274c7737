"""Dataverse's actions and functions as the parts of the sandbox offer them: what is asked, and what comes back. Pure.

Those of sales are in `actions`, which is older than this form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from drawbar.sandbox.crm.access import Caller
from drawbar.sandbox.crm.actions import Made
from drawbar.sandbox.crm.model import CrmError, Entity, no_method, no_resource
from drawbar.sandbox.odata import GUID, unquote_key
from drawbar.sandbox.store import Values


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that a function answers with."""

    entity: Entity
    ids: tuple[str, ...]


Answer = Made | Found | Values | None  # a row, rows, the members of a response, or nothing at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    caller: Caller
    parameters: Values
    entity: Entity | None = None  # of a bound message: the table, and the row
    row_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    run: Callable[[Asked], Answer]
    bound_to: tuple[str, ...] = ()  # tables; none: it is asked of the service
    is_function: bool = False


def message_named(
    messages: Mapping[str, Message], name: str, entity: Entity | None, method: str, key: str | None
) -> Message:
    """Raises CrmError when there is none of the name for this table, or it is asked in another way."""
    message = messages.get(name)
    is_bound = message is not None and (entity.logical in message.bound_to if entity else not message.bound_to)
    if message is None or not is_bound:
        raise no_resource(name)
    if method != ("GET" if message.is_function else "POST") or (key and not message.is_function):
        raise no_method(method, "on a function" if message.is_function else "on an action")
    return message


_PARAMETER = re.compile(r"\s*(\w+)\s*=\s*('(?:[^']|'')*'|[^,']*)\s*(?:,|\Z)")


def function_parameters(key: str | None, options: Mapping[str, str]) -> Values:
    """`RoleId=…,Target=@t` with `@t` among the query options. Raises CrmError for what is none."""
    given: Values = {}
    text, position = key or "", 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise CrmError(400, "0x80060888", f"The parameters '{text}' are not valid.")
        name, value = match.groups()
        if value.startswith("@"):
            if value not in options:
                raise CrmError(400, "0x80060888", f"The parameter alias '{value}' has no value.")
            value = options[value]
        given[name] = _value(value.strip())
        position = match.end()
    return given


def _value(text: str) -> Any:
    if text.startswith("'") or GUID.match(text):
        return unquote_key(text)
    with suppress(ValueError):
        return json.loads(text)
    with suppress(ValueError):  # in single quotes, as the service's documents write it in addresses
        return json.loads(text.replace('"', '\\"').replace("'", '"'))
    raise CrmError(400, "0x80060888", f"The value of the parameter is not valid: '{text}'.")


def an_id(parameters: Values, name: str) -> str:
    """Raises CrmError when the parameter is no id."""
    value = parameters.get(name)
    if not isinstance(value, str) or not GUID.match(value):
        raise CrmError(400, "0x80040203", f"The parameter '{name}' is the id of a row.")
    return value.lower()
