"""What a webhook's call means: whether it knows the secret, and whether there is something new to look at.

Pure, but for what `Seen` remembers. A call carries no value that we use: it names an entity, and that one is polled
sooner. Whoever shows the secret is welcome whatever else he sends, since the ERP drops all subscriptions of an address
that answers otherwise. What came before, or is about a change that polling must have seen long since, moves nothing.
"""

from __future__ import annotations

import hmac
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum
from hashlib import blake2b
from typing import Any

from drawbar.entities import parse_time

OLD_AFTER = timedelta(minutes=15)  # long after any poll; a system's clock may differ by minutes
REMEMBERED = 20_000  # notifications: twenty of the largest batches that the ERP sends

LONGEST_SHOWN = 4096  # bytes that one shown secret may take, name and all, each character escaped
_CLIENT_STATE = re.compile(rb'"clientState"\s*:\s*("(?:[^"\\]|\\.)*")')
_CRM_TIME = re.compile(r"/Date\((-?\d+)(?:[+-]\d{4})?\)/")


class Result(str, Enum):
    """What became of a notification; each is counted."""

    TAKEN = "taken"  # the entity is looked at now
    REPEATED = "repeated"
    OLD = "old"
    TOO_LARGE = "too_large"  # or cut off: nothing of it is read, the entity is looked at all the same
    UNKNOWN = "unknown"  # about an entity that is not captured
    REFUSED = "refused"  # without the secret, or with a wrong one


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`look`: poll the entity now; `sweep`: list its ids as well, since something may have been deleted."""

    is_known: bool  # the secret was right
    look: bool = False
    sweep: bool = False
    results: Mapping[Result, int] = field(default_factory=dict)


class Seen:
    """The notifications of late. A call that is repeated after a lost answer is the same to the letter."""

    def __init__(self, capacity: int = REMEMBERED) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()
        self._capacity = capacity

    def is_repeated(self, *parts: object) -> bool:
        """Whether these came before; from now on they did."""
        text = json.dumps([str(part) for part in parts])
        key = blake2b(text.encode(), digest_size=16).digest()
        if key in self._keys:
            return True
        self._keys[key] = None
        if len(self._keys) > self._capacity:
            self._keys.popitem(last=False)
        return False


class SecretSearch:
    """Whether a body that is too large to be kept shows the secret anywhere; it is fed part by part."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._tail = b""
        self.found = False

    def feed(self, part: bytes) -> None:
        if self.found:
            return
        text = self._tail + part
        self.found = _shows(text, self._secret)
        self._tail = text[-LONGEST_SHOWN:]


def judge_erp(
    body: bytes, secret: str, seen: Seen, now: datetime, *, is_whole: bool = True, shows_secret: bool = False
) -> Verdict:
    """A call of the ERP. The secret is in each entry: one right entry makes the call a welcome one.

    `is_whole` False: `body` is the beginning of something too large, which `shows_secret` somewhere, or does not.
    """
    entries = _entries(body) if is_whole else None
    if entries is None:
        if shows_secret or _shows(body, secret):
            return Verdict(is_known=True, look=True, results={Result.TOO_LARGE: 1})
        return Verdict(is_known=False, results={Result.REFUSED: 1})
    ours = [entry for entry in entries if is_secret(entry.get("clientState"), secret)]
    results = Counter({Result.REFUSED: len(entries) - len(ours)})
    if not ours:
        return Verdict(is_known=False, results={Result.REFUSED: max(1, len(entries))})
    sweep = False
    for entry in ours:
        result = _judge_entry(entry, seen, now)
        results[result] += 1
        sweep = sweep or (result is Result.TAKEN and _may_delete(entry))
    return Verdict(is_known=True, look=results[Result.TAKEN] > 0, sweep=sweep, results=+results)


def judge_crm(body: bytes, seen: Seen, now: datetime, *, is_whole: bool = True) -> Verdict:
    """A call of the CRM whose secret was right. A body that cannot be read still means that something changed."""
    context = _object(body) if is_whole else None
    if context is None:
        return Verdict(is_known=True, look=True, results={Result.TOO_LARGE: 1})
    result = Result.TAKEN
    operation = context.get("OperationId")
    if operation and seen.is_repeated("crm", operation, context.get("PrimaryEntityId"), context.get("MessageName")):
        result = Result.REPEATED
    elif _is_old(_crm_time(context.get("OperationCreatedOn")), now):
        result = Result.OLD
    return Verdict(is_known=True, look=result is Result.TAKEN, results={result: 1})


def is_secret(given: object, secret: str) -> bool:
    """In a time that does not depend on how much of it is right."""
    if not isinstance(given, str):
        return False
    return hmac.compare_digest(given.encode(errors="surrogatepass"), secret.encode())


def _judge_entry(entry: Mapping[str, Any], seen: Seen, now: datetime) -> Result:
    names = ("subscriptionId", "changeType", "resource", "lastModifiedDateTime")
    if seen.is_repeated("erp", *(entry.get(name) for name in names)):
        return Result.REPEATED
    try:
        at = parse_time(str(entry.get("lastModifiedDateTime")))
    except ValueError:
        return Result.TAKEN
    return Result.OLD if _is_old(at, now) else Result.TAKEN


def _may_delete(entry: Mapping[str, Any]) -> bool:
    """A `collection` without a filter stands for more changes than are listed, deletes among them."""
    kind = entry.get("changeType")
    return kind == "deleted" or (kind == "collection" and "?" not in str(entry.get("resource")))


def _entries(body: bytes) -> list[Mapping[str, Any]] | None:
    """The entries of a notification; None when it is not one."""
    value = (_object(body) or {}).get("value")
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        return None
    return value


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Mapping) else None


def _shows(body: bytes, secret: str) -> bool:
    """Whether the secret is shown in something that is no JSON, or not the whole of it."""
    return any(is_secret(_text(found[1]), secret) for found in _CLIENT_STATE.finditer(body))


def _text(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""


def _crm_time(text: object) -> datetime | None:
    found = _CRM_TIME.fullmatch(text) if isinstance(text, str) else None
    try:
        return datetime.fromtimestamp(int(found[1]) / 1000, timezone.utc) if found else None
    except (ValueError, OverflowError, OSError):
        return None


def _is_old(at: datetime | None, now: datetime) -> bool:
    return at is not None and at < now - OLD_AFTER
