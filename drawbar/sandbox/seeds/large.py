"""A company of any size: thousands of customers with their contacts, items, quotes, orders and invoices, and a CRM that
knows half of them.

Deterministic. Few customers buy most, most names occur once, dates spread over two years. Written through the services,
like the demo data, and on its own generator.
"""

from __future__ import annotations

import datetime as dt

from drawbar.sandbox.erp.billing import post_invoice
from drawbar.sandbox.seeds.ground import Bed, Ground
from drawbar.sandbox.seeds.names import FIRST_NAMES, FORMS, JOBS, OWNERS, PLACES, SALESPEOPLE, TRADES, WITH_USER, Place
from drawbar.sandbox.seeds.prices import plant_prices
from drawbar.sandbox.store import Values

# For each 1,000 customers.
MATCHING_ACCOUNTS = 500
NEW_ACCOUNTS = 500
PERSONS = 600
NEW_CONTACTS = 100
ITEMS = 60
QUOTES = 40
ORDERS = 120
INVOICES = 300
DAYS = 730
_GOODS = ("Hinge", "Cleat", "Bracket", "Lantern", "Wall light", "Oak board", "Birch ply", "Dowel", "Winch", "Pulley")
_MAKES = ("small", "large", "brass", "galvanised", "Größe L", "n° 7", "weiß lackiert", "marine grade")
_STOCK = 1_000_000  # of each item: enough for whatever is sold


def plant_large(ground: Ground, users: list[str], *, scale: int) -> None:
    """`scale` thousand customers. `users`: who owns the accounts."""
    _Planter(ground, users, scale).plant()


class _Planter(Bed):
    def __init__(self, ground: Ground, users: list[str], scale: int) -> None:
        super().__init__(ground, f"large {scale}")
        self._users = users
        self._scale = scale
        self._taken: dict[str, int] = {}
        self._today = dt.date.fromisoformat(ground.erp.records.now[:10])

    def plant(self) -> None:
        customers = [self._customer(number) for number in range(1000 * self._scale)]
        self._ground.erp.store.set_fact(f"series/{self._ground.company_id}/customer", f"C{len(customers) * 10:07d}")
        accounts = self._accounts(customers)
        self._persons(customers, accounts)
        self._in_erp("unitsOfMeasure", code="PCS", displayName="Piece", internationalStandardCode="EA")
        items = [self._item(number) for number in range(ITEMS * self._scale)]
        self._documents(customers, items)
        plant_prices(self._ground, customers, items, scale=self._scale)

    # ------------------------------------------------------------ names and places

    def _name(self, place: Place) -> str:
        """Once each: what is taken gets a number, as in a trade register."""
        parts = [self._random.choice(source[place.country]) for source in (OWNERS, TRADES, FORMS)]
        name = "".join(parts) if place.country == "CN" else " ".join(parts)
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else f"{name} {count}"

    def _address(self, place: Place) -> Values:
        return {
            "addressLine1": f"{self._random.randint(1, 400)} {self._random.choice(place.streets)}",
            "addressLine2": self._random.choice(("", "", "", "Unit 4", "2nd floor", "Building C")),
            "postalCode": place.code,
            "city": place.city,
            "state": place.county,
            "country": place.country,
        }

    def _phone(self, place: Place) -> str:
        return f"{place.phone} {self._random.randint(1000, 9999)}"

    def _day(self) -> str:
        """More of the last months than of long ago."""
        return (self._today - dt.timedelta(days=int(DAYS * self._random.random() ** 2))).isoformat()

    # ------------------------------------------------------------ records

    def _customer(self, number: int) -> Values:
        place = self._random.choice(PLACES)
        sellers = SALESPEOPLE if number % 50 == 9 else SALESPEOPLE[:WITH_USER]  # some sell without a user in the CRM
        domain = f"customer{number + 1:06d}.example"
        return self._in_erp(
            "customers",
            number=f"C{(number + 1) * 10:07d}",
            displayName=self._name(place),
            type="Person" if number % 40 == 17 else "Company",
            **self._address(place),
            phoneNumber=self._phone(place) if number % 19 else "",
            email=f"{self._random.choice(('office', 'orders', 'info'))}@{domain}" if number % 11 else "",
            website=f"https://www.{domain}" if number % 3 else "",
            salespersonCode="" if number % 25 == 3 else sellers[number % len(sellers)][0],
            creditLimit=self._random.choice((0, 0, 5000, 10000, 25000, 75000.5)),
            taxLiable=place.country == "US",
            paymentTermsId=self._ground.terms[self._random.choice(("NET 30", "NET 30", "2% 10", "NET 45", "NET 60"))],
            shipmentMethodId=self._ground.methods[self._random.choice(("FOB", "NO CHARGE"))],
            currencyCode="EUR" if number % 37 == 9 else "",
            blocked=("Ship", "All")[number % 2] if number % 50 == 31 else "_x0020_",
        )

    def _accounts(self, customers: list[Values]) -> dict[str, str]:
        """Half of them are customers. Returns those, by the customer's id."""
        open_ones = [customer for customer in customers if customer["blocked"] == "_x0020_"]
        known = self._random.sample(open_ones, MATCHING_ACCOUNTS * self._scale)
        found = {customer["id"]: self._account(at, self._as_known(customer)) for at, customer in enumerate(known)}
        for at in range(NEW_ACCOUNTS * self._scale):
            place = self._random.choice(PLACES)
            address = self._address(place)
            body = {
                "name": self._name(place),
                "address1_line1": address["addressLine1"],
                "address1_postalcode": place.code,
                "address1_city": place.city,
                "address1_country": place.country,
                "telephone1": self._phone(place),
                "emailaddress1": f"hello@account{at + 1:06d}.example" if at % 7 else "",
                "paymenttermscode": (1, 2, 3, 4, None)[at % 5],
            }
            self._account(at, body)
        return found

    def _as_known(self, customer: Values) -> Values:
        """The same company as the CRM has it: mostly in line, here and there behind the times."""
        is_old = self._random.random() < 0.2
        return {
            "name": customer["displayName"].upper() if self._random.random() < 0.1 else customer["displayName"],
            "address1_line1": "1 Former Street" if is_old else customer["addressLine1"],
            "address1_postalcode": customer["postalCode"],
            "address1_city": customer["city"],
            "address1_country": customer["country"],
            "telephone1": "" if is_old else customer["phoneNumber"],
            "emailaddress1": customer["email"],
            "creditlimit": customer["creditLimit"],
        }

    def _account(self, at: int, body: Values) -> str:
        user = self._users[at % len(self._users)]
        owner = f"/systemusers({user})" if at % 5 else f"/teams({self._ground.owning_team})"
        return self._in_crm("accounts", {"customertypecode": 3, **body, "ownerid@odata.bind": owner})

    def _persons(self, customers: list[Values], accounts: dict[str, str]) -> None:
        companies = {
            stored.values["displayName"]: stored.values["number"]
            for stored in self._ground.erp.records.rows(self._ground.company_id, "contacts").values()
            if stored.values["type"] == "Company"
        }
        firms = [customer for customer in customers if customer["type"] == "Company"]
        for at in range(PERSONS * self._scale):
            customer = firms[int(len(firms) * self._random.random() ** 2)]
            country = customer["country"] if customer["country"] in FIRST_NAMES else "US"
            first, last = self._random.choice(FIRST_NAMES[country]), self._random.choice(OWNERS[country])
            mail = f"person{at + 1:06d}@{customer['number'].lower()}.example"
            self._in_erp(
                "contacts",
                type="Person",
                displayName=f"{first} {last}",
                companyNumber=companies[customer["displayName"]],
                jobTitle=JOBS[at % len(JOBS)],
                email=mail if at % 13 else "",
                phoneNumber=customer["phoneNumber"] if at % 5 else "",
            )
            if customer["id"] in accounts and at % 2:
                self._contact(first, last, mail, accounts[customer["id"]], at)
        parents = list(accounts.values())
        for at in range(NEW_CONTACTS * self._scale):
            first, last = self._random.choice(FIRST_NAMES["US"]), self._random.choice(OWNERS["US"])
            self._contact(first, last, f"new{at + 1:06d}@contact.example", self._random.choice(parents), at)

    def _contact(self, first: str, last: str, mail: str, account: str, at: int) -> None:
        body = {
            "firstname": first,
            "lastname": last,
            "emailaddress1": mail,
            "parentcustomerid_account@odata.bind": f"/accounts({account})",
            "ownerid@odata.bind": f"/systemusers({self._users[at % len(self._users)]})",
        }
        self._in_crm("contacts", body)

    def _item(self, number: int) -> Values:
        item = self._in_erp(
            "items",
            displayName=f"{_GOODS[number % len(_GOODS)]}, {self._random.choice(_MAKES)} {number + 1}",
            type="Inventory",
            baseUnitOfMeasureCode="PCS",
            unitPrice=round(self._random.lognormvariate(3, 1.2), 2),
            unitCost=round(self._random.lognormvariate(2.5, 1), 2),
        )
        stocked = {"set": "items", "id": item["id"], "values": {"inventory": _STOCK}}
        self._ground.erp.edit(stocked, app="setup")
        return item

    def _documents(self, customers: list[Values], items: list[Values]) -> None:
        """A tenth of the customers has nearly half of the business."""
        buyers = [customer for customer in customers if customer["blocked"] == "_x0020_"]
        self._random.shuffle(buyers)
        for set_name, day, count in (
            ("salesQuotes", "documentDate", QUOTES),
            ("salesOrders", "orderDate", ORDERS),
            ("salesInvoices", "invoiceDate", INVOICES),
        ):
            for at in range(count * self._scale):
                buyer = buyers[int(len(buyers) * self._random.random() ** 3)]
                lines = [
                    {"itemId": self._random.choice(items)["id"], "quantity": self._random.choice((1, 1, 2, 4, 10, 25))}
                    for _ in range(self._random.choice((1, 1, 1, 2, 3, 6)))
                ]
                dated = {day: self._day(), f"{set_name[:-1]}Lines": lines}
                made = self._in_erp(set_name, customerId=buyer["id"], **dated)
                if set_name == "salesInvoices" and at % 10:
                    post_invoice(self._ground.erp.records, self._ground.company_id, made["id"], "setup")
