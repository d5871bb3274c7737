"""Text on pages, as PDF. Pure: the same lines give the same bytes.

Source: ISO 32000-1; the standard font Courier, so that columns stand below each other.
"""

from __future__ import annotations

LINES = 60  # of a page
_HEIGHT, _TOP, _STEP, _LEFT, _SIZE = 842, 790, 12, 40, 9  # of A4, in points
_ESCAPED = str.maketrans({"\\": "\\\\", "(": "\\(", ")": "\\)"})


def written(lines: list[str], *, title: str) -> bytes:
    """One page or more. What the font lacks is a question mark."""
    pages = [lines[at : at + LINES] for at in range(0, len(lines), LINES)] or [[]]
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    info = 4 + 2 * len(pages)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    for at, page in enumerate(pages):
        content = _content(page)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 {_HEIGHT}] /Contents {5 + 2 * at} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    objects.append(b"<< /Title (%s) >>" % _text(title))
    return _file(objects, info=info)


def _content(lines: list[str]) -> bytes:
    shown = b"".join(b"(%s) Tj T*\n" % _text(line) for line in lines)
    return f"BT /F1 {_SIZE} Tf {_STEP} TL {_LEFT} {_TOP} Td\n".encode() + shown + b"ET"


def _text(text: str) -> bytes:
    return text.translate(_ESCAPED).encode("cp1252", "replace")


def _file(objects: list[bytes], *, info: int) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        info,
        start,
    )
    return bytes(out)
