"""Which facts of the real services the sandbox is held to, each with the public page it is modelled on.

A fact is a test of one of the modules below. Its page stands in its docstring, or in that of its class if all tests of
the class model that page. A test that is about the sandbox alone says `Source: the sandbox itself.` and is no fact.

`python -m tests.repo.conformance` writes docs/conformance.md anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tests.repo.tree import ROOT, row, tree

PAGE = Path("docs/conformance.md")
OWN = "Source: the sandbox itself."
ERP, CRM, BOTH = "Business Central", "Dataverse", "Both, and the sign-in"

# Module, service and area, in the order of the page.
MODULES = {
    "test_business_central": (ERP, "API v2.0"),
    "test_erp_conventions": (ERP, "Conventions"),
    "test_erp_batch": (ERP, "Batches"),
    "test_erp_companies": (ERP, "Companies"),
    "test_erp_environments": (ERP, "Environments"),
    "test_erp_setup": (ERP, "Setup"),
    "test_erp_contacts": (ERP, "Contacts"),
    "test_erp_currencies": (ERP, "Currencies"),
    "test_erp_vendors": (ERP, "Vendors"),
    "test_erp_items": (ERP, "Items"),
    "test_erp_opportunities": (ERP, "Opportunities"),
    "test_erp_sales_orders": (ERP, "Sales orders"),
    "test_erp_documents": (ERP, "Quotes, invoices, shipments"),
    "test_erp_parts": (ERP, "Parts of records"),
    "test_erp_ledgers": (ERP, "Ledgers"),
    "test_erp_custom_api": (ERP, "Pages of a partner"),
    "test_dataverse": (CRM, "Web API"),
    "test_crm_headers": (CRM, "Headers"),
    "test_crm_queries": (CRM, "Queries"),
    "test_crm_deep_insert": (CRM, "Deep insert"),
    "test_crm_batch": (CRM, "Batches"),
    "test_crm_bulk": (CRM, "Bulk operations"),
    "test_crm_keys": (CRM, "Alternate keys"),
    "test_crm_fetch": (CRM, "FetchXML"),
    "test_crm_metadata": (CRM, "Metadata"),
    "test_crm_organization": (CRM, "Organization"),
    "test_crm_servers": (CRM, "Servers"),
    "test_crm_roles": (CRM, "Security roles"),
    "test_crm_impersonation": (CRM, "Impersonation"),
    "test_crm_duplicates": (CRM, "Duplicates"),
    "test_crm_jobs": (CRM, "Background jobs"),
    "test_crm_contacts": (CRM, "Contacts"),
    "test_crm_currencies": (CRM, "Currencies"),
    "test_crm_catalogue": (CRM, "Product catalogue"),
    "test_crm_sales": (CRM, "Sales documents"),
    "test_crm_pricing": (CRM, "Prices"),
    "test_crm_discounts": (CRM, "Discounts"),
    "test_crm_sales_actions": (CRM, "Sales actions"),
    "test_sign_in": (BOTH, "Sign-in"),
    "test_webhooks": (BOTH, "Webhooks"),
    "test_sockets": (BOTH, "HTTP"),
    "test_wire": (BOTH, "HTTP"),
}
_HOSTS = r"learn\.microsoft\.com|docs\.oasis-open\.org|www\.rfc-editor\.org|github\.com/microsoft"
# One that is cut short by an ellipsis is found with it, so that it is not taken for the page it begins like.
_ADDRESS = re.compile(rf"(?:https://)?((?:{_HOSTS})(?:/[\w.%…-]+(?:\(v=[\w.]+\))?)+)")
_RFC = re.compile(r"\bRFC (\d+)\b")
_WELL_FORMED = re.compile(rf"https://(?:{_HOSTS})(?:/[A-Za-z0-9_.%()=-]*[A-Za-z0-9_)])+")
_LOCALE = re.compile(r"/[a-z]{2}-[a-z]{2}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    service: str
    area: str
    about: str  # the class, without `Test`
    text: str
    where: str
    pages: tuple[str, ...]


def pages_in(docstring: str | None) -> tuple[str, ...]:
    """The pages that a docstring names, each once."""
    text = docstring or ""
    found = [f"https://{address.rstrip('.')}" for address in _ADDRESS.findall(text)]
    found += [f"https://www.rfc-editor.org/rfc/rfc{number}" for number in _RFC.findall(text)]
    return tuple(dict.fromkeys(found))


def is_well_formed(page: str) -> bool:
    """Https, of a host that publishes the services' documents or standards, in no one language, of no one place in it."""
    return _WELL_FORMED.fullmatch(page) is not None and _LOCALE.search(page) is None


def facts() -> tuple[Fact, ...]:
    return tuple(fact for module in MODULES for fact in _of_module(module))


def _of_module(module: str) -> Iterator[Fact]:
    service, area = MODULES[module]
    for kind in tree(Path(f"tests/sandbox/{module}.py")).body:
        if not isinstance(kind, ast.ClassDef) or not kind.name.startswith("Test"):
            continue
        shared = ast.get_docstring(kind) or ""
        for test in kind.body:
            own = (ast.get_docstring(test) or "") if isinstance(test, ast.FunctionDef) else ""
            if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_") or OWN in shared + own:
                continue
            yield Fact(
                service=service,
                area=area,
                about=_words(kind.name.removeprefix("Test")),
                text=test.name.removeprefix("test_").replace("_", " "),
                where=f"{module}.{kind.name}.{test.name}",
                pages=pages_in(own) or pages_in(shared),
            )


def _words(name: str) -> str:
    """`ShipAndInvoice` as `Ship and invoice`."""
    return re.sub(r"(?<=[a-z])([A-Z])", lambda match: f" {match.group(1).lower()}", name)


def conformance_page() -> str:
    found = facts()
    pages = list(dict.fromkeys(page for fact in found for page in fact.pages))
    numbers = {page: number for number, page in enumerate(pages, 1)}
    lines = [
        "# Conformance of the sandbox",
        "",
        f"{len(found)} facts of the real services that the [sandbox](sandbox.md) is held to, each by a test of its name in",
        "`tests/sandbox` and with the public page it is modelled on. Where the pages are silent, what is done is in the table",
        "of [Business Central](sandbox-business-central.md) and of [Dataverse](sandbox-dataverse.md). Made of the tests by `python -m tests.repo.conformance`; a test keeps it true.",
        "",
    ]
    for service, of_service in groupby(found, key=lambda fact: fact.service):
        lines += [f"## {service}", ""]
        for area, of_area in groupby(of_service, key=lambda fact: fact.area):
            lines += [f"### {area}", "", row(("About", "Fact", "Pages")), "|---|---|---|"]
            for fact in of_area:
                links = " ".join(f"[{numbers[page]}][{numbers[page]}]" for page in fact.pages)
                lines.append(row((fact.about, fact.text, links)))
            lines.append("")
    lines += ["## Pages", "", *(f"- [{page.partition('://')[2]}][{number}]" for page, number in numbers.items()), ""]
    lines += [f"[{number}]: {page}" for page, number in numbers.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / PAGE).write_text(conformance_page(), encoding="utf-8")
