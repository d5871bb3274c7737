"""Dataverse's actions and functions as data: what they are bound to, what they take, and what they answer with. Pure.

What they do is in `actions` and `functions`. Sources: the actions' pages below
https://learn.microsoft.com/previous-versions/dynamicscrm-2016/developers-guide/ and
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/functions
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from drawbar.sandbox.crm.model import CrmError
from drawbar.sandbox.crm.periods import COUNTED, DATED, PERIODS

WON, CLOSED = 2, 3  # states of a quote


@dataclass(frozen=True, slots=True)
class Closing:
    table: str
    activity: str  # the parameter that tells of the closing
    source: frozenset[int]  # the states it starts from
    state: int  # the state it leads to


@dataclass(frozen=True, slots=True)
class Conversion:
    source: str
    target: str
    id: str  # the parameter that names the source
    more: Mapping[str, str] = field(default_factory=dict)  # other parameters with their types


CLOSINGS: Mapping[str, Closing] = {
    "WinOpportunity": Closing("opportunity", "OpportunityClose", frozenset((0,)), 1),
    "LoseOpportunity": Closing("opportunity", "OpportunityClose", frozenset((0,)), 2),
    "WinQuote": Closing("quote", "QuoteClose", frozenset((1,)), WON),
    "CloseQuote": Closing("quote", "QuoteClose", frozenset((1,)), CLOSED),
    "FulfillSalesOrder": Closing("salesorder", "OrderClose", frozenset((0, 1)), 3),
    "CancelSalesOrder": Closing("salesorder", "OrderClose", frozenset((0, 1)), 2),
}
_OF_OPPORTUNITY = {"ProcessInstanceId": "mscrm.crmbaseentity"}
CONVERSIONS: Mapping[str, Conversion] = {
    "GenerateQuoteFromOpportunity": Conversion("opportunity", "quote", "OpportunityId", _OF_OPPORTUNITY),
    "GenerateSalesOrderFromOpportunity": Conversion("opportunity", "salesorder", "OpportunityId", _OF_OPPORTUNITY),
    "GenerateInvoiceFromOpportunity": Conversion("opportunity", "invoice", "OpportunityId", _OF_OPPORTUNITY),
    "ConvertQuoteToSalesOrder": Conversion(
        "quote",
        "salesorder",
        "QuoteId",
        {
            "QuoteCloseDate": "Edm.DateTimeOffset",
            "QuoteCloseStatus": "Edm.Int32",
            "QuoteCloseSubject": "Edm.String",
            "QuoteCloseDescription": "Edm.String",
            "ProcessInstanceId": "mscrm.crmbaseentity",
        },
    ),
    "ReviseQuote": Conversion("quote", "quote", "QuoteId"),
    "ConvertSalesOrderToInvoice": Conversion(
        "salesorder", "invoice", "SalesOrderId", {"ProcessInstanceId": "mscrm.crmbaseentity"}
    ),
}
LOCKS: Mapping[str, tuple[str, bool]] = {
    "LockSalesOrderPricing": ("salesorder", True),
    "UnlockSalesOrderPricing": ("salesorder", False),
    "LockInvoicePricing": ("invoice", True),
    "UnlockInvoicePricing": ("invoice", False),
}
ID_OF = {"salesorder": "SalesOrderId", "invoice": "InvoiceId"}
UNBOUND = frozenset((*CLOSINGS, *CONVERSIONS, *LOCKS, "CalculatePrice"))
BOUND = {"PublishProductHierarchy": "product", **{name: table for name, (table, _) in LOCKS.items()}}
BULK = ("CreateMultiple", "UpdateMultiple", "UpsertMultiple")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """As `$metadata` describes it; types are of the namespace `mscrm` or Edm's own."""

    name: str
    is_function: bool = False
    bound_to: str | None = None  # the type of the first parameter
    parameters: Mapping[str, str]  # name -> type
    optional: Collection[str] = ()
    returns: str | None = None


def actions_of(bulk_tables: Collection[str]) -> list[Operation]:
    """Those of one kind of table, for each that takes them, and all others."""
    found = [
        Operation(name=name, parameters={closing.activity: f"mscrm.{closing.activity.lower()}", "Status": "Edm.Int32"})
        for name, closing in CLOSINGS.items()
    ]
    found += [
        Operation(
            name=name,
            parameters={one.id: "Edm.Guid", "ColumnSet": "mscrm.ColumnSet", **one.more},
            optional={"ColumnSet", *one.more},
            returns=f"mscrm.{one.target}",
        )
        for name, one in CONVERSIONS.items()
    ]
    found += [Operation(name=name, parameters={ID_OF[table]: "Edm.Guid"}) for name, (table, _) in LOCKS.items()]
    found.append(Operation(name="CalculatePrice", parameters={"Target": "mscrm.crmbaseentity"}))
    found += [Operation(name=name, bound_to=f"mscrm.{table}", parameters={}) for name, table in BOUND.items()]
    for message in BULK:
        returns = "mscrm.CreateMultipleResponse" if message == "CreateMultiple" else None
        for table in bulk_tables:
            rows = f"Collection(mscrm.{table})"
            found.append(Operation(name=message, bound_to=rows, parameters={"Targets": rows}, returns=returns))
    return found


def functions() -> list[Operation]:
    """Those that answer by themselves, and those that stand in a filter."""
    name, value, values = "PropertyName", "PropertyValue", "PropertyValues"
    found = [
        Operation(name="WhoAmI", is_function=True, parameters={}, returns="mscrm.WhoAmIResponse"),
        Operation(name="RetrieveVersion", is_function=True, parameters={}, returns="mscrm.RetrieveVersionResponse"),
        Operation(
            name="RetrieveTotalRecordCount",
            is_function=True,
            parameters={"EntityNames": "Collection(Edm.String)"},
            returns="mscrm.RetrieveTotalRecordCountResponse",
        ),
    ]
    about_caller = ("EqualUserId", "NotEqualUserId", "EqualBusinessId", "NotEqualBusinessId")
    takes: dict[str, dict[str, str]] = {key: {} for key in (*PERIODS, *about_caller)}
    takes |= {key: {value: "Edm.Int64"} for key in COUNTED}
    takes |= {key: {value: "Edm.String"} for key in DATED}
    takes |= {key: {values: "Collection(Edm.String)"} for key in ("In", "NotIn", "Between", "NotBetween")}
    return found + [
        Operation(name=key, is_function=True, parameters={name: "Edm.String", **more}, returns="Edm.Boolean")
        for key, more in sorted(takes.items())
    ]


_PARAMETERS = {one.name: frozenset(one.parameters) for one in actions_of(()) if not one.bound_to}


def check_parameters(name: str, body: Mapping[str, object]) -> None:
    """Raises CrmError for a member of the body that is no parameter of the action."""
    for given in body:
        if given not in _PARAMETERS[name] and "@" not in given:
            raise CrmError(
                400,
                "0x80048d19",
                f"The parameter '{given}' in the request payload is not a valid parameter for the operation '{name}'.",
            )
