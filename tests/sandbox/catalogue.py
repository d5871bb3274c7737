"""Rows of Dataverse's sales tables as tests need them: each call makes new ones, with names of their own."""

from __future__ import annotations

import uuid
from typing import Any

from tests.sandbox.client import Client

PARENTS = {
    "quotes": "quoteid",
    "salesorders": "salesorderid",
    "invoices": "invoiceid",
    "opportunities": "opportunityid",
}


def key(address: str) -> str:
    return address[address.index("(") + 1 : -1]


def made(crm: Client, set_name: str, body: dict[str, Any]) -> str:
    """The path of a new row, as `accounts(id)`."""
    reply = crm.post(set_name, body)
    assert 204 == reply.status_code, reply.text
    return f"{set_name}({key(reply.headers['OData-EntityId'])})"


def a_name(what: str) -> str:
    return f"{what} {uuid.uuid4().hex[:8]}"


def a_unit_group(crm: Client, **more: Any) -> tuple[str, str]:
    """Paths of a unit group and its primary unit."""
    group = made(crm, "uomschedules", {"name": a_name("Group"), "baseuomname": "Piece", **more})
    unit = crm.rows(f"uoms?$filter=_uomscheduleid_value eq {key(group)}")[0]
    return group, f"uoms({unit['uomid']})"


def a_product(crm: Client, units: tuple[str, str] | None = None, *, active: bool = True, **more: Any) -> str:
    group, unit = units or a_unit_group(crm)
    body = {
        "name": a_name("Product"),
        "productnumber": uuid.uuid4().hex[:12],
        "defaultuomscheduleid@odata.bind": f"/{group}",
        "defaultuomid@odata.bind": f"/{unit}",
        "quantitydecimal": 2,
        **more,
    }
    product = made(crm, "products", body)
    if active:
        reply = crm.post(f"{product}/Microsoft.Dynamics.CRM.PublishProductHierarchy", {})
        assert 204 == reply.status_code, reply.text
    return product


def a_price_list(crm: Client, **more: Any) -> str:
    return made(crm, "pricelevels", {"name": a_name("List"), **more})


def a_price(crm: Client, price_list: str, product: str, unit: str, **more: Any) -> str:
    body = {
        "pricelevelid@odata.bind": f"/{price_list}",
        "productid@odata.bind": f"/{product}",
        "uomid@odata.bind": f"/{unit}",
        **({} if "pricingmethodcode" in more else {"amount": 10}),
        **more,
    }
    return made(crm, "productpricelevels", body)


class Shop:
    """A product with a price on a list, and a customer."""

    def __init__(self, crm: Client, *, amount: float = 10) -> None:
        self.crm = crm
        self.units = a_unit_group(crm)
        self.unit = self.units[1]
        self.product = a_product(crm, self.units)
        self.price_list = a_price_list(crm)
        self.price = a_price(crm, self.price_list, self.product, self.unit, amount=amount)
        self.account = made(crm, "accounts", {"name": a_name("Customer")})

    def document(self, set_name: str, **more: Any) -> str:
        body = {
            "name": a_name("Document"),
            "customerid_account@odata.bind": f"/{self.account}",
            "pricelevelid@odata.bind": f"/{self.price_list}",
            **more,
        }
        return made(self.crm, set_name, body)

    def line_body(self, document: str, **more: Any) -> dict[str, Any]:
        parent = PARENTS[document.partition("(")[0]]
        return {
            f"{parent}@odata.bind": f"/{document}",
            "productid@odata.bind": f"/{self.product}",
            "uomid@odata.bind": f"/{self.unit}",
            "quantity": 2,
            **more,
        }

    def line(self, document: str, **more: Any) -> str:
        return made(self.crm, lines_of(document), self.line_body(document, **more))

    def write_in(self, document: str, **more: Any) -> str:
        body = self.line_body(document, isproductoverridden=True, productdescription="Freight forwarding", **more)
        return made(
            self.crm, lines_of(document), {n: v for n, v in body.items() if not n.startswith(("productid", "uomid"))}
        )


def lines_of(document: str) -> str:
    set_name = document.partition("(")[0]
    return "opportunityproducts" if set_name == "opportunities" else f"{set_name[:-1]}details"
