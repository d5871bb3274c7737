"""Business Central's values, addresses and filters."""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal

import pytest

from drawbar.business_central import BusinessCentral, escape, unescape
from drawbar.entities import exchange_rates
from drawbar.odata import to_json
from schemas.records import MatchTest

ERP = BusinessCentral(company_id="11111111-0000-4000-8000-000000000001")
CUSTOMER = ERP.entity("customer")
GUID = "26814998-936a-401c-81c1-0e848a64971d"


def a_row(**values):
    return {
        "@odata.etag": 'W/"JzIwOzE7MDAn"',
        "id": GUID.upper(),
        "lastModifiedDateTime": "2026-03-02T09:15:38.5Z",
        **values,
    }


class TestToObserved:
    def test_takes_version_order_and_time_from_the_row(self):
        """The version is the ETag; the order is the time of change in milliseconds."""
        observed = ERP.to_observed(CUSTOMER, a_row(), ())

        assert observed.id == GUID
        assert observed.version == 'W/"JzIwOzE7MDAn"'
        assert observed.modified_at == datetime(2026, 3, 2, 9, 15, 38, 500_000, tzinfo=timezone.utc)
        assert observed.order == int(observed.modified_at.timestamp() * 1000)

    @pytest.mark.parametrize(
        ("field", "raw", "expected"),
        [
            ("displayName", "", None),
            ("displayName", " Fabrikam ", " Fabrikam "),
            ("displayName", "0001-01-01", "0001-01-01"),
            ("displayName", "_x0020_", "_x0020_"),
            ("currencyId", "00000000-0000-0000-0000-000000000000", None),
            ("currencyId", GUID.upper(), GUID),
            ("blocked", "_x0020_", None),
            ("blocked", " ", None),
            ("blocked", "All", "All"),
            ("lastModifiedDateTime", "0001-01-01T00:00:00Z", None),
            ("creditLimit", 25000, Decimal(25000)),
            ("creditLimit", Decimal("1000.80"), Decimal("1000.8")),
            ("taxLiable", False, False),
        ],
    )
    def test_makes_values_neutral(self, field, raw, expected):
        """Blank is None; text is verbatim; enum members are unescaped; amounts are Decimal."""
        row = a_row() | {field: raw}
        if field == "lastModifiedDateTime":
            observed = ERP.to_observed(CUSTOMER, row, (field,))
        else:
            observed = ERP.to_observed(CUSTOMER, row, (field,))

        value = observed.state[field]
        assert (value, type(value)) == (expected, type(expected))

    def test_leaves_out_what_the_row_does_not_have(self):
        """Absent is not blank."""
        assert ERP.to_observed(CUSTOMER, a_row(), ("creditLimit",)).state == {}

    @pytest.mark.parametrize("missing", ["id", "@odata.etag", "lastModifiedDateTime"])
    def test_refuses_a_row_that_no_api_sends(self, missing):
        """A row without id, version or time is a broken answer."""
        row = a_row()
        del row[missing]

        with pytest.raises(ValueError, match="customers"):
            ERP.to_observed(CUSTOMER, row, ())


class TestToBody:
    def test_makes_blank_what_is_blank_there(self):
        """None is the blank of each type: the API has no null."""
        values = dict.fromkeys(("displayName", "currencyId", "blocked", "creditLimit", "taxLiable"))

        assert ERP.to_body(CUSTOMER, values) == {
            "displayName": "",
            "currencyId": "00000000-0000-0000-0000-000000000000",
            "blocked": "_x0020_",
            "creditLimit": 0,
            "taxLiable": False,
        }

    def test_sends_an_amount_with_exactly_its_digits(self):
        """No rounding, no exponent."""
        body = ERP.to_body(CUSTOMER, {"creditLimit": Decimal("12345678901234567.8")})

        assert to_json(body) == '{"creditLimit":12345678901234567.8}'

    @pytest.mark.parametrize(
        ("member", "escaped"), [("In Review", "In_x0020_Review"), ("Non-Inventory", "Non_x002D_Inventory")]
    )
    def test_escapes_enum_members(self, member, escaped):
        """There and back is the identity."""
        assert (escaped, member) == (escape(member), unescape(escaped))


class TestMatchQueries:
    def test_ask_one_request_per_test(self):
        """`or` between different fields is refused by the ERP."""
        queries = ERP.match_queries(
            CUSTOMER,
            (MatchTest(equals={"number": "c-10"}), MatchTest(equals={"displayName": "O'Hara", "city": None})),
            within={"blocked": None},
            within_blank_or={"currencyId": GUID},
        )

        scope = f"blocked eq ' ' and (currencyId eq {GUID} or currencyId eq 00000000-0000-0000-0000-000000000000)"
        assert [(query.tests, query.filter) for query in queries] == [
            ((0,), f"number eq 'C-10' and {scope}"),
            ((1,), f"tolower(displayName) eq 'o''hara' and city eq '' and {scope}"),
        ]


class TestAddresses:
    def test_are_below_the_company(self):
        """Keys are bare GUIDs."""
        assert f"companies({ERP.company_id})/customers({GUID})" == ERP.key_path(CUSTOMER, GUID)

    def test_select_brings_the_time_of_change(self):
        """Whatever is asked for, version, order and time come with it."""
        assert ERP.select(CUSTOMER, ("number", "number")) == "id,number,lastModifiedDateTime"


class TestDerived:
    def test_one_row_of_a_relation_gives_the_value(self):
        """The company among the contacts of a customer; none is blank, a relation that was not asked for unknown."""
        contacts = [
            {"contactType": "Person", "contactNumber": "CT2"},
            {"contactType": "Company", "contactNumber": "CT1"},
        ]

        def number(**row: object) -> object:
            return ERP.to_observed(CUSTOMER, a_row(**row), ("companyContactNumber",)).state

        assert {"companyContactNumber": "CT1"} == number(contactsInformation=contacts)
        assert {"companyContactNumber": None} == number(contactsInformation=contacts[:1])
        assert {} == number()
        assert "contactsInformation" == ERP.expand(CUSTOMER, ("number", "companyContactNumber"))
        assert "id,number,lastModifiedDateTime" == ERP.select(CUSTOMER, ("number", "companyContactNumber"))

    def test_the_first_that_is_not_blank_gives_the_value(self):
        """R321: a currency without a symbol shows its code."""
        currency = ERP.entity("currency")

        for symbol, expected in (("$", "$"), ("", "USD")):
            row = a_row(symbol=symbol, code="USD")
            assert {"symbolOrCode": expected} == ERP.to_observed(currency, row, ("symbolOrCode",)).state
        assert {} == ERP.to_observed(currency, a_row(symbol=""), ("symbolOrCode",)).state
        assert "id,symbol,code,lastModifiedDateTime" == ERP.select(currency, ("symbolOrCode", "exchangeRate"))


def a_rate(code: str, day: str, here: float, there: float, related: str = "") -> dict[str, object]:
    return {
        "currencyCode": code,
        "startingDate": day,
        "exchangeRateAmount": here,
        "relationalExchangeRateAmount": there,
        "relationalCurrencyCode": related,
    }


class TestExchangeRates:
    TODAY = date(2026, 3, 2)

    def test_the_last_that_has_begun_counts(self):
        """R322: units of the currency for one of the company's own."""
        rates = [
            a_rate("USD", "2026-03-03", 1, 5),
            a_rate("USD", "2026-03-02", 1, 0.8),
            a_rate("USD", "2026-01-01", 1, 0.9),
        ]

        assert {"USD": Decimal("1.25")} == exchange_rates(rates, self.TODAY)

    def test_a_rate_to_a_third_currency_goes_by_that_ones(self):
        rates = [a_rate("USD", "2026-01-01", 1, 0.5), a_rate("XAF", "2026-01-01", 300, 1, "USD")]

        assert {"USD": Decimal(2), "XAF": Decimal(600)} == exchange_rates(rates, self.TODAY)

    @pytest.mark.parametrize(
        "rates",
        [
            [a_rate("USD", "2026-01-01", 0, 1)],
            [a_rate("USD", "2026-01-01", 1, 0)],
            [a_rate("USD", "2027-01-01", 1, 1)],
            [a_rate("USD", "2026-01-01", 1, 1, "GBP"), a_rate("GBP", "2026-01-01", 1, 1, "USD")],
        ],
    )
    def test_none_is_none(self, rates):
        """Zero, not begun, and a circle."""
        assert {} == exchange_rates(rates, self.TODAY)

    def test_has_ten_decimals(self):
        assert {"JPY": Decimal("0.3333333333")} == exchange_rates([a_rate("JPY", "2026-01-01", 1, 3)], self.TODAY)
