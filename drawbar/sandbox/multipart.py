"""Batches in parts, as both services take them: bytes to operations, and replies to bytes. Pure.

Source: https://docs.oasis-open.org/odata/odata/v4.0/odata-v4.0-part1-protocol.html, section 11.7. Lines must end with
CR and LF, as there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Optional

from drawbar.sandbox.odata import QueryError
from drawbar.sandbox.wire import Reply

MAX_OPERATIONS = 1000
_BOUNDARY = re.compile(r'boundary\s*=\s*"?([^";]+)"?', re.IGNORECASE)
_REQUEST_LINE = re.compile(r"(GET|POST|PATCH|PUT|DELETE)\s+(\S+)\s+HTTP/1\.[01]\Z")
NamedReply = tuple[Optional[str], Reply]  # by the Content-ID of its operation


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOperation:
    """One request inside a batch."""

    content_id: str | None
    method: str
    target: str  # as sent: a path, a whole address, or a reference to another operation
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Operations that happen together or not at all."""

    operations: tuple[BatchOperation, ...]


BatchItem = BatchOperation | ChangeSet


def parse_batch(content_type: str, body: bytes) -> list[BatchItem]:
    """Raises QueryError where the service would refuse the batch as a whole."""
    items: list[BatchItem] = []
    for headers, content in _parts(content_type, body):
        kind = headers.get("content-type", "")
        if kind.lower().startswith("multipart/mixed"):
            operations = tuple(_operation(inner, rest) for inner, rest in _parts(kind, content))
            for operation in operations:
                if operation.method == "GET":
                    raise QueryError("A GET operation is not allowed in a change set.")
                if operation.content_id is None:
                    raise QueryError("Every operation in a change set needs a Content-ID.")
            items.append(ChangeSet(operations))
        else:
            items.append(_operation(headers, content))
    operations = tuple(_operations(items))
    if len(operations) > MAX_OPERATIONS:
        raise QueryError(f"The batch has more than {MAX_OPERATIONS} operations.")
    ids = [operation.content_id for operation in operations if operation.content_id is not None]
    if len(ids) != len(set(ids)):
        raise QueryError("A Content-ID occurs more than once in the batch.")
    return items


def _operations(items: Iterable[BatchItem]) -> Iterable[BatchOperation]:
    for item in items:
        yield from item.operations if isinstance(item, ChangeSet) else (item,)


def _parts(content_type: str, body: bytes) -> list[tuple[dict[str, str], bytes]]:
    match = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/mixed") or match is None:
        raise QueryError("The content type of a batch is multipart/mixed with a boundary.")
    mark = re.escape(b"--" + match.group(1).strip().encode())
    pieces = re.split(rb"(?:\A|\r?\n)" + mark + rb"(--)?[ \t]*(?=\r?\n|\Z)", body)
    if len(pieces) < 4 or pieces[-2] != b"--":
        raise QueryError("The boundary of the batch is missing or the batch has no end.")
    return [_headers(piece) for piece in pieces[2:-2:2]]


def _headers(piece: bytes) -> tuple[dict[str, str], bytes]:
    head, _, rest = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    for line in head.removesuffix(b"\r\n").split(b"\r\n") if head.strip(b"\r\n") else []:
        name, colon, value = line.partition(b":")
        if not colon or b"\n" in line:
            text = line.decode("utf-8", "replace").strip()
            raise QueryError(
                f"The message header '{text}' is invalid. The header value must be of the format"
                " '<header name>: <header value>'."
            )
        headers[name.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
    return headers, rest


def _operation(headers: Mapping[str, str], content: bytes) -> BatchOperation:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/http":
        raise QueryError("The content type of an operation is application/http.")
    line, _, rest = content.lstrip(b"\r\n").partition(b"\r\n")
    match = _REQUEST_LINE.match(line.decode("utf-8", "replace").strip())
    if match is None:
        raise QueryError("An operation does not begin with a request line.")
    if re.search(r"/\$batch\b", match.group(2)):
        raise QueryError("A batch cannot contain another one.")
    # Without headers of its own the operation's head ends with its first line.
    inner, body = ({}, rest[2:]) if rest.startswith(b"\r\n") else _headers(rest)
    return BatchOperation(
        content_id=headers.get("content-id"),
        method=match.group(1),
        target=match.group(2),
        headers=inner,
        body=body.strip(b"\r\n"),
    )


def format_batch(parts: Sequence[NamedReply | list[NamedReply]], *, status: int) -> Reply:
    """The reply to a whole batch: each part is the one reply of an operation, or those of a change set."""
    boundary = f"batchresponse_{uuid.uuid4()}"
    lines: list[bytes] = []
    for part in parts:
        lines.append(f"--{boundary}".encode())
        if not isinstance(part, list):
            lines += _reply_lines(*part)
            continue
        inner = f"changesetresponse_{uuid.uuid4()}"
        lines += [f"Content-Type: multipart/mixed; boundary={inner}".encode(), b""]
        for content_id, reply in part:
            lines += [f"--{inner}".encode(), *_reply_lines(content_id, reply)]
        lines += [f"--{inner}--".encode()]
    lines += [f"--{boundary}--".encode(), b""]
    return Reply(
        status,
        b"\r\n".join(lines),
        {"Content-Type": f"multipart/mixed; boundary={boundary}", "OData-Version": "4.0"},
    )


def _reply_lines(content_id: str | None, reply: Reply) -> list[bytes]:
    head = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    if content_id is not None:
        head.append(f"Content-ID: {content_id}")
    head += ["", f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    return ["\r\n".join(head).encode(), b"", reply.body]
