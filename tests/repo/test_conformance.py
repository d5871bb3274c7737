"""The sandbox's tests are a specification: each fact names the page of the real service that it is taken from."""

from __future__ import annotations

import pytest

from tests.repo.conformance import MODULES, PAGE, conformance_page, facts, is_well_formed, pages_in
from tests.repo.tree import sources, text

FACTS = 800
# What is about the sandbox alone: its control, its data, what it makes of nonsense, and programs that use it.
OF_THE_SANDBOX = frozenset(
    (
        "test_clients",
        "test_control",
        "test_fuzz",
        "test_latency",
        "test_listings",
        "test_malformed",
        "test_seed",
        "test_storage",
        "test_switches",
    )
)


class TestFacts:
    def test_are_many(self):
        assert FACTS <= len(facts())

    def test_each_name_a_page(self):
        assert [] == [fact.where for fact in facts() if not fact.pages]

    def test_name_pages_by_their_own_address(self):
        assert [] == sorted({page for fact in facts() for page in fact.pages if not is_well_formed(page)})

    def test_come_from_every_module_that_is_about_a_service(self):
        found = {path.stem for path in sources("tests") if path.match("tests/sandbox/test_*.py")}

        assert found - OF_THE_SANDBOX == set(MODULES)

    def test_are_all_on_the_page(self):
        """`python -m tests.repo.conformance` writes it anew."""
        assert text(PAGE) == conformance_page()


class TestPages:
    @pytest.mark.parametrize(
        ("docstring", "pages"),
        [
            (None, ()),
            ("Nothing is null.", ()),
            (
                "learn.microsoft.com/dynamics365/sales/close-quote: Won",
                ("https://learn.microsoft.com/dynamics365/sales/close-quote",),
            ),
            (
                "Source: https://learn.microsoft.com/a/b_c\nhttps://docs.oasis-open.org/d.html.",
                ("https://learn.microsoft.com/a/b_c", "https://docs.oasis-open.org/d.html"),
            ),
            ("learn.microsoft.com/x/mt607842(v=crm.8): Close", ("https://learn.microsoft.com/x/mt607842(v=crm.8)",)),
            ("As RFC 9112, section 8, has it.", ("https://www.rfc-editor.org/rfc/rfc9112",)),
            ("learn.microsoft.com/x/…/a-…: Won", ("https://learn.microsoft.com/x/…/a-…",)),
            ("https://example.com/dynamics", ()),
        ],
    )
    def test_are_found_in_a_docstring(self, docstring: str | None, pages: tuple[str, ...]):
        assert pages == pages_in(docstring)

    @pytest.mark.parametrize(
        "page",
        [
            "http://learn.microsoft.com/dynamics365/a",
            "https://learn.microsoft.com/en-us/dynamics365/a",
            "https://learn.microsoft.com/dynamics365/a?view=x",
            "https://learn.microsoft.com/dynamics365/a#b",
            "https://learn.microsoft.com",
            "https://example.com/a",
            "https://learn.microsoft.com/power-apps/…/a",
        ],
    )
    def test_are_refused_in_any_other_form(self, page: str):
        assert not is_well_formed(page)
