"""Patterns of Dataverse's conditions on text, as SQL's LIKE has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from drawbar.sandbox.odata import QueryError

_WILDCARDS = re.compile(r"\[([^\]]*)\]|(.)", re.DOTALL)


def like(text: str) -> Callable[[str], bool]:
    """A pattern of SQL's LIKE: `%` any text, `_` any character, `[abc]` and `[a-c]` one of these, `[^abc]` none.

    What stands between two `%` is looked for from left to right, each where it is first: no pattern takes longer
    than its length times the text's.
    """
    pieces: list[list[str]] = [[]]
    for some, mark in _WILDCARDS.findall(text):
        if mark == "%":
            pieces.append([])
        else:
            pieces[-1].append("." if mark == "_" else re.escape(mark) if mark else _one_of(some))
    try:
        patterns = [re.compile("".join(piece), re.IGNORECASE | re.DOTALL) for piece in pieces]
    except re.error as fault:
        raise QueryError(f"'{text}' is no pattern.") from fault
    first, *middle = patterns
    if not middle:
        return lambda held: first.fullmatch(held) is not None
    last, width = middle.pop(), len(pieces[-1])

    def fits(held: str) -> bool:
        found = first.match(held)
        for pattern in middle:
            found = pattern.search(held, found.end()) if found else None
        end = len(held) - width
        return found is not None and end >= found.end() and last.fullmatch(held, end) is not None

    return fits


def _one_of(some: str) -> str:
    """The inside of `[…]` as a set of a regular expression, in which only `-` and a leading `^` mean something."""
    if not some:
        return "(?!)"
    negated, marks = some.startswith("^"), some.removeprefix("^")
    inside = "".join(mark if mark == "-" else re.escape(mark) for mark in marks)
    return f"[{'^' if negated else ''}{inside}]" if marks else re.escape(some)


def literal(text: str) -> str:
    """A pattern that only this text fits."""
    return "".join(f"[{mark}]" if mark in "%_[" else mark for mark in text)
