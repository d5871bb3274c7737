"""Business Central's currencies and exchange rates, fact by fact."""

from __future__ import annotations

import pytest

from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver


@pytest.fixture
def dollar(erp: Client) -> str:
    """The id of a currency nobody uses."""
    found = erp.rows("currencies?$filter=code eq 'NZD'")
    return found[0]["id"] if found else erp.post("currencies", {"code": "nzd", "displayName": "Kiwi"}).json()["id"]


class TestCurrency:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_currency"""

    def test_has_every_property_of_its_page(self, erp: Client):
        euro = erp.rows("currencies?$filter=code eq 'EUR'")[0]

        assert {
            "@odata.etag",
            "id",
            "code",
            "displayName",
            "symbol",
            "amountDecimalPlaces",
            "amountRoundingPrecision",
            "lastModifiedDateTime",
        } == set(euro)
        assert ("Euro", "€", "2:2", 0.01) == tuple(
            euro[name] for name in ("displayName", "symbol", "amountDecimalPlaces", "amountRoundingPrecision")
        )

    def test_the_local_one_has_no_row(self, erp: Client):
        information = erp.rows("companyInformation")

        assert ["USD"] == [row["currencyCode"] for row in information]
        assert [] == erp.rows("currencies?$filter=code eq 'USD'")

    def test_the_local_one_cannot_be_set(self, erp: Client):
        path = f"companyInformation({erp.rows('companyInformation')[0]['id']})"

        assert (400, "BadRequest_InvalidOperation") == error_code(erp.patch(path, {"currencyCode": "EUR"}, tag="*"))

    def test_its_code_is_kept_upper_case_and_unique(self, erp: Client, dollar):
        assert "NZD" == erp.get(f"currencies({dollar})").json()["code"]
        assert (400, "Internal_EntityWithSameKeyExists") == error_code(erp.post("currencies", {"code": "Nzd"}))

    def test_a_new_code_reaches_those_who_use_it(self, erp: Client):
        currency = erp.post("currencies", {"code": "OLD"}).json()
        customer = erp.post("customers", {"displayName": "Payer", "currencyCode": "OLD"}).json()

        erp.patch(f"currencies({currency['id']})", {"code": "NEW"}, tag="*")

        changed = erp.get(f"customers({customer['id']})").json()
        assert ("NEW", currency["id"]) == (changed["currencyCode"], changed["currencyId"])


class TestExchangeRate:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_currencyexchangerate"""

    def test_has_every_property_of_its_page_and_stands_in_order(self, erp: Client):
        rates = erp.rows("currencyExchangeRates")

        assert {
            "@odata.etag",
            "id",
            "currencyCode",
            "startingDate",
            "exchangeRateAmount",
            "relationalCurrencyCode",
            "relationalExchangeRateAmount",
            "lastModifiedDateTime",
        } == set(rates[0])
        keys = [(rate["currencyCode"], rate["startingDate"]) for rate in rates]
        assert sorted(keys) == keys

    def test_is_found_by_currency_and_day(self, erp: Client):
        query = "$filter=currencyCode eq 'EUR' and startingDate le 2026-06-30&$orderby=startingDate desc&$top=1"

        assert [1.1746] == [r["relationalExchangeRateAmount"] for r in erp.rows(f"currencyExchangeRates?{query}")]

    def test_cannot_be_written_through_the_api(self, erp: Client):
        rate = erp.rows("currencyExchangeRates?$top=1")[0]["id"]

        for reply in (
            erp.post("currencyExchangeRates", {"currencyCode": "EUR"}),
            erp.patch(f"currencyExchangeRates({rate})", {"exchangeRateAmount": 2}, tag="*"),
            erp.delete(f"currencyExchangeRates({rate})", tag="*"),
        ):
            assert (405, "BadRequest_MethodNotAllowed") == error_code(reply)

    def test_is_edited_inside_and_told_of(self, info: Info, erp: Client, control: Control, receiver: Receiver):
        resource = f"api/v2.0/companies({info['erp']['company_id']})/currencyExchangeRates"
        body = {"notificationUrl": receiver.url, "resource": resource}
        key = erp.post(f"{erp.root}/subscriptions", body).json()["subscriptionId"]
        rate = erp.rows("currencyExchangeRates?$filter=currencyCode eq 'CHF'")[0]
        euro = erp.rows("currencies?$filter=code eq 'CHF'")[0]

        edit = {"system": "erp", "app": "somebody", "set": "currencyExchangeRates", "id": rate["id"]}
        control("POST", "edit", {**edit, "values": {"relationalExchangeRateAmount": 1.25}})

        now = erp.get(f"currencyExchangeRates({rate['id']})").json()
        assert eventually(lambda: len(receiver.got) > 0)
        erp.delete(f"{erp.root}/subscriptions('{key}')")
        assert 1.25 == now["relationalExchangeRateAmount"]
        assert rate["lastModifiedDateTime"] != now["lastModifiedDateTime"]
        assert euro["@odata.etag"] == erp.get(f"currencies({euro['id']})").json()["@odata.etag"]

    def test_goes_with_its_currency(self, erp: Client, control: Control, dollar):
        values = {"currencyCode": "NZD", "startingDate": "2026-01-01", "exchangeRateAmount": 1}
        edit = {"system": "erp", "app": "somebody", "set": "currencyExchangeRates", "values": values}
        control("POST", "edit", edit)
        erp.delete(f"currencies({dollar})", tag="*")

        assert [] == erp.rows("currencyExchangeRates?$filter=currencyCode eq 'NZD'")
