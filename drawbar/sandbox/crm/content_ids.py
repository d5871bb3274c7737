"""References between the operations of a Dataverse batch: `$1` is what the operation of Content-ID 1 has made. Pure.

Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from drawbar.sandbox.crm.model import CrmError

_CONTENT_REFERENCE = re.compile(r"\$[A-Za-z0-9_.-]+(?=[/?]|\Z)")


def resolve_target(target: str, addresses: Mapping[str, str], base_url: str) -> str:
    """`$1/primarycontactid/$ref` as an address. Raises CrmError when nothing was declared as `1`."""
    text = target.removeprefix(base_url).lstrip("/")
    match = _CONTENT_REFERENCE.match(text)
    if match is None or match.group(0) in ("$metadata", "$batch"):
        return target
    return _known(match.group(0), addresses) + text[match.end() :]


def resolve_body(value: Any, addresses: Mapping[str, str]) -> Any:
    """A body in which references that stand for an address are that address."""
    if isinstance(value, list):
        return [resolve_body(item, addresses) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _resolved(item, addresses)
        if name.endswith(("@odata.bind", "@odata.id"))
        else resolve_body(item, addresses)
        for name, item in value.items()
    }


def _resolved(value: Any, addresses: Mapping[str, str]) -> Any:
    """An address, or several, of which those that are references are resolved."""
    if isinstance(value, list):
        return [_resolved(item, addresses) for item in value]
    return _known(value, addresses) if isinstance(value, str) and value.startswith("$") else value


def _known(reference: str, addresses: Mapping[str, str]) -> str:
    address = addresses.get(reference[1:])
    if address is None:
        raise CrmError(400, "0x80060888", f"Content-ID Reference: '{reference}' does not exist in the batch context.")
    return address
