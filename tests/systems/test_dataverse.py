"""Dataverse's values, addresses and filters."""

from __future__ import annotations

from decimal import Decimal

import pytest

from drawbar.dataverse import Dataverse
from drawbar.entities import with_query
from drawbar.odata import to_json
from schemas.records import MatchTest

CRM = Dataverse()
ACCOUNT = CRM.entity("account")
GUID = "44444444-0000-4000-8000-0000000000aa"
ZERO = "00000000-0000-0000-0000-000000000000"


def a_row(**values):
    return {
        "@odata.etag": 'W/"48211903"',
        "accountid": GUID.upper(),
        "modifiedon": "2026-03-02T09:15:27Z",
        **values,
    }


class TestToObserved:
    def test_takes_the_order_from_the_row_or_the_etag(self):
        """`versionnumber` grows with each write; the ETag holds the same number."""
        assert CRM.to_observed(ACCOUNT, a_row(), ()).order == 48211903
        assert CRM.to_observed(ACCOUNT, a_row(versionnumber=7), ()).order == 7

    @pytest.mark.parametrize(
        ("field", "columns", "expected"),
        [
            ("name", {"name": None}, None),
            ("name", {"name": ""}, None),
            ("name", {"name": " Nordwind "}, " Nordwind "),
            ("customertypecode", {"customertypecode": 3}, 3),
            ("creditlimit", {"creditlimit": Decimal("25000.00")}, Decimal(25000)),
            ("creditlimit", {"creditlimit": 0}, Decimal(0)),
            ("creditonhold", {"creditonhold": True}, True),
            ("transactioncurrencyid", {"_transactioncurrencyid_value": GUID.upper()}, GUID),
            ("bcbi_companyid", {"_bcbi_companyid_value": ZERO}, None),
            ("bcbi_companyid", {"_bcbi_companyid_value": None}, None),
            ("ownerid", {"_owninguser_value": GUID, "_owningteam_value": None}, f"systemuser:{GUID}"),
            ("ownerid", {"_owninguser_value": None, "_owningteam_value": GUID}, f"team:{GUID}"),
        ],
    )
    def test_makes_values_neutral(self, field, columns, expected):
        """A lookup is the id of its target under its logical name; an owner says also what it is."""
        value = CRM.to_observed(ACCOUNT, a_row(**columns), (field,)).state[field]

        assert (value, type(value)) == (expected, type(expected))

    def test_leaves_out_what_the_row_does_not_have(self):
        """Absent is not blank."""
        assert CRM.to_observed(ACCOUNT, a_row(), ("ownerid", "name")).state == {}

    def test_refuses_a_row_that_no_api_sends(self):
        """A row without an order is a broken answer."""
        with pytest.raises(ValueError, match="versionnumber"):
            CRM.to_observed(ACCOUNT, a_row() | {"@odata.etag": "x"}, ())


class TestToBody:
    def test_binds_lookups(self):
        """Lookups are written by their navigation, whose letter case counts."""
        body = CRM.to_body(
            ACCOUNT,
            {"ownerid": f"team:{GUID}", "bcbi_companyid": GUID, "transactioncurrencyid": None, "name": None},
        )

        assert body == {
            "ownerid@odata.bind": f"/teams({GUID})",
            "bcbi_CompanyId@odata.bind": f"/bcbi_companies({GUID})",
            "transactioncurrencyid@odata.bind": None,
            "name": None,
        }

    def test_sends_an_amount_with_exactly_its_digits(self):
        """No rounding, no exponent."""
        assert to_json(CRM.to_body(ACCOUNT, {"creditlimit": Decimal("2.5E+4")})) == '{"creditlimit":25000}'

    @pytest.mark.parametrize("value", [GUID, f"contact:{GUID}", "systemuser:Jane"])
    def test_refuses_an_owner_that_is_none(self, value):
        """The fault names the field, not the value."""
        with pytest.raises(ValueError, match="ownerid takes") as fault:
            CRM.to_body(ACCOUNT, {"ownerid": value})

        assert value not in str(fault.value)


class TestMatchQueries:
    def test_ask_all_tests_in_one_request(self):
        """The CRM may `or` them; GUIDs stand bare, texts quoted, blank is null."""
        (query,) = CRM.match_queries(
            ACCOUNT,
            (MatchTest(equals={"accountnumber": "C-10"}), MatchTest(equals={"name": "O'Hara", "fax": None})),
            within={"statecode": 0, "ownerid": f"systemuser:{GUID}"},
            within_blank_or={"bcbi_companyid": GUID},
        )

        assert query.tests == (0, 1)
        assert query.filter == (
            "((accountnumber eq 'C-10') or (name eq 'O''Hara' and fax eq null))"
            f" and statecode eq 0 and _ownerid_value eq {GUID}"
            f" and (_bcbi_companyid_value eq {GUID} or _bcbi_companyid_value eq null)"
        )

    def test_asks_nothing_without_tests(self):
        """No test, no match: not every record of the table."""
        assert CRM.match_queries(ACCOUNT, (), within={"statecode": 0}, within_blank_or={}) == ()


class TestSelect:
    def test_asks_for_the_columns_that_hold_the_fields(self):
        """What `to_observed` reads is what is selected, also in a delta request, which takes no annotations."""
        assert (
            CRM.select(ACCOUNT, ("name", "ownerid", "bcbi_companyid"))
            == "accountid,name,_owninguser_value,_owningteam_value,_bcbi_companyid_value,modifiedon,versionnumber"
        )


class TestContact:
    CONTACT = CRM.entity("contact")

    def observed(self, name: str, **columns: object) -> object:
        row = a_row(**columns) | {"contactid": GUID}
        return CRM.to_observed(self.CONTACT, row, (name,)).state[name]

    def test_a_name_is_its_three_parts(self):
        parts = {"firstname": "Jane", "middlename": None, "lastname": "Roe"}

        assert "Jane\t\tRoe" == self.observed("fullname", **parts)
        assert self.observed("fullname", **dict.fromkeys(parts)) is None
        assert parts == CRM.to_body(self.CONTACT, {"fullname": "Jane\t\tRoe"})
        assert dict.fromkeys(parts) == CRM.to_body(self.CONTACT, {"fullname": None})
        assert "contactid,firstname,middlename,lastname,modifiedon,versionnumber" == CRM.select(
            self.CONTACT, ("fullname",)
        )

    def test_a_name_of_four_parts_is_refused(self):
        with pytest.raises(ValueError, match="fullname takes 3 parts"):
            CRM.to_body(self.CONTACT, {"fullname": "a\tb\tc\td"})

    def test_a_name_is_looked_for_by_its_parts(self):
        tests = (MatchTest(equals={"fullname": "Jane\t\tO'Hara"}),)
        (query,) = CRM.match_queries(self.CONTACT, tests, within={}, within_blank_or={})

        assert "firstname eq 'Jane' and middlename eq null and lastname eq 'O''Hara'" in query.filter

    def test_a_name_is_looked_for_however_it_is_divided(self):
        """People put `Van der Meer` into the last name, or `Van` into the middle one."""
        tests = (MatchTest(equals={"fullname": "Femke\tVan\tder Meer"}),)
        (query,) = CRM.match_queries(self.CONTACT, tests, within={"statecode": 0}, within_blank_or={})

        for first, middle, last in (
            ("'Femke'", "null", "'Van der Meer'"),
            ("'Femke'", "'Van'", "'der Meer'"),
            ("'Femke Van'", "'der'", "'Meer'"),
            ("null", "null", "'Femke Van der Meer'"),
        ):
            assert f"(firstname eq {first} and middlename eq {middle} and lastname eq {last})" in query.filter
        assert 15 == query.filter.count("lastname eq")

    def test_a_very_long_name_is_looked_for_as_it_is_divided(self):
        """The ways to divide it would make a filter longer than an address may be."""
        tests = (MatchTest(equals={"fullname": "Ana\tMaria da Luz\tde Sousa e Silva"}),)
        (query,) = CRM.match_queries(self.CONTACT, tests, within={}, within_blank_or={})

        assert 1 == query.filter.count("lastname eq 'de Sousa e Silva'") == query.filter.count("lastname eq")

    @pytest.mark.parametrize(
        ("account", "contact", "expected"),
        [(GUID, None, f"account:{GUID}"), (None, GUID, f"contact:{GUID}"), (None, None, None)],
    )
    def test_a_parent_says_what_it_is(self, account: object, contact: object, expected: object):
        columns = {"_accountid_value": account, "_parentcontactid_value": contact}

        assert expected == self.observed("parentcustomerid", **columns)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (f"account:{GUID}", {"parentcustomerid_account@odata.bind": f"/accounts({GUID})"}),
            (f"contact:{GUID}", {"parentcustomerid_contact@odata.bind": f"/contacts({GUID})"}),
            (None, {"parentcustomerid_account@odata.bind": None}),
        ],
    )
    def test_a_parent_is_written_by_the_navigation_of_its_kind(self, value: object, expected: object):
        assert expected == CRM.to_body(self.CONTACT, {"parentcustomerid": value})


class TestWithQuery:
    def test_encodes_values(self):
        """Spaces, ampersands and non-Latin letters must not end a query option."""
        path = with_query("accounts", {"$filter": "name eq 'Müller & Söhne #1'", "$select": ""})

        assert path == "accounts?$filter=name%20eq%20'M%C3%BCller%20%26%20S%C3%B6hne%20%231'"
