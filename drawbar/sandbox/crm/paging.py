"""Dataverse's pages: how long one is, and the cookie by which the next is asked for. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote

from drawbar.sandbox.crm.model import CrmError, Entity
from drawbar.sandbox.odata import whole_number
from drawbar.sandbox.store import Values
from drawbar.sandbox.wire import from_json, to_json

PAGE = 5000  # rows that one answer has at most
COUNT_CAP = 5000  # that a count goes up to


def page_size(preferences: Mapping[str, str]) -> int:
    """As a request prefers it. Raises CrmError for what is no size of a page."""
    text = preferences.get("odata.maxpagesize")
    if text is None:
        return PAGE
    size = whole_number(text)
    if size is None or not 1 <= size <= PAGE:
        raise CrmError(400, "0x80060888", f"The page size must be between 1 and {PAGE}.")
    return size


def without(query: str, option: str) -> str:
    """The query with its other options, ready for one more to follow."""
    encoded = "%24" + option[1:]
    parts = [part for part in query.split("&") if part and not part.startswith((f"{option}=", f"{encoded}="))]
    return "".join(f"{part}&" for part in parts)


def write_cookie(entity: Entity, page: list[Values], number: int, bookmark: list[Any], *, tracking: bool) -> str:
    """The paging cookie in its published shape; where to go on stands in `bookmark`."""
    inner = f'<cookie page="{number - 1}">'
    if page:
        last, first = page[-1][entity.id].upper(), page[0][entity.id].upper()
        inner += f'<{entity.id} last="{{{last}}}" first="{{{first}}}" />'
    inner += "</cookie>"
    place = base64.urlsafe_b64encode(to_json(bookmark)).decode()
    cookie = (
        f'<cookie pagenumber="{number}" pagingcookie="{escape(quote(quote(inner, safe=""), safe=""))}"'
        f' istracking="{tracking}" bookmark="{place}" />'
    )
    return quote(cookie, safe="")


def read_cookie(cookie: str) -> tuple[tuple[Any, int], int]:
    """Where the page before ended, the version that was read, and the number of this page."""
    number = re.search(r'pagenumber="(\d+)"', cookie)
    place = re.search(r'bookmark="([^"]*)"', cookie)
    if number is None or place is None:
        raise CrmError(400, "0x80060888", "The paging cookie is not valid.")
    try:
        last, version = from_json(base64.urlsafe_b64decode(place.group(1)))
    except (TypeError, ValueError) as error:
        raise CrmError(400, "0x80060888", "The paging cookie is not valid.") from error
    page = whole_number(number.group(1))
    if type(version) is not int or page is None:
        raise CrmError(400, "0x80060888", "The paging cookie is not valid.")
    return (last, version), page
