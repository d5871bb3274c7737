"""Dataverse's paging cookies. Pure."""

from __future__ import annotations

import base64
import re
from html import escape
from typing import Any
from urllib.parse import quote

from drawbar.sandbox.crm_model import CrmError, Entity
from drawbar.sandbox.odata import whole_number
from drawbar.sandbox.store import Values
from drawbar.sandbox.wire import from_json, to_json

PAGE = 5000  # rows that one answer has at most


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
