"""Data that somebody brings: a folder of files named `erp.SET.csv`, `erp.SET.json`, `crm.SET.csv` or `crm.SET.json`.

Each row is written through the service, by its rules and in the service's words; an id that is given stays. What refers
to another record is read after it: sets in the order below, rows as they stand in their file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from drawbar.sandbox.odata import ApiError, QueryError
from drawbar.sandbox.seeds.ground import Ground
from drawbar.sandbox.store import Values

SUFFIXES = (".csv", ".json")
ORDER = (
    "erp.countriesRegions",
    "erp.unitsOfMeasure",
    "erp.itemCategories",
    "erp.currencies",
    "erp.currencyExchangeRates",
    "erp.paymentTerms",
    "erp.paymentMethods",
    "erp.shipmentMethods",
    "erp.shippingAgents",
    "erp.customerPriceGroups",
    "erp.salespeoplePurchasers",
    "erp.items",
    "erp.itemVariants",
    "erp.itemUnitsOfMeasure",
    "erp.resources",
    "erp.resourceUnitsOfMeasure",
    "erp.customers",
    "erp.priceLists",
    "erp.priceListLines",
    "erp.contacts",
    "erp.opportunities",
    "erp.salesQuotes",
    "erp.salesQuoteLines",
    "erp.salesOrders",
    "erp.salesOrderLines",
    "erp.salesInvoices",
    "erp.salesInvoiceLines",
    "crm.businessunits",
    "crm.transactioncurrencies",
    "crm.systemusers",
    "crm.teams",
    "crm.bcbi_companies",
    "crm.accounts",
    "crm.contacts",
)
_NUMBERS = frozenset(
    ("Decimal", "Int32", "Int64", "Integer", "BigInt", "Double", "Money", "Picklist", "State", "Status")
)


class FolderError(Exception):
    """A file that cannot be taken; the text says which, where and why."""


def plant_folder(ground: Ground, folder: Path) -> None:
    """Raises FolderError; then nothing of the folder is there."""
    if not folder.is_dir():
        raise FolderError(f"{folder}: there is no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if not files:
        raise FolderError(f"{folder}: no file is called erp.SET.csv, erp.SET.json, crm.SET.csv or crm.SET.json")
    order = {stem: at for at, stem in enumerate(ORDER)}
    unknown = [path.name for path in files if path.stem not in order]
    if unknown:
        raise FolderError(f"{folder / unknown[0]}: this set cannot be filled; those that can: {', '.join(ORDER)}")
    for path in sorted(files, key=lambda path: order[path.stem]):
        write = _writer(ground, path.stem)
        for place, row in _rows(path):
            try:
                write(row)
            except (ApiError, QueryError, ValueError) as fault:  # noqa: PERF203 - each row has its place
                raise FolderError(f"{path}:{place}: {fault}") from fault


def _writer(ground: Ground, stem: str) -> Callable[[Values], object]:
    """Writes rows of the set that a file is named after. Raises ApiError, QueryError, ValueError for one not taken."""
    system, _, set_name = stem.partition(".")
    if system == "erp":
        columns = ground.erp.records.sets[set_name].columns
        kinds = {name: column.type for name, column in columns.items()}
        return lambda row: ground.in_erp(set_name, **_typed(row, kinds))
    entity = ground.crm.records.entity_of(set_name)
    types = {name: attribute.type for name, attribute in entity.attributes.items()}

    def write(row: Values) -> None:
        body = _typed(row, types)
        ground.crm.records.insert(entity, body, user=ground.user, row_id=body.pop(entity.id, None))

    return write


def _rows(path: Path) -> Iterator[tuple[int, Values]]:
    """Each with its line in a CSV file, or its number in a JSON list. A cell that is blank is not said."""
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                for row in reader:
                    if None in row or None in row.values():
                        raise FolderError(f"{path}:{reader.line_num}: another number of cells than the first line has")
                    yield reader.line_num, {name: value for name, value in row.items() if value != ""}
            return
        rows = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as fault:
        raise FolderError(f"{path}: {fault}") from fault
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise FolderError(f"{path}: a list of objects is expected")
    yield from ((number, dict(row)) for number, row in enumerate(rows, 1))


def _typed(row: Values, kinds: Mapping[str, str]) -> Values:
    """The cells of a CSV file as the types of their columns; what is typed already stays."""
    return {name: _value(kinds.get(name, ""), value) for name, value in row.items()}


def _value(kind: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if kind in _NUMBERS:
        number = float(value)
        return int(number) if number == int(number) else number
    if kind == "Boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    return value
