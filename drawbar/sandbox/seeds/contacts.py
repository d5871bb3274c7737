"""Contacts and currencies of the demo data: who is the same in both systems, and who is of one of them only.

They have a generator of their own, so that what was there before them comes out as it did without them.
"""

from __future__ import annotations

from drawbar.sandbox.seeds.ground import Bed, Ground
from drawbar.sandbox.seeds.names import (
    CRM_CURRENCIES,
    EXCHANGE_RATES,
    FIRST_NAMES,
    JOBS,
    MORE_CURRENCIES,
    ODD_NAMES,
    OWNERS,
    PLACES,
    PROSPECTS,
    Place,
)
from drawbar.sandbox.store import Values

PERSONS_OF_CUSTOMERS = 92
PERSONS_OF_PROSPECTS = 18
PERSONS_ALONE = 10
MATCHING_CONTACTS = 45
MATCHING_WITHOUT_ACCOUNT = 8
NEW_CONTACTS = 18
NEW_ALONE = 8
NEW_UNDER_CONTACTS = 3


def plant_currencies_and_contacts(
    ground: Ground, customers: list[Values], matches: list[tuple[Values, str]], users: list[str]
) -> None:
    """`matches` are customers with the account that is the same company."""
    planter = _Planter(ground, users)
    planter.currencies()
    planter.contacts(customers, matches)


def currency(code: str, name: str, symbol: str) -> Values:
    """A currency of the ERP, to be made."""
    shown = {"amountDecimalPlaces": "2:2", "amountRoundingPrecision": 0.01}
    return {"code": code, "displayName": name, "symbol": symbol, **shown}


def exchange_rate(code: str, day: str, price: float) -> Values:
    """What one unit of a currency is in the company's own, from a day on."""
    units = {"exchangeRateAmount": 1, "relationalExchangeRateAmount": price}
    return {"currencyCode": code, "startingDate": day, **units}


class _Planter(Bed):
    def __init__(self, ground: Ground, users: list[str]) -> None:
        super().__init__(ground, "contacts")
        self._users = users
        self._odd = list(ODD_NAMES)
        self._taken: set[str] = set()

    # ------------------------------------------------------------ currencies

    def currencies(self) -> None:
        for code, name, symbol in MORE_CURRENCIES:
            self._in_erp("currencies", **currency(code, name, symbol))
        for code, day, price in EXCHANGE_RATES:
            self._in_erp("currencyExchangeRates", **exchange_rate(code, day, price))
        for code, name, symbol, rate in CRM_CURRENCIES:
            body = {
                "isocurrencycode": code,
                "currencyname": name,
                "currencysymbol": symbol,
                "currencyprecision": 2,
                "exchangerate": rate,
            }
            self._in_crm("transactioncurrencies", body)
        messages = self._ground.crm.store.table("sdkmessage").rows
        for message_id, stored in messages.items():
            if stored.values["name"].endswith("Multiple"):
                continue
            body = {
                "name": f"{stored.values['name']} of transactioncurrency",
                "primaryobjecttypecode": "transactioncurrency",
                "sdkmessageid@odata.bind": f"/sdkmessages({message_id})",
            }
            self._in_crm("sdkmessagefilters", body)

    # ------------------------------------------------------------ people

    def contacts(self, customers: list[Values], matches: list[tuple[Values, str]]) -> None:
        shared = self._persons_of_customers(customers, matches)
        for name in PROSPECTS:
            self._prospect(name)
        prospects = [row for row in self._companies() if row["displayName"] in PROSPECTS]
        for at in range(PERSONS_OF_PROSPECTS):
            self._person(prospects[at % len(prospects)], f"prospect{at % len(prospects) + 1:02d}")
        for _ in range(PERSONS_ALONE):
            self._person(None, "home")
        matched = [
            self._matching(at, person, account_id) for at, (person, account_id) in enumerate(shared[:MATCHING_CONTACTS])
        ]
        accounts = [account_id for _, account_id in matches]
        unmatched = self._accounts_of_no_customer(set(accounts))
        for at in range(NEW_CONTACTS):
            account_id = accounts[(at * 7) % len(accounts)] if at % 3 else unmatched[at]
            row_id = self._new(at, {"parentcustomerid_account@odata.bind": f"/accounts({account_id})"})
            if at % 9 == 8:
                entity = self._ground.crm.records.entity_of("contacts")
                self._ground.crm.records.update(
                    entity, row_id, {"statecode": 1, "statuscode": 2}, user=self._ground.user
                )
        for at in range(NEW_ALONE):
            self._new(NEW_CONTACTS + at, {})
        for at in range(NEW_UNDER_CONTACTS):
            parent = {"parentcustomerid_contact@odata.bind": f"/contacts({matched[at]})"}
            self._new(NEW_CONTACTS + NEW_ALONE + at, parent)

    def _companies(self) -> list[Values]:
        return [row for row in self._ground.erp.truth("contacts") if row["type"] == "Company"]

    def _accounts_of_no_customer(self, matched: set[str]) -> list[str]:
        rows = self._ground.crm.truth("accounts")
        return [
            row["accountid"]
            for row in rows
            if row["accountid"] not in matched and row["customertypecode"] == 3 and row["statecode"] == 0
        ]

    def _prospect(self, name: str) -> None:
        place = self._random.choice(PLACES[:20])
        self._in_erp(
            "contacts",
            type="Company",
            displayName=name,
            addressLine1=f"{self._random.randint(1, 90)} {place.streets[0]}",
            postalCode=place.code,
            city=place.city,
            phoneNumber=f"{place.phone} {self._random.randint(1000, 9999)}",
        )

    def _persons_of_customers(
        self, customers: list[Values], matches: list[tuple[Values, str]]
    ) -> list[tuple[Values, str]]:
        """Half of them at customers that have an account; returns those with it, the first of each first."""
        accounts = {customer["id"]: account_id for customer, account_id in matches}
        by_name = {row["displayName"]: row for row in self._companies()}
        with_account = [c for c, _ in matches if c["type"] == "Company"]
        others = [c for c in customers if c["id"] not in accounts and c["type"] == "Company"]
        half = PERSONS_OF_CUSTOMERS // 2
        chosen = self._random.sample(with_account, half) + self._random.sample(others, 30)
        chosen += [chosen[at * 3] for at in range(PERSONS_OF_CUSTOMERS - len(chosen))]
        shared: list[tuple[Values, str]] = []
        for customer in chosen:
            person = self._person(by_name[customer["displayName"]], customer["number"].lower())
            if customer["id"] in accounts:
                shared.append((person, accounts[customer["id"]]))
        return shared

    def _name(self, country: str) -> str:
        if self._odd and len(self._taken) % 4 == 1:
            name = self._odd.pop(0)
        else:
            first = self._random.choice(FIRST_NAMES[country])
            last = self._random.choice(OWNERS[country])
            name = f"{last}{first}" if country == "CN" else f"{first} {last}"
            while name in self._taken:
                first = f"{first} {self._random.choice('ABCDEFGHJKLMNOPRSTVW')}."
                name = f"{last}{first}" if country == "CN" else f"{first} {last}"
        self._taken.add(name)
        return name

    def _mail(self, name: str, domain: str) -> str:
        words = [word for word in name.lower().replace(".", "").replace("'", "").split() if word.isascii()]
        local = ".".join(words[:3]) if words and "," not in name else f"person{len(self._taken)}"
        return f"{local}@{domain}.example"

    def _person(self, company: Values | None, domain: str) -> Values:
        place = self._place_of(company)
        name = self._name(place.country)
        at = len(self._taken)
        values: Values = {
            "type": "Person",
            "displayName": name,
            "jobTitle": JOBS[at % len(JOBS)],
            "email": self._mail(name, domain) if at % 13 else "",
            "phoneNumber": f"{place.phone} {self._random.randint(1000, 9999)}" if at % 5 else "",
            "mobilePhoneNumber": f"{place.phone} {self._random.randint(1000, 9999)}" if at % 3 == 0 else "",
        }
        if company is not None:
            values["companyNumber"] = company["number"]
            if at % 4:
                address = ("addressLine1", "addressLine2", "postalCode", "city", "state", "country")
                values |= {field: company[field] for field in address}
        return self._in_erp("contacts", **values)

    def _place_of(self, company: Values | None) -> Place:
        if company is None:
            return self._random.choice(PLACES[:20])
        return next((place for place in PLACES if place.code == company["postalCode"]), PLACES[0])

    # ------------------------------------------------------------ the same people, in the CRM

    def _matching(self, at: int, person: Values, account_id: str) -> str:
        """The same person as two systems kept by hand come to differ; every ninth one has lost the company."""
        first, last = _parts(person["displayName"])
        body: Values = {
            "firstname": first.upper() if first and at % 10 == 7 else first,
            "lastname": last,
            "jobtitle": person["jobTitle"] if at % 4 else "Buyer",
            "emailaddress1": (person["email"], person["email"].upper())[at % 6 == 5] if at % 8 != 6 else "",
            "telephone1": person["phoneNumber"],
            "mobilephone": person["mobilePhoneNumber"] if at % 2 else "",
            "address1_line1": person["addressLine1"],
            "address1_line2": person["addressLine2"],
            "address1_postalcode": person["postalCode"],
            "address1_city": person["city"],
            "address1_stateorprovince": person["state"],
            "address1_country": person["country"],
            "ownerid@odata.bind": f"/systemusers({self._users[at % len(self._users)]})",
        }
        if at >= MATCHING_WITHOUT_ACCOUNT:
            body["parentcustomerid_account@odata.bind"] = f"/accounts({account_id})"
        return self._in_crm("contacts", body)

    def _new(self, at: int, parent: Values) -> str:
        place = PLACES[(at * 3) % len(PLACES)]
        first, last = _parts(self._name(place.country))
        body: Values = {
            "firstname": first,
            "middlename": ("J.", "Marie")[at % 2] if at % 6 == 2 else None,
            "lastname": last,
            "salutation": ("Dr.", "Ms.", None)[at % 3],
            "jobtitle": ("Director of Procurement and Vendor Relations", "Buyer", None)[at % 3],
            "emailaddress1": f"someone{at:02d}@newcontact.example" if at % 5 else None,
            "mobilephone": f"{place.phone} {self._random.randint(1000, 9999)}",
            "address1_postalcode": place.code,
            "address1_city": place.city,
            "address1_country": place.country,
            "ownerid@odata.bind": f"/systemusers({self._users[at % len(self._users)]})",
            **parent,
        }
        if at in (3, 12):
            body["bcbi_CompanyId@odata.bind"] = f"/bcbi_companies({self._ground.other_company_row})"
        return self._in_crm("contacts", body)


def _parts(name: str) -> tuple[str | None, str]:
    """As somebody would type one field into two: the last word is the last name."""
    first, _, last = name.rpartition(" ")
    return (first or None, last[:50])
