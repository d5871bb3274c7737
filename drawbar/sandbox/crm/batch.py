"""Dataverse's multipart batches: bytes to operations, and replies to bytes. Pure.

Source: the OData 4.0 batch format, as the Web API documents it. Lines must end with CR and LF, as there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Optional

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.wire import Reply

MAX_OPERATIONS = 1000
_BOUNDARY = re.compile(r'boundary\s*=\s*"?([^";]+)"?', re.IGNORECASE)
_REQUEST_LINE = re.compile(r"(GET|POST|PATCH|PUT|DELETE)\s+(\S+)\s+HTTP/1\.[01]\Z")
_CONTENT_REFERENCE = re.compile(r"\$[A-Za-z0-9_.-]+(?=[/?]|\Z)")
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
    """Raises CrmError where the service would refuse the batch as a whole."""
    items: list[BatchItem] = []
    for headers, content in _parts(content_type, body):
        kind = headers.get("content-type", "")
        if kind.lower().startswith("multipart/mixed"):
            operations = tuple(_operation(inner, rest) for inner, rest in _parts(kind, content))
            for operation in operations:
                if operation.method == "GET":
                    raise _refused("A GET operation is not allowed in a change set.")
                if operation.content_id is None:
                    raise _refused("Every operation in a change set needs a Content-ID.")
            items.append(ChangeSet(operations))
        else:
            items.append(_operation(headers, content))
    operations = tuple(_operations(items))
    if len(operations) > MAX_OPERATIONS:
        raise _refused(f"The batch has more than {MAX_OPERATIONS} operations.")
    ids = [operation.content_id for operation in operations if operation.content_id is not None]
    if len(ids) != len(set(ids)):
        raise _refused("A Content-ID occurs more than once in the batch.")
    return items


def _operations(items: Iterable[BatchItem]) -> Iterable[BatchOperation]:
    for item in items:
        yield from item.operations if isinstance(item, ChangeSet) else (item,)


def _parts(content_type: str, body: bytes) -> list[tuple[dict[str, str], bytes]]:
    match = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/mixed") or match is None:
        raise _refused("The content type of a batch is multipart/mixed with a boundary.")
    mark = re.escape(b"--" + match.group(1).strip().encode())
    pieces = re.split(rb"(?:\A|\r?\n)" + mark + rb"(--)?[ \t]*(?=\r?\n|\Z)", body)
    if len(pieces) < 4 or pieces[-2] != b"--":
        raise _refused("The boundary of the batch is missing or the batch has no end.")
    return [_headers(piece) for piece in pieces[2:-2:2]]


def _headers(piece: bytes) -> tuple[dict[str, str], bytes]:
    head, _, rest = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    for line in head.removesuffix(b"\r\n").split(b"\r\n") if head.strip(b"\r\n") else []:
        name, colon, value = line.partition(b":")
        if not colon or b"\n" in line:
            text = line.decode("utf-8", "replace").strip()
            raise _refused(
                f"The message header '{text}' is invalid. The header value must be of the format"
                " '<header name>: <header value>'."
            )
        headers[name.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
    return headers, rest


def _operation(headers: Mapping[str, str], content: bytes) -> BatchOperation:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/http":
        raise _refused("The content type of an operation is application/http.")
    line, _, rest = content.lstrip(b"\r\n").partition(b"\r\n")
    match = _REQUEST_LINE.match(line.decode("utf-8", "replace").strip())
    if match is None:
        raise _refused("An operation does not begin with a request line.")
    if re.search(r"/\$batch\b", match.group(2)):
        raise _refused("A batch cannot contain another one.")
    # Without headers of its own the operation's head ends with its first line.
    inner, body = ({}, rest[2:]) if rest.startswith(b"\r\n") else _headers(rest)
    return BatchOperation(
        content_id=headers.get("content-id"),
        method=match.group(1),
        target=match.group(2),
        headers=inner,
        body=body.strip(b"\r\n"),
    )


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


def format_batch(parts: Sequence[NamedReply | list[NamedReply]], *, status: int) -> Reply:
    """The reply to a whole batch: each part is the one reply of an operation, or those of a change set.

    A change set that failed as a whole has one reply without a name, which stands like that of an operation.
    """
    boundary = f"batchresponse_{uuid.uuid4()}"
    lines: list[bytes] = []
    for part in parts:
        replies = part if isinstance(part, list) else [part]
        lines.append(f"--{boundary}".encode())
        if not isinstance(part, list) or (len(replies) == 1 and replies[0][0] is None):
            lines += _reply_lines(*replies[0])
            continue
        inner = f"changesetresponse_{uuid.uuid4()}"
        lines += [f"Content-Type: multipart/mixed; boundary={inner}".encode(), b""]
        for content_id, reply in replies:
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


def _refused(text: str) -> CrmError:
    return CrmError(400, "0x80060888", text)
