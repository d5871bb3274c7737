"""What a new sandbox holds. `empty` is a company set up but without business; `demo` is one that has traded; `large` is
one of any size. On top of it goes what a folder brings.

All follow from one seed: ids, names and values come out the same every time. Records are written through the
services, so the demo data keeps every rule the services enforce.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from drawbar.sandbox.crm.dataverse import Dataverse
from drawbar.sandbox.crm.organization import make_organization
from drawbar.sandbox.erp.business_central import BusinessCentral
from drawbar.sandbox.seeds.contacts import currency, exchange_rate, plant_currencies_and_contacts
from drawbar.sandbox.seeds.folder import plant_folder
from drawbar.sandbox.seeds.ground import Guids
from drawbar.sandbox.seeds.items import plant_items
from drawbar.sandbox.seeds.large import plant_large
from drawbar.sandbox.seeds.messages import plant_messages
from drawbar.sandbox.seeds.names import (
    COUNTRIES,
    EXCHANGE_RATES,
    FORMS,
    NEWCOMERS,
    OWNERS,
    PLACES,
    SALESPEOPLE,
    TRADES,
    WITH_USER,
    Place,
)
from drawbar.sandbox.seeds.setup import plant_setup
from drawbar.sandbox.store import Values

COMPANY = "Harbor & Vale Trading"
ORGANIZATION = "Harbor & Vale"
OTHER_COMPANY = "Northgate Distribution"
CUSTOMERS = 200
BLOCKED = 8
WITHOUT_SALESPERSON = 12
WITH_UNCOUPLED_SALESPERSON = 16
MATCHING_ACCOUNTS = 80
NEW_ACCOUNTS = 49
OTHER_ACCOUNTS = 20
TWIN_NAME = "Ashworth Provisions Ltd"  # of two customers, and of one account
TWINS = (61, 147)

_BY = "00000000-0000-4000-8000-000000000001"  # who wrote the seed in the CRM: the SYSTEM user


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """Ids that are known before anything is stored."""

    tenant_id: str
    company_id: str
    other_company_id: str
    organization_id: str
    business_unit_id: str
    client_ids: dict[str, str]

    @classmethod
    def from_seed(cls, seed: int) -> Identities:
        guids = Guids(random.Random(f"identities {seed}"))  # noqa: S311 - to be guessed, not kept
        return cls(
            tenant_id=guids.next(),
            company_id=guids.next(),
            other_company_id=guids.next(),
            organization_id=guids.next(),
            business_unit_id=guids.next(),
            client_ids={app: guids.next() for app in ("erp", "erp_other", "crm", "crm_other")},
        )


Kind = Literal["demo", "empty", "large"]


def plant(
    erp: BusinessCentral,
    crm: Dataverse,
    identities: Identities,
    kind: Kind,
    *,
    scale: int = 1,
    folder: Path | None = None,
) -> None:
    """Fill two empty stores. Raises FolderError for a file that cannot be taken; then there is nothing."""
    generator = random.Random(f"data {identities.tenant_id}")  # noqa: S311 - reproducible, not secret
    planter = Planter(erp, crm, identities, generator)
    with erp.store.transaction(), crm.store.transaction():
        planter.set_up()
        if kind == "demo":
            planter.trade()
        else:
            planter.rates()
        if kind == "large":
            plant_large(planter, planter.people(), scale=scale)
        if folder is not None:
            plant_folder(planter, folder)
        make_organization(crm.records, name=ORGANIZATION, user=planter.user)
        plant_messages(planter)


def complete(erp: BusinessCentral, crm: Dataverse, identities: Identities) -> None:
    """What every company and organization has, and the build that made these rows did not know yet.

    What somebody has deleted does not come back.
    """
    generator = random.Random(f"complete {identities.tenant_id}")  # noqa: S311 - reproducible, not secret
    planter = Planter(erp, crm, identities, generator)
    with erp.store.transaction(), crm.store.transaction():
        plant_setup(erp, erp.records.companies()[0]["id"])
        if not crm.store.table("organization").rows:
            make_organization(crm.records, name=ORGANIZATION, user=planter.user)
        if not crm.store.table("sdkmessagefilter").deleted:
            plant_messages(planter, word=f"messages {crm.store.version}")


def complete_environment(erp: BusinessCentral) -> None:
    """As `complete`, for another environment of the ERP."""
    with erp.store.transaction():
        plant_setup(erp, erp.records.companies()[0]["id"])


def plant_environment(erp: BusinessCentral, crm: Dataverse, identities: Identities, name: str) -> None:
    """Another environment of the ERP: one company, set up but without business, which the CRM knows nothing of."""
    generator = random.Random(f"environment {name} {identities.tenant_id}")  # noqa: S311 - reproducible, not secret
    company_id = Guids(generator).next()
    planter = Planter(erp, crm, replace(identities, company_id=company_id), generator)
    with erp.store.transaction():
        planter.set_up_erp()
        planter.rates()


class Planter:
    def __init__(self, erp: BusinessCentral, crm: Dataverse, identities: Identities, generator: random.Random) -> None:
        self.erp = erp
        self.crm = crm
        self.ids = identities
        self._random = generator
        self._guids = Guids(generator)
        self.user: Values = {"systemuserid": _BY, "businessunitid": identities.business_unit_id}
        self.terms: dict[str, str] = {}
        self.methods: dict[str, str] = {}
        self._currencies: dict[str, str] = {}
        self.owning_team = ""

    @property
    def tenant_id(self) -> str:
        return self.ids.tenant_id

    @property
    def company_id(self) -> str:
        return self.ids.company_id

    @property
    def other_company_row(self) -> str:
        return self.company_row(self.ids.other_company_id)

    def in_erp(self, set_name: str, **values: Any) -> Values:
        self.erp.records.begin()
        body = {"id": values.get("id") or self._guids.next(), **values}
        return self.erp.records.insert(self.ids.company_id, set_name, body, app="setup", by_api=False).values

    def in_crm(self, set_name: str, row_id: str | None = None, **values: Any) -> str:
        body = {name.replace("__bind", "@odata.bind"): value for name, value in values.items()}
        entity = self.crm.records.entity_of(set_name)
        return self.crm.records.insert(entity, body, user=self.user, row_id=row_id or self._guids.next())[0]

    # ------------------------------------------------------------ set-up

    def set_up(self) -> None:
        self.set_up_erp()
        self._set_up_crm()

    def set_up_erp(self) -> None:
        company = self.ids.company_id
        self.erp.records.begin()
        self.erp.store.set_fact(
            "companies",
            [
                {
                    "id": company,
                    "systemVersion": "28.0.41200.0",
                    "timestamp": 20741,
                    "name": COMPANY,
                    "displayName": COMPANY,
                    "businessProfileId": "",
                    "systemCreatedAt": "2023-02-14T08:30:00Z",
                    "systemCreatedBy": _BY,
                    "systemModifiedAt": "2023-02-14T08:30:00Z",
                    "systemModifiedBy": _BY,
                }
            ],
        )
        self.erp.store.set_fact(f"local_currency/{company}", "USD")
        self.erp.store.set_fact(
            f"post_codes/{company}",
            [{"code": p.code, "city": p.city, "county": p.county, "country": p.country} for p in PLACES],
        )
        for code, name, address_format in COUNTRIES:
            self.in_erp("countriesRegions", code=code, displayName=name, addressFormat=address_format)
        for code, name, due, discount_date, discount in (
            ("NET 30", "Net 30 days", "30D", "", 0),
            ("2% 10", "2% 10, net 30 days", "30D", "10D", 2),
            ("NET 45", "Net 45 days", "45D", "", 0),
            ("NET 60", "Net 60 days", "60D", "", 0),
            ("COD", "Cash on delivery", "0D", "", 0),
        ):
            self.terms[code] = self.in_erp(
                "paymentTerms",
                code=code,
                displayName=name,
                dueDateCalculation=due,
                discountDateCalculation=discount_date,
                discountPercent=discount,
            )["id"]
        for code, name in (
            ("FOB", "Free on board"),
            ("NO CHARGE", "No charge"),
            ("EXW", "Ex warehouse"),
            ("PICKUP", "Pick-up at location"),
        ):
            self.methods[code] = self.in_erp("shipmentMethods", code=code, displayName=name)["id"]
        for code, name in (("BANK", "Bank transfer"), ("CARD", "Card payment"), ("CHECK", "Check payment")):
            self.in_erp("paymentMethods", code=code, displayName=name)
        for code, name, symbol in (("EUR", "Euro", "€"), ("GBP", "Pound sterling", "£"), ("DKK", "Danish krone", "kr")):
            self.in_erp("currencies", **currency(code, name, symbol))
        information = {
            **self.erp.records.blank_row("companyInformation"),
            "id": self._guids.next(),
            "displayName": COMPANY,
            "addressLine1": "12 Atlantic Ave",
            "city": "Boston",
            "state": "MA",
            "country": "US",
            "postalCode": "02110",
            "phoneNumber": "+1 617 555 0100",
            "email": "office@harborvale.example",
            "website": "https://www.harborvale.example",
            "taxRegistrationNumber": "04-5551234",
            "currencyCode": "USD",
            "currentFiscalYearStartDate": "2026-01-01",
            "lastModifiedDateTime": "2023-02-14T08:30:00.000Z",
        }
        self.erp.store.put(f"{company}/companyInformation", information["id"], information, note="setup")
        plant_setup(self.erp, company)

    def _set_up_crm(self) -> None:
        unit = self.ids.business_unit_id
        store = self.crm.store
        store.set_fact("organization_id", self.ids.organization_id)
        self.in_crm("businessunits", unit, name="harborvale")
        self._add_user(_BY, "SYSTEM", None, "system@harborvale.example", islicensed=False, accessmode=3)
        for app in ("crm", "crm_other"):
            self._add_user(
                self._guids.next(),
                "#",
                f"Sandbox {app}",
                f"{app}@harborvale.example",
                islicensed=False,
                accessmode=4,
                isintegrationuser=True,
                applicationid=self.ids.client_ids[app],
            )
        base = self.in_crm(
            "transactioncurrencies",
            currencyname="US Dollar",
            isocurrencycode="USD",
            currencysymbol="$",
            currencyprecision=2,
            exchangerate=1.0,
        )
        store.set_fact("base_currency", base)
        euro = self.in_crm(
            "transactioncurrencies",
            currencyname="Euro",
            isocurrencycode="EUR",
            currencysymbol="€",
            currencyprecision=2,
            exchangerate=0.92,
        )
        self._currencies = {"USD": base, "EUR": euro}
        teams: dict[str, str] = {}
        for company_id, name in ((self.ids.company_id, COMPANY), (self.ids.other_company_id, OTHER_COMPANY)):
            unit_name = f"{name} ({company_id})"
            own_unit = self.in_crm(
                "businessunits", name=unit_name, parentbusinessunitid__bind=f"/businessunits({unit})"
            )
            teams[name] = self.in_crm(
                "teams", name=f"BCI - {unit_name}", teamtype=0, businessunitid__bind=f"/businessunits({own_unit})"
            )
            self.in_crm(
                "bcbi_companies",
                bcbi_name=name,
                bcbi_externalid=company_id,
                bcbi_DefaultOwningTeamId__bind=f"/teams({teams[name]})",
            )
        self.owning_team = teams[COMPANY]
        for message in ("Create", "Update", "Delete"):
            message_id = self.in_crm("sdkmessages", name=message)
            for table in ("account", "contact", "systemuser", "team", "transactioncurrency", "bcbi_company"):
                self.in_crm(
                    "sdkmessagefilters",
                    name=f"{message} of {table}",
                    primaryobjecttypecode=table,
                    sdkmessageid__bind=f"/sdkmessages({message_id})",
                )
        self._offer_bulk_messages()

    def _offer_bulk_messages(self) -> None:
        """For accounts and contacts, with ids of their own; for other tables they are planted last."""
        guids = Guids(random.Random(f"bulk {self.ids.tenant_id}"))  # noqa: S311 - reproducible, not secret
        for message in ("CreateMultiple", "UpdateMultiple"):
            message_id = self.in_crm("sdkmessages", guids.next(), name=message)
            for table in ("account", "contact"):
                self.in_crm(
                    "sdkmessagefilters",
                    guids.next(),
                    name=f"{message} of {table}",
                    primaryobjecttypecode=table,
                    sdkmessageid__bind=f"/sdkmessages({message_id})",
                )

    def _add_user(self, row_id: str, first: str | None, last: str | None, email: str, **flags: Any) -> str:
        disabled = flags.pop("isdisabled", False)
        self.in_crm(
            "systemusers",
            row_id,
            firstname=first,
            lastname=last,
            internalemailaddress=email,
            domainname=email.lower(),
            azureactivedirectoryobjectid=self._guids.next(),
            businessunitid__bind=f"/businessunits({self.ids.business_unit_id})",
            **flags,
        )
        if disabled:  # a state of the platform, not to be written by the API
            row = {**self.crm.store.table("systemuser").rows[row_id].values, "isdisabled": True}
            self.crm.store.put("systemuser", row_id, row)
        return row_id

    # ------------------------------------------------------------ trade

    def trade(self) -> None:
        users = self.people()
        customers = self._customers()
        matches = self._accounts(customers, users)
        plant_currencies_and_contacts(self, customers, matches, users)
        plant_items(self)

    def rates(self) -> None:
        """A currency without a rate is one that nobody can convert. The demo data bring theirs."""
        of = {row["code"] for row in self.erp.truth("currencies")}
        for code, day, price in EXCHANGE_RATES:
            if code in of:
                self.in_erp("currencyExchangeRates", **exchange_rate(code, day, price))

    def people(self) -> list[str]:
        """Salespeople in the ERP and users in the CRM; returns the users who may own accounts."""
        users: list[str] = []
        for index, (code, first, last) in enumerate(SALESPEOPLE):
            email = f"{first}.{last}@harborvale.example".lower()
            phone = f"+1 617 555 {1100 + index}"
            self.in_erp(
                "salespeoplePurchasers",
                code=code,
                displayName=f"{first} {last}",
                email=email,
                phoneNo=phone if index % 4 else "",
                jobTitle="Account manager" if index % 3 else "Sales representative",
                commisionPercent=self._random.choice((0, 3, 4.5, 5)),
            )
            if index < WITH_USER:
                shown = (email, email.title(), email.upper())[index % 3]
                users.append(
                    self._add_user(
                        self._guids.next(),
                        first,
                        last if index != 4 else f"{last}-Braun",
                        shown,
                        mobilephone=phone if index % 2 else f"+1 617 555 {1200 + index}",
                        jobtitle="Account manager",
                    )
                )
        for index, (first, last) in enumerate(NEWCOMERS):
            email = f"{first}.{index + 1}@harborvale.example".lower()
            phone = f"+1 617 555 {1300 + index}"
            users.append(
                self._add_user(self._guids.next(), first, last, email, mobilephone=phone, jobtitle="Sales engineer")
            )
        self._add_user(self._guids.next(), "Nora", "Feldt", "nora.feldt@harborvale.example", isdisabled=True)
        self._add_user(self._guids.next(), "Iris", "Amato", "iris.amato@harborvale.example", islicensed=False)
        return users

    def _business_name(self, place: Place, taken: set[str]) -> str:
        while True:
            country = place.country
            parts = [self._random.choice(source[country]) for source in (OWNERS, TRADES, FORMS)]
            if country == "CN":
                name = "".join(parts)
            elif country == "UA":
                name = f"{parts[2]} «{parts[0]} {parts[1]}»"
            else:
                name = " ".join(parts)
            if name.casefold() not in taken:
                taken.add(name.casefold())
                return name
            second = self._random.choice([owner for owner in OWNERS[country] if owner != parts[0]])
            joined = f"{parts[0]}{second}" if country == "CN" else f"{parts[0]} & {second}"
            name = name.replace(parts[0], joined, 1)
            if name.casefold() not in taken:
                taken.add(name.casefold())
                return name

    def _address(self, place: Place) -> Values:
        number = self._random.randint(1, 240)
        street = self._random.choice(place.streets)
        line = f"{number} {street}" if place.country in ("US", "CA", "GB", "FR") else f"{street} {number}"
        return {
            "addressLine1": line,
            "addressLine2": self._random.choice(("", "", "", "Unit 4", "2nd floor", "Building C")),
            "postalCode": place.code,
            "city": place.city,
            "state": place.county,
            "country": place.country,
        }

    def _customers(self) -> list[Values]:
        taken = {TWIN_NAME.casefold()}
        coupled = [code for code, _, _ in SALESPEOPLE[:WITH_USER]]
        uncoupled = [code for code, _, _ in SALESPEOPLE[WITH_USER:]]
        special = self._random.sample(range(10, CUSTOMERS), BLOCKED + WITHOUT_SALESPERSON + WITH_UNCOUPLED_SALESPERSON)
        blocked = {index: ("Ship", "All")[at % 2] for at, index in enumerate(special[:BLOCKED])}
        without = set(special[BLOCKED : BLOCKED + WITHOUT_SALESPERSON])
        waiting = {
            index: uncoupled[at % len(uncoupled)] for at, index in enumerate(special[BLOCKED + WITHOUT_SALESPERSON :])
        }
        foreign = [place for place in PLACES if place.country in ("GR", "CN", "UA")]
        customers: list[Values] = []
        for index in range(CUSTOMERS):
            place = foreign[index % len(foreign)] if index % 22 == 5 else self._random.choice(PLACES[: -len(foreign)])
            name = TWIN_NAME if index in TWINS else self._business_name(place, taken)
            mail = f"{self._random.choice(('office', 'orders', 'info', 'accounts'))}@customer{index + 1:03d}.example"
            values: Values = {
                "number": f"C{(index + 1) * 10:05d}",
                "displayName": name,
                "type": "Person" if index % 40 == 17 else "Company",
                **self._address(place),
                "phoneNumber": f"{place.phone} {self._random.randint(1000, 9999)}" if index % 19 else "",
                "email": mail if index % 11 else "",
                "website": f"https://www.customer{index + 1:03d}.example" if index % 3 else "",
                "salespersonCode": "" if index in without else waiting.get(index, coupled[index % len(coupled)]),
                "creditLimit": self._random.choice((0, 0, 5000, 10000, 25000, 75000.5)),
                "taxLiable": place.country == "US",
                "paymentTermsId": self.terms[self._random.choice(("NET 30", "NET 30", "2% 10", "NET 45", "NET 60"))],
                "shipmentMethodId": self.methods[self._random.choice(("FOB", "NO CHARGE"))],
                "currencyCode": "EUR" if index % 37 == 9 else "",
                "blocked": blocked.get(index, "_x0020_"),
            }
            if index == 3:
                values |= self._longest(place)
            customers.append(self.in_erp("customers", **values))
        self.erp.store.set_fact(f"series/{self.ids.company_id}/customer", f"C{CUSTOMERS * 10:05d}")
        for customer in customers[::7]:
            balance = {"balanceDue": round(self._random.uniform(10, 9000), 2)}
            self.erp.edit({"set": "customers", "id": customer["id"], "values": balance, "silent": True}, app="setup")
        return customers

    @staticmethod
    def _longest(place: Place) -> Values:
        """As long as every field allows. The place is not in the post code table, so nothing is filled in."""

        def filled(text: str, length: int) -> str:
            return (text * (length // len(text) + 1))[:length]

        return {
            "displayName": filled("The Worshipful Guild of Bell Founders and Clock Restorers of the Lower Valley ", 99)
            + ".",
            "addressLine1": filled("Beyond the Old Mill past the Second Lock on the Towpath, Yard 7, ", 99) + ".",
            "addressLine2": filled("Care of the Harbourmaster's Office, Annexe B, ", 49) + ".",
            "postalCode": "ZZ99 9ZZ-0000000001X"[:20],
            "city": filled("Llanfairpwllgwyngyllgogerychwyrn", 30),
            "state": filled("Isle of Anglesey and Environs, N W", 30),
            "country": place.country,
            "phoneNumber": "+44 1248 5550 1000 ext. 123456",
            "email": filled("bells-and-clocks-", 61) + "@guild.long.example",
            "website": "https://www.guild.example/" + filled("bells/", 229),
        }

    def _accounts(self, customers: list[Values], users: list[str]) -> list[tuple[Values, str]]:
        """Returns customers with the account of the same name."""
        taken = {customer["displayName"].casefold() for customer in customers}
        matchable = [c for i, c in enumerate(customers) if i not in (3, *TWINS) and c["blocked"] == "_x0020_"]
        matches = [
            (customer, self._matching_account(at, customer, users))
            for at, customer in enumerate(self._random.sample(matchable, MATCHING_ACCOUNTS))
        ]
        self._account({"name": TWIN_NAME, "telephone1": "+44 20 7946 0000"}, users[0])
        for at in range(NEW_ACCOUNTS):
            place = self._random.choice(PLACES)
            name = self._business_name(place, taken)
            if at == 7:
                name = f"{name}, {'Divisions of Import, Export, Storage, Repair and Customs Clearance'} Holding"
            self._account(self._new_account(at, name, place), users[at % len(users)] if at % 5 else None)
        other = self.company_row(self.ids.other_company_id)
        for at in range(OTHER_ACCOUNTS):
            place = self._random.choice(PLACES)
            body = self._new_account(at, self._business_name(place, taken), place)
            if at % 4 == 0:
                body["customertypecode"] = 11
            elif at % 4 == 1:
                body["customertypecode"] = (1, 5, 9)[at % 3]
            elif at % 4 == 2:
                body["bcbi_CompanyId@odata.bind"] = f"/bcbi_companies({other})"
            row_id = self._account(body, users[at % len(users)])
            if at % 4 == 3:
                entity = self.crm.records.entity_of("accounts")
                self.crm.records.update(entity, row_id, {"statecode": 1, "statuscode": 2}, user=self.user)
        return matches

    def company_row(self, external_id: str) -> str:
        rows = self.crm.store.table("bcbi_company").rows
        return next(row_id for row_id, row in rows.items() if row.values["bcbi_externalid"] == external_id)

    def _account(self, body: Values, owner: str | None) -> str:
        where = f"/systemusers({owner})" if owner else f"/teams({self.owning_team})"
        values = {"customertypecode": 3, **body, "ownerid@odata.bind": where}
        entity = self.crm.records.entity_of("accounts")
        return self.crm.records.insert(entity, values, user=self.user, row_id=self._guids.next())[0]

    def _matching_account(self, at: int, customer: Values, users: list[str]) -> str:
        """An account of the same name, as two systems kept by hand come to differ."""
        name = customer["displayName"]
        if at % 10 == 4:
            name = name.upper()
        elif at % 10 == 9:
            name = name.lower()
        body: Values = {
            "name": name,
            "address1_line1": customer["addressLine1"],
            "address1_line2": customer["addressLine2"],
            "address1_postalcode": customer["postalCode"],
            "address1_city": customer["city"],
            "address1_stateorprovince": customer["state"],
            "address1_country": customer["country"],
            "telephone1": customer["phoneNumber"] if at % 4 else "",
            "emailaddress1": customer["email"] if at % 3 else f"new.office@account{at:03d}.example",
            "websiteurl": customer["website"] if at % 6 else "",
            "creditlimit": customer["creditLimit"] if at % 5 else 1000,
            "industrycode": self._random.choice((2, 5, 10, 12, 25, 33)),
            "description": "Met at the spring fair." if at % 8 == 0 else None,
        }
        if customer["currencyCode"]:
            currency = self._currencies[customer["currencyCode"]]
            body["transactioncurrencyid@odata.bind"] = f"/transactioncurrencies({currency})"
        return self._account(body, users[at % len(users)])

    def _new_account(self, at: int, name: str, place: Place) -> Values:
        address = self._address(place)
        return {
            "name": name,
            "address1_line1": address["addressLine1"],
            "address1_line2": address["addressLine2"],
            "address1_postalcode": place.code,
            "address1_city": place.city if at % 15 != 2 else "",  # the ERP fills these in from the post code
            "address1_stateorprovince": place.county if at % 15 != 2 else "",
            "address1_country": place.country,
            "telephone1": f"{place.phone} {self._random.randint(1000, 9999)}",
            "emailaddress1": f"hello@account{at + 200:03d}.example" if at % 7 else "",
            "websiteurl": f"https://account{at + 200:03d}.example" if at % 2 else "",
            "paymenttermscode": (1, 2, 3, 4, None)[at % 5],
            "address1_freighttermscode": (1, 2, None)[at % 3],
            "numberofemployees": self._random.choice((None, 4, 18, 250)),
        }
