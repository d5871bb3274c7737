"""Business Central's companies: a list that is read-only for the API, and what a new one begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drawbar.sandbox.erp.model import (
    EMPTY_GUID,
    STANDARD,
    Column,
    EntitySet,
    ErpError,
    ErpSchema,
    parse_time,
    refusal,
    shown_time,
)
from drawbar.sandbox.erp.reading import must_be_known, whole
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.odata import Order, QueryError, compile_filter, parse_filter, parse_order, sort_rows, split_list
from drawbar.sandbox.store import Values

MOST = 300  # companies of one environment
_OPTIONS = frozenset(("$filter", "$select", "$orderby", "$top", "$skip", "$count"))
_TIMES = ("systemCreatedAt", "systemModifiedAt")
_SET_UP = (  # what a company needs before it can trade
    "countriesRegions",
    "paymentTerms",
    "paymentMethods",
    "shipmentMethods",
    "unitsOfMeasure",
    "itemCategories",
    "locations",
    "taxAreas",
    "taxGroups",
    "generalProductPostingGroups",
    "inventoryPostingGroups",
    "accounts",
    "dimensions",
    "dimensionValues",
    "customerPaymentJournals",
    "journals",
    "customerReturnReasons",
)
_COPIED = ("dimensionId", "balancingAccountId")  # properties that name a row of the set-up
_MONEY = ("currencies", "currencyExchangeRates")  # rates are for one of the local currency

COMPANIES = EntitySet(
    name="companies",
    route=STANDARD,
    entity="company",
    source="Company",
    key="name",
    key_caption="Name",
    id="id",
    order=("name",),
    verbs=frozenset(("GET",)),
    columns={
        column.name: column
        for column in (
            Column(name="id", type="Guid", access="key"),
            Column(name="systemVersion", type="String", access="read"),
            Column(name="timestamp", type="Int64", access="read"),
            Column(name="name", type="String", max=30, access="read"),
            Column(name="displayName", type="String", max=250, access="read"),
            Column(name="businessProfileId", type="String", access="read"),
            Column(name="systemCreatedAt", type="DateTimeOffset", access="read"),
            Column(name="systemCreatedBy", type="Guid", access="read"),
            Column(name="systemModifiedAt", type="DateTimeOffset", access="read"),
            Column(name="systemModifiedBy", type="Guid", access="read"),
        )
    },
    rights=(),
    navigations={},
    collections={},
)


def listed(companies: list[Values], options: Mapping[str, str]) -> tuple[list[Values], int]:
    """What a query asks for of the companies, and how many there are before they are cut to pages."""
    must_be_known(options, _OPTIONS)
    schema = ErpSchema(COMPANIES, "")
    rows = [{**company, **{name: parse_time(company[name]) for name in _TIMES}} for company in companies]
    if "$filter" in options:
        predicate = compile_filter(parse_filter(options["$filter"]), schema)
        rows = [row for row in rows if predicate(row)]
    if "$orderby" in options:
        by_name = Order(schema.property(("name",))[0], descending=False)
        sort_rows(rows, [*parse_order(options["$orderby"], schema), by_name], row_of=lambda row: row)
    total = len(rows)
    if "$skip" in options:
        rows = rows[whole(options["$skip"], "$skip") :]
    if "$top" in options:
        rows = rows[: whole(options["$top"], "$top")]
    names = split_list(options.get("$select", "")) or list(COMPANIES.columns)
    for name in names:
        if name not in COMPANIES.columns:
            raise QueryError(f"Could not find a property named '{name}' on type 'Microsoft.NAV.company'.")
    return [{name: shown_time(row[name]) if name in _TIMES else row[name] for name in names} for row in rows], total


def add_company(records: ErpRecords, *, name: str, display_name: str, currency: str | None, app: str) -> Values:
    """A company with the set-up of the first one, and no business, within a transaction that has started."""
    companies = records.companies()
    first = companies[0]
    if not name.strip() or len(name) > (COMPANIES.columns["name"].max or 0):
        raise ErpError(400, "Application_StringExceededLength", "The name of a company has 1 to 30 characters.")
    if any(company["name"].casefold() == name.casefold() for company in companies):
        raise ErpError(400, "Internal_EntityWithSameKeyExists", f"The Company already exists. Name='{name}'")
    if len(companies) >= MOST:
        raise refusal(f"An environment has no more than {MOST} companies.")
    store, now = records.store, shown_time(records.now)
    company: Values = {
        **first,
        "id": store.new_id(),
        "timestamp": store.version + 1,
        "name": name,
        "displayName": display_name,
        "systemCreatedAt": now,
        "systemModifiedAt": now,
    }
    company_id, local = company["id"], records.local_currency(first["id"])
    own = (currency or local).upper()
    store.set_fact("companies", [*companies, company])
    store.set_fact(f"local_currency/{company_id}", own)
    store.set_fact(f"post_codes/{company_id}", store.fact(f"post_codes/{first['id']}", []))
    store.set_fact(f"global_dimensions/{company_id}", store.fact(f"global_dimensions/{first['id']}", []))
    copies: dict[str, str] = {}  # by the id of what was copied
    for set_name in (*_SET_UP, *(_MONEY if own == local else ())):
        for stored in list(records.rows(first["id"], set_name).values()):
            there = {name: copies.get(stored.values.get(name, ""), EMPTY_GUID) for name in _COPIED}
            row = {**stored.values, **there, "netChange": 0}
            copied = {name: row[name] for name in stored.values}
            copies[stored.values["id"]] = _copy(records, company_id, set_name, copied, app)
    information = {
        **records.blank_row("companyInformation"),
        "displayName": display_name,
        "currencyCode": own,
        "currentFiscalYearStartDate": f"{records.now[:4]}-01-01",
    }
    _copy(records, company_id, "companyInformation", information, app)
    return company


def _copy(records: ErpRecords, company_id: str, set_name: str, values: Mapping[str, Any], app: str) -> str:
    row = {**values, "id": records.store.new_id(), "lastModifiedDateTime": records.now}
    records.store.put(f"{company_id}/{set_name}", row["id"], row, note=app)
    return str(row["id"])
