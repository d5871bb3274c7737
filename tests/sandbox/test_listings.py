"""What a query selected, kept while its pages are fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawbar.sandbox.clock import Clock
from drawbar.sandbox.listings import KEPT, Listings
from drawbar.sandbox.store import Database, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store("erp", Database(None), Clock(), random_seed=1)


class Asked:
    """A listing that counts how often the rows are looked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listings: Listings[str] = Listings(store)
        self.looks = 0

    def page(self, query: str, *, goes_on: bool) -> list[str]:
        return self._listings.rows(query, self._select, goes_on=goes_on)

    def _select(self) -> list[str]:
        self.looks += 1
        return sorted(self._store.table("customers").rows)


class TestListings:
    def test_look_once_for_all_pages(self, store: Store):
        asked = Asked(store)
        asked.page("all", goes_on=False)
        for _ in range(9):
            asked.page("all", goes_on=True)

        assert 1 == asked.looks

    @pytest.mark.parametrize("silent", [False, True])
    def test_look_again_after_a_write(self, store: Store, silent: bool):
        store.put("customers", "a", {})
        asked = Asked(store)
        asked.page("all", goes_on=False)
        store.put("customers", "a", {"balance": 1}, silent=silent)
        store.put("items", "b", {})
        store.put("customers", "c", {})

        assert ["a", "c"] == asked.page("all", goes_on=True)
        assert 2 == asked.looks

    def test_look_again_after_a_write_that_was_taken_back(self, store: Store):
        asked = Asked(store)
        with store.transaction():
            undo = store.savepoint()
            store.put("customers", "a", {})
            before = asked.page("all", goes_on=False)
            undo()

        assert ["a"] == before
        assert [] == asked.page("all", goes_on=True)

    def test_look_again_for_a_first_page(self, store: Store):
        """What depends on the time of day is as of the first page."""
        asked = Asked(store)
        asked.page("all", goes_on=False)
        asked.page("all", goes_on=False)

        assert 2 == asked.looks

    def test_keep_the_queries_that_were_asked_last(self, store: Store):
        asked = Asked(store)
        for number in range(KEPT + 1):
            asked.page(str(number), goes_on=False)
        looks = asked.looks
        asked.page(str(KEPT), goes_on=True)
        asked.page("1", goes_on=True)
        assert looks == asked.looks

        asked.page("0", goes_on=True)
        assert looks + 1 == asked.looks
