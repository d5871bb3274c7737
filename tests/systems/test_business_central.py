"""Business Central's values, addresses and filters."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest

from drawbar.business_central import BusinessCentral, escape, unescape
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
