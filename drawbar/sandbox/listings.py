"""The rows that a query selected, in their order, kept for the pages that follow.

Without it each page would look at every row again, and reading a table would take the square of its size. What is kept
is dropped as soon as anything is written, so a page is what a fresh look would give.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from drawbar.sandbox.store import Store

KEPT = 16  # queries that are read side by side

Row = TypeVar("Row")


class Listings(Generic[Row]):
    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[Hashable, tuple[int, list[Row]]] = {}

    def rows(self, query: Hashable, select: Callable[[], list[Row]], *, goes_on: bool) -> list[Row]:
        """What `select` gives; for a later page (`goes_on`) what it gave before, if nothing was written since.

        The list is not to be changed.
        """
        writes = self._store.writes
        kept = self._kept.pop(query, None)
        if kept is None or kept[0] != writes or not goes_on:
            kept = (writes, select())
        self._kept[query] = kept
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[1]
