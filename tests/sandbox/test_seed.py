"""The demo data: what a demonstration can count on."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from drawbar.sandbox.seeds.folder import FolderError
from drawbar.sandbox.server import SandboxError, SandboxOptions, start_in_thread
from tests.sandbox.client import Client, Control, Info


@pytest.fixture(scope="module")
def truth(control: Control) -> Callable[[str], list[dict]]:
    return lambda path: control("GET", f"truth/{path}")


class TestDemo:
    def test_salespeople_and_users_meet_by_mail_in_any_letter_case(self, truth):
        sellers = truth("erp/salespeoplePurchasers")
        users = [user for user in truth("crm/systemusers") if user["islicensed"] and not user["isdisabled"]]
        mails = Counter(user["internalemailaddress"].lower() for user in users)

        assert (14, 16) == (len(sellers), len(users))
        assert 10 == sum(mails[seller["email"]] for seller in sellers)
        assert any(user["internalemailaddress"] != user["internalemailaddress"].lower() for user in users)

    def test_customers_are_of_every_kind(self, truth):
        customers = truth("erp/customers")
        with_user = {seller["code"] for seller in truth("erp/salespeoplePurchasers")[:10]}
        codes = [customer["salespersonCode"] for customer in customers]
        names = Counter(customer["displayName"] for customer in customers)

        assert 200 == len(customers)
        assert {"Ship": 4, "All": 4} == dict(Counter(c["blocked"] for c in customers if c["blocked"] != "_x0020_"))
        assert (12, 16) == (codes.count(""), sum(1 for code in codes if code and code not in with_user))
        assert [2] == [count for count in names.values() if count > 1]
        assert 8 <= sum(1 for name in names if any(ord(mark) > 0x370 for mark in name))
        assert {"EUR", "USD"} == {customer["currencyCode"] for customer in customers}
        assert {
            "displayName": 100,
            "addressLine1": 100,
            "addressLine2": 50,
            "city": 30,
            "email": 80,
            "website": 255,
        } == {
            name: max(len(customer[name]) for customer in customers)
            for name in ("displayName", "addressLine1", "addressLine2", "city", "email", "website")
        }

    def test_accounts_match_are_new_or_fall_out_of_the_filter(self, info: Info, truth):
        names = {customer["displayName"].casefold() for customer in truth("erp/customers")}
        this = next(
            row["bcbi_companyid"]
            for row in truth("crm/bcbi_companies")
            if row["bcbi_externalid"] == info["erp"]["company_id"]
        )
        accounts = truth("crm/accounts")
        inside = [
            account
            for account in accounts
            if account["statecode"] == 0
            and account["customertypecode"] == 3
            and account["_bcbi_companyid_value"] in (None, this)
        ]

        assert (150, 130) == (len(accounts), len(inside))
        assert 81 == sum(1 for account in inside if account["name"].casefold() in names)
        assert {None} == {account["accountnumber"] for account in accounts}

    def test_the_company_row_names_its_default_team(self, info: Info, truth):
        row = next(r for r in truth("crm/bcbi_companies") if r["bcbi_externalid"] == info["erp"]["company_id"])
        team = next(t for t in truth("crm/teams") if t["teamid"] == row["_bcbi_defaultowningteamid_value"])

        assert team["name"].startswith("BCI - ")

    def test_comes_out_the_same_every_time(self, start: Callable[..., Info], info: Info, truth):
        again = Control(start(seed="demo", limits=False))
        other = again("GET", "truth/erp/customers")
        again.close()
        moving = ("lastModifiedDateTime",)

        assert [{k: v for k, v in row.items() if k not in moving} for row in truth("erp/customers")] == [
            {k: v for k, v in row.items() if k not in moving} for row in other
        ]


class TestDemoContacts:
    def test_persons_belong_to_customers_to_other_companies_or_to_nobody(self, truth):
        contacts = truth("erp/contacts")
        persons = [row for row in contacts if row["type"] == "Person" and row["companyNumber"]]
        related = Counter(row["contactBusinessRelation"] for row in persons)
        alone = [r for r in contacts if r["type"] == "Person" and r["contactBusinessRelation"] == "None"]

        assert {"Customer": 92, "None": 18} == dict(related)
        assert 10 == sum(1 for row in alone if not row["companyNumber"])
        assert 200 == sum(1 for row in truth("erp/contactsInformation") if row["contactId"] not in ids_of(persons))

    def test_names_are_of_every_kind(self, truth):
        names = [row["displayName"] for row in truth("erp/contacts") if row["type"] == "Person"]

        assert any(" " not in name and name.isascii() for name in names)
        assert any(name.count(" ") > 4 for name in names)
        assert any(name.startswith("Dr. ") for name in names)
        assert 3 <= sum(1 for name in names if any(ord(mark) > 0x370 for mark in name))

    def test_some_people_are_in_both_systems_and_some_in_one(self, truth):
        persons = [row for row in truth("erp/contacts") if row["type"] == "Person"]
        mails = Counter(row["email"].lower() for row in persons if row["email"])
        names = Counter(row["displayName"].lower() for row in persons)
        contacts = truth("crm/contacts")
        by_mail = [row for row in contacts if mails[(row["emailaddress1"] or "").lower()] == 1]
        by_name = [row for row in contacts if names[row["fullname"].lower()] == 1]

        assert (74, 45) == (len(contacts), len(by_name))
        assert 30 <= len(by_mail) < 45
        assert {True, False} == {row["_accountid_value"] is None for row in by_name}
        assert 3 == sum(1 for row in contacts if row["_parentcontactid_value"])
        assert 2 == sum(1 for row in contacts if row["statecode"] == 1)


class TestDemoCurrencies:
    def test_each_system_has_one_the_other_has_not(self, truth):
        erp = {row["code"] for row in truth("erp/currencies")}
        crm = {row["isocurrencycode"] for row in truth("crm/transactioncurrencies")}

        assert ({"CHF"}, {"CAD"}) == (erp - crm, crm - erp - {"USD"})
        assert erp == {row["currencyCode"] for row in truth("erp/currencyExchangeRates")}

    def test_some_customers_pay_in_another(self, truth):
        assert 5 <= sum(1 for customer in truth("erp/customers") if customer["currencyCode"] == "EUR")


class TestDemoItems:
    def test_are_of_every_kind_and_on_no_order(self, truth):
        items = truth("erp/items")

        assert (36, []) == (len(items), truth("erp/salesOrders"))
        assert {"Service", "Inventory"} == {item["type"] for item in items}
        assert {"HARDWARE", "LIGHTING", "TIMBER", "SERVICE"} == {item["itemCategoryCode"] for item in items}


def ids_of(rows: list[dict]) -> set[str]:
    return {row["id"] for row in rows}


class TestDeterminism:
    def test_the_same_seed_clock_and_requests_give_the_same_rows_to_the_last_member(self, start: Callable[..., Info]):
        """Ids the services make, numbers, versions and times included."""
        found = []
        for _ in range(2):
            info = start(seed="demo", limits=False, clock=dt.datetime(2026, 3, 2, tzinfo=dt.timezone.utc))
            control = Control(info)
            control("POST", "clock", {"set": "2026-03-02T09:00:00Z", "rate": 0})
            erp, crm = Client(info, "erp"), Client(info, "crm")
            customer = erp.post("customers", {"displayName": "Same again"}).json()
            account = crm.post("accounts", {"name": "Same again"}, prefer="return=representation").json()
            found.append([{k: v for k, v in row.items() if k != "@odata.context"} for row in (customer, account)])
            for client in (control, erp, crm):
                client.close()

        assert found[0] == found[1]


class TestEmpty:
    def test_is_a_company_set_up_without_business(self, start: Callable[..., Info]):
        info = start(seed="empty", plain_http=True)
        control = Control(info)

        assert ("http", None) == (urlsplit(info["erp"]["base_url"]).scheme, info["ca_file"])
        assert ([], []) == (control("GET", "truth/erp/customers"), control("GET", "truth/crm/accounts"))
        rates = control("GET", "truth/erp/currencyExchangeRates")
        assert {"EUR", "GBP", "DKK"} == {row["currencyCode"] for row in rates}
        assert {"USD", "EUR"} == {row["isocurrencycode"] for row in control("GET", "truth/crm/transactioncurrencies")}
        control.close()


@pytest.fixture(scope="module")
def large(start: Callable[..., Info]) -> Iterator[Callable[[str], list[dict]]]:
    control = Control(start(seed="large", scale=1, limits=False))
    yield lambda path: control("GET", f"truth/{path}")
    control.close()


class TestLarge:
    """`--seed large --scale 1`: what a load test can count on."""

    def test_has_a_thousand_customers_and_as_many_accounts_half_of_them_the_same(self, large):
        names = [customer["displayName"].casefold() for customer in large("erp/customers")]
        accounts = [account["name"].casefold() for account in large("crm/accounts")]

        assert (1000, 1000, 1000) == (len(names), len(set(names)), len(accounts))
        assert 500 == len(set(names) & set(accounts))

    def test_has_persons_at_companies_and_some_of_them_in_the_crm(self, large):
        persons = [contact for contact in large("erp/contacts") if contact["type"] == "Person"]
        mails = {person["email"] for person in persons if person["email"]}
        contacts = large("crm/contacts")

        assert 600 <= len(persons)
        assert {True} == {bool(person["companyNumber"]) for person in persons if person["email"].startswith("person")}
        assert 80 < sum(contact["emailaddress1"] in mails for contact in contacts) < len(contacts)

    def test_trades_mostly_with_few(self, large):
        invoices = large("erp/salesInvoices")
        buyers = Counter(invoice["customerId"] for invoice in invoices)
        best = sum(count for _, count in buyers.most_common(len(buyers) // 10))

        assert {"Open": 270, "Draft": 30} == dict(Counter(invoice["status"] for invoice in invoices))
        assert best > len(invoices) / 4
        assert (40, 120, 60) == tuple(len(large(f"erp/{name}")) for name in ("salesQuotes", "salesOrders", "items"))
        assert sum(invoice["remainingAmount"] for invoice in invoices) == pytest.approx(
            sum(customer["balanceDue"] for customer in large("erp/customers"))
        )

    def test_has_prices_for_all_for_groups_and_for_single_customers(self, large):
        lists, lines = large("erp/priceLists"), large("erp/priceListLines")
        items = {item["number"] for item in large("erp/items")}
        prices = {
            (line["priceListCode"], line["assetNumber"], line["minimumQuantity"]): line["unitPrice"] for line in lines
        }

        assert {"All_x0020_Customers": 1, "Customer_x0020_Price_x0020_Group": 3, "Customer": 20} == dict(
            Counter(each["sourceType"] for each in lists)
        )
        assert {"Active"} == {each["status"] for each in (*lists, *lines)}
        assert items == {line["assetNumber"] for line in lines if line["priceListCode"] == "ALL"}
        assert {True} == {
            price < prices["ALL", item, 0] for (code, item, _), price in prices.items() if code.startswith("C")
        }
        assert 20 == sum(unit["code"] == "BOX" for unit in large("erp/itemUnitsOfMeasure"))
        assert (5, 2) == (len(large("erp/resources")), len(large("erp/shippingAgents")))

    def test_grows_with_its_scale(self, start: Callable[..., Info]):
        control = Control(start(seed="large", scale=2, limits=False))

        assert (2000, 2000) == tuple(len(control("GET", f"truth/{path}")) for path in ("erp/customers", "crm/accounts"))
        control.close()


class TestFolder:
    """`--data FOLDER`: what somebody brings."""

    def started(self, start: Callable[..., Info], folder: Path) -> Control:
        return Control(start(seed="empty", data=folder, limits=False))

    def test_fills_both_systems_in_the_order_that_references_need(self, start: Callable[..., Info], tmp_path: Path):
        record = "11111111-2222-4333-8444-555555555555"
        (tmp_path / "erp.customers.csv").write_text(
            f'id,displayName,creditLimit,taxLiable,salespersonCode,city\n{record},"Fabrikam, Inc.",2500.5,true,JR,\n'
        )
        (tmp_path / "erp.salespeoplePurchasers.json").write_text('[{"code": "JR", "displayName": "Jo Roe"}]')
        (tmp_path / "crm.accounts.csv").write_text(f"accountid,name,creditlimit\n{record},Fabrikam,7\n")
        control = self.started(start, tmp_path)
        (customer,) = control("GET", "truth/erp/customers")
        (account,) = control("GET", "truth/crm/accounts")
        control.close()

        assert (record, "Fabrikam, Inc.", 2500.5, True, "JR", "") == tuple(
            customer[name] for name in ("id", "displayName", "creditLimit", "taxLiable", "salespersonCode", "city")
        )
        assert (record, "Fabrikam", 7) == tuple(account[name] for name in ("accountid", "name", "creditlimit"))

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("erp.customers.csv", "displayName,vatNumber\nA,1\n", r"erp.customers.csv:2: The property 'vatNumber'"),
            ("erp.customers.csv", "displayName\nA\nA,B\n", "erp.customers.csv:3: another number of cells"),
            ("erp.customers.csv", "displayName,creditLimit\nA,much\n", "erp.customers.csv:2: could not convert"),
            ("erp.customers.json", "{", "erp.customers.json: Expecting"),
            ("erp.customers.json", "{}", "a list of objects is expected"),
            ("crm.accounts.json", '[{"name": "A", "nonsense": 1}]', "crm.accounts.json:1: "),
            ("erp.vendors.csv", "a\n", "erp.vendors.csv: this set cannot be filled"),
            ("notes.txt", "", "no file is called"),
        ],
    )
    def test_is_refused_with_place_and_reason(
        self, certificates: Path, tmp_path: Path, name: str, text: str, said: str
    ):
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / name).write_text(text)
        options = SandboxOptions(state_dir=tmp_path, seed="empty", data=folder, db=tmp_path / "db.sqlite")
        shutil.copytree(certificates, tmp_path, dirs_exist_ok=True)

        with pytest.raises(SandboxError) as fault:
            start_in_thread(options)

        assert isinstance(fault.value.__cause__, FolderError)
        assert re.search(said, str(fault.value.__cause__))
        _, stop = start_in_thread(replace(options, data=None))  # nothing was kept: it is a new one still
        stop()
