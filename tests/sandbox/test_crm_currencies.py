"""Dataverse's currencies, fact by fact."""

from __future__ import annotations

import pytest

from tests.sandbox.client import Client, error_code


def a_currency(code: str, **more) -> dict:
    return {
        "isocurrencycode": code,
        "currencyname": f"Test {code}",
        "currencysymbol": "¤",
        "currencyprecision": 2,
        "exchangerate": 2.0,
        **more,
    }


@pytest.fixture
def base(crm: Client) -> str:
    row = crm.rows("transactioncurrencies?$filter=isocurrencycode eq 'USD'")[0]
    return f"transactioncurrencies({row['transactioncurrencyid']})"


class TestCurrency:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/transaction-currency-currency-entity"""

    def test_is_made_with_a_rate(self, crm: Client):
        made = crm.post("transactioncurrencies", a_currency("NZD"), prefer="return=representation").json()

        assert ("NZD", 2.0, 0, 1) == tuple(
            made[name] for name in ("isocurrencycode", "exchangerate", "statecode", "statuscode")
        )

    def test_its_code_is_unique(self, crm: Client):
        assert (400, "0x80048cf3") == error_code(crm.post("transactioncurrencies", a_currency("eur")))

    @pytest.mark.parametrize("code", ["EU", "E1R", "EURO"])
    def test_its_code_has_three_letters(self, crm: Client, code):
        assert (400, "0x80048cf2") == error_code(crm.post("transactioncurrencies", a_currency(code)))

    @pytest.mark.parametrize("missing", ["currencyname", "currencysymbol", "currencyprecision"])
    def test_needs_name_symbol_and_precision(self, crm: Client, missing):
        body = {name: value for name, value in a_currency("JPY").items() if name != missing}

        assert (400, "0x80040200") == error_code(crm.post("transactioncurrencies", body))

    @pytest.mark.parametrize("rate", [0, None])
    def test_needs_a_rate_above_zero(self, crm: Client, rate):
        assert (400, "0x80048cfd") == error_code(
            crm.post("transactioncurrencies", a_currency("JPY", exchangerate=rate))
        )

    def test_keeps_its_code(self, crm: Client):
        made = crm.post("transactioncurrencies", a_currency("BRL")).headers["OData-EntityId"]
        crm.patch(made, {"isocurrencycode": "ARS", "currencyname": "Real"})

        row = crm.get(made).json()
        assert ("BRL", "Real") == (row["isocurrencycode"], row["currencyname"])

    def test_takes_another_rate_that_holds_for_what_is_written_from_then_on(self, crm: Client):
        made = crm.post("transactioncurrencies", a_currency("MXN")).headers["OData-EntityId"]
        body = {"name": "N", "creditlimit": 100, "transactioncurrencyid@odata.bind": made}
        account = crm.post("accounts", body).headers["OData-EntityId"]
        crm.patch(made, {"exchangerate": 4.0})
        before = crm.get(account).json()
        crm.patch(account, {"creditlimit": 100})
        after = crm.get(account).json()

        assert (2.0, 50) == (before["exchangerate"], before["creditlimit_base"])
        assert (4.0, 25) == (after["exchangerate"], after["creditlimit_base"])

    def test_is_deleted_unless_in_use(self, crm: Client):
        made = crm.post("transactioncurrencies", a_currency("THB")).headers["OData-EntityId"]
        account = crm.post("accounts", {"name": "N", "transactioncurrencyid@odata.bind": made}).headers[
            "OData-EntityId"
        ]

        assert (405, "0x80040227") == error_code(crm.delete(made))
        crm.delete(account)
        assert 204 == crm.delete(made).status_code


class TestBaseCurrency:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/transaction-currency-currency-entity"""

    def test_stays_at_one(self, crm: Client, base):
        assert 1.0 == crm.get(base).json()["exchangerate"]
        assert (400, "0x80048cf5") == error_code(crm.patch(base, {"exchangerate": 1.1}))

    def test_cannot_be_deleted(self, crm: Client, base):
        assert (400, "0x80048cff") == error_code(crm.delete(base))

    def test_cannot_be_deactivated(self, crm: Client, base):
        assert (400, "0x80048cf4") == error_code(crm.patch(base, {"statecode": 1, "statuscode": 2}))

    def test_may_be_named_otherwise(self, crm: Client, base):
        assert 204 == crm.patch(base, {"currencyname": "US Dollar"}).status_code
