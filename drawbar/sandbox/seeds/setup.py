"""What every company of the ERP is set up with besides what trade needs: accounts, dimensions, locations, taxes.

It has a generator of its own, so that all else that a seed makes keeps its ids.
"""

from __future__ import annotations

import random

from drawbar.sandbox.erp.business_central import BusinessCentral
from drawbar.sandbox.erp.model import EMPTY_GUID
from drawbar.sandbox.seeds.ground import Guids

_ACCOUNTS = (  # number, name, category, subcategory, type, direct posting
    ("10000", "BALANCE SHEET", "Assets", "", "Heading", False),
    ("10100", "Checking account", "Assets", "Cash", "Posting", True),
    ("10200", "Saving account", "Assets", "Cash", "Posting", True),
    ("10400", "Accounts receivable", "Assets", "Accounts Receivable", "Posting", False),
    ("10700", "Inventory", "Assets", "Inventory", "Posting", False),
    ("20100", "Accounts payable", "Liabilities", "Current Liabilities", "Posting", False),
    ("22300", "Sales tax payable", "Liabilities", "Current Liabilities", "Posting", False),
    ("30100", "Capital stock", "Equity", "Common Stock", "Posting", True),
    ("40000", "INCOME STATEMENT", "Income", "", "Heading", False),
    ("40100", "Sales", "Income", "Income, Product Sales", "Posting", True),
    ("40200", "Sales, services", "Income", "Income, Services", "Posting", True),
    ("40250", "Freight charged", "Income", "Income, Services", "Posting", True),
    ("50100", "Cost of goods sold", "Cost_x0020_of_x0020_Goods_x0020_Sold", "Materials", "Posting", True),
    ("52450", "Inventory adjustment", "Cost_x0020_of_x0020_Goods_x0020_Sold", "Materials", "Posting", True),
    ("61100", "Bank charges", "Expense", "Fees Expense", "Posting", True),
)
_DIMENSIONS = (
    ("DEPARTMENT", "Department", (("ADM", "Administration"), ("SALES", "Sales"), ("SERVICE", "Service"))),
    (
        "CUSTOMERGROUP",
        "Customer group",
        (("LARGE", "Large"), ("MEDIUM", "Medium"), ("SMALL", "Small")),
    ),
    ("AREA", "Area", (("AMERICA", "America"), ("EUROPE", "Europe"), ("ASIA", "Asia"))),
)
_GLOBAL_DIMENSIONS = ["DEPARTMENT", "CUSTOMERGROUP"]  # those of `shortcutDimension1Code` and `…2Code`
_LOCATIONS = (
    ("MAIN", "Main warehouse", "12 Atlantic Ave", "Boston", "MA", "US", "02110"),
    ("EAST", "East pier", "3 Pier Road", "Providence", "RI", "US", "02903"),
)
_TAX_AREAS = (("BOSTON, MA", "Boston, Massachusetts"), ("PROVIDENCE, RI", "Providence, Rhode Island"))
_TAX_GROUPS = (("TAXABLE", "Taxable"), ("NONTAXABLE", "Not taxable"), ("FURNITURE", "Furniture"))
_PRODUCT_GROUPS = (("RETAIL", "Goods for resale"), ("SERVICES", "Services, resources and the like"))
_RETURN_REASONS = (("DEFECT", "Defective"), ("WRONG", "Wrong item sent"))
_INVENTORY_GROUPS = (("RESALE", "Goods for resale"), ("RAW MAT", "Raw materials"))


def plant_setup(erp: BusinessCentral, company: str) -> None:
    """Sets that have rows already, or had, are left as they are."""
    guids = Guids(random.Random(f"setup {company}"))  # noqa: S311 - reproducible, not secret
    erp.records.begin()
    filled: dict[str, bool] = {}

    def add(set_name: str, **values: object) -> str:
        body = {"id": guids.next(), **values}
        table = erp.store.table(f"{company}/{set_name}")
        if filled.setdefault(set_name, bool(table.rows or table.deleted)):
            return str(body["id"])
        row = erp.records.insert(company, set_name, body, app="setup", by_api=False)
        return str(row.values["id"])

    for number, name, category, sub_category, kind, direct in _ACCOUNTS:
        add(
            "accounts",
            number=number,
            displayName=name,
            category=category,
            subCategory=sub_category,
            accountType=kind,
            directPosting=direct,
        )
    for code, name, values in _DIMENSIONS:
        dimension = add("dimensions", code=code, displayName=name)
        for value, value_name in values:
            add("dimensionValues", dimensionId=dimension, code=value, displayName=value_name)
    erp.store.set_fact(f"global_dimensions/{company}", _GLOBAL_DIMENSIONS)
    for code, name, line, city, state, country, post_code in _LOCATIONS:
        add(
            "locations",
            code=code,
            displayName=name,
            country=country,
            postalCode=post_code,
            city=city,
            state=state,
            addressLine1=line,
        )
    for code, name in _TAX_AREAS:
        add("taxAreas", code=code, displayName=name)
    for code, name in _TAX_GROUPS:
        add("taxGroups", code=code, displayName=name)
    for code, name in _PRODUCT_GROUPS:
        add("generalProductPostingGroups", code=code, description=name)
    checking = erp.store.table(f"{company}/accounts").index("number").get("10100", EMPTY_GUID)
    add("customerPaymentJournals", code="GENERAL", displayName="Customer payments", balancingAccountId=checking)
    add("journals", code="DEFAULT", displayName="Default journal")
    for code, name in _RETURN_REASONS:
        add("customerReturnReasons", code=code, description=name)
    for code, name in _INVENTORY_GROUPS:
        add("inventoryPostingGroups", code=code, description=name)
