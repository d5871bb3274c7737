"""Pictures of Business Central's customers, contacts, items and variants. A picture is a field of its record.

The size and the kind of a picture are read from its first bytes.
"""

from __future__ import annotations

import struct

from drawbar.sandbox.erp.model import EntitySet
from drawbar.sandbox.erp.parts import PartRules, address, decoded, encoded
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.store import Stored, Values

_KEPT = "picture"  # of the owner's row


class PictureRules(PartRules):
    def of(self, records: ErpRecords, company: str, owner: EntitySet, stored: Stored) -> list[Stored]:  # noqa: ARG002
        """One, of no size as long as there is none."""
        kind, width, height = looks(decoded(stored.values, _KEPT))
        values: Values = {
            "id": stored.values["id"],
            "parentType": owner.kind,
            "width": width,
            "height": height,
            "contentType": kind,
            "address": address(owner, stored.values, "picture"),
        }
        return [Stored(values, stored.version)]

    def with_changed(self, records: ErpRecords, company: str, row: Values, part: Values, body: Values) -> Values:  # noqa: ARG002
        """Nothing of it can be written but its content."""
        return row

    def without(self, records: ErpRecords, company: str, row: Values, part: Values) -> Values:  # noqa: ARG002
        return _without(row)

    def with_content(self, row: Values, content: bytes) -> Values:
        return {**row, _KEPT: encoded(content)} if content else _without(row)

    def content(self, records: ErpRecords, company: str, owner: EntitySet, row: Values) -> bytes:  # noqa: ARG002
        return decoded(row, _KEPT)


def _without(row: Values) -> Values:
    return {name: value for name, value in row.items() if name != _KEPT}


def looks(content: bytes) -> tuple[str, int, int]:
    """Kind, width and height of a picture in pixels; of what is no picture we know of, no size."""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) >= 24:
        return ("image/png", *struct.unpack(">II", content[16:24]))
    if content[:6] in (b"GIF87a", b"GIF89a") and len(content) >= 10:
        return ("image/gif", *struct.unpack("<HH", content[6:10]))
    if content.startswith(b"BM") and len(content) >= 26:
        width, height = struct.unpack("<ii", content[18:26])
        return "image/bmp", width, abs(height)
    if content.startswith(b"\xff\xd8"):
        return ("image/jpeg", *_size_of_jpeg(content))
    return ("application/octet-stream" if content else "", 0, 0)


def _size_of_jpeg(content: bytes) -> tuple[int, int]:
    """From the first frame header; segments before it are passed over."""
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return 0, 0
