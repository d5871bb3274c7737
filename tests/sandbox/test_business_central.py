"""Business Central's API v2.0, fact by fact."""

from __future__ import annotations

import base64
import re
import uuid

import pytest

from tests.sandbox.client import Client, Control, Info, error_code

EMPTY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def customer(erp: Client):
    return erp.post("customers", {"displayName": "Sable & Finch", "city": "Nowhere", "phoneNumber": "1"}).json()


def address(row) -> str:
    return f"customers({row['id']})"


class TestCompanies:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_company
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/endpoints-apis-for-dynamics
    """

    def test_are_listed_and_read_only(self, info: Info, erp: Client):
        companies = erp.get(f"{erp.root}/companies").json()["value"]

        assert [info["erp"]["company_id"]] == [company["id"] for company in companies]
        assert (405, "BadRequest_MethodNotAllowed") == error_code(erp.post(f"{erp.root}/companies", {}))

    def test_are_addressed_by_path_query_header_or_not_at_all_when_there_is_one(self, info: Info, erp: Client):
        company = info["erp"]["company_id"]
        name = erp.get(f"{erp.root}/companies").json()["value"][0]["name"]

        ways = [
            erp.get("customers?$top=1"),
            erp.get(f"{erp.root}/customers?$top=1&company={company}"),
            erp.get(f"{erp.root}/customers?$top=1", headers={"Company": name}),
            erp.get(f"{erp.root}/customers?$top=1"),
        ]

        assert 1 == len({reply.json()["value"][0]["id"] for reply in ways})

    def test_an_unknown_one_is_not_found(self, erp: Client):
        reply = erp.get(f"{erp.root}/companies({uuid.uuid4()})/customers")

        assert (404, "Internal_CompanyNotFound") == error_code(reply)


class TestValues:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customer"""

    def test_nothing_is_null(self, customer):
        """Every property of the page is there, empty ones in the manner of their type."""
        assert 28 == len([name for name in customer if name != "@odata.context"])
        assert None not in customer.values()
        assert ("", EMPTY, "_x0020_", 0) == (
            customer["email"],
            customer["paymentTermsId"],
            customer["blocked"],
            customer["creditLimit"],
        )

    def test_the_local_currency_is_shown_by_its_code_and_kept_blank(self, erp: Client, customer):
        assert ("USD", EMPTY) == (customer["currencyCode"], customer["currencyId"])

        euro = erp.rows("currencies?$filter=code eq 'EUR'")[0]["id"]
        changed = erp.patch(address(customer), {"currencyCode": "eur"}, tag="*").json()
        back = erp.patch(address(customer), {"currencyCode": "USD"}, tag="*").json()

        assert ("EUR", euro) == (changed["currencyCode"], changed["currencyId"])
        assert ("USD", EMPTY) == (back["currencyCode"], back["currencyId"])

    def test_codes_are_trimmed_and_upper_cased(self, erp: Client, customer):
        changed = erp.patch(address(customer), {"salespersonCode": " jr ", "country": "de"}, tag="*").json()

        assert ("JR", "DE") == (changed["salespersonCode"], changed["country"])

    def test_enum_members_are_escaped_and_taken_either_way(self, erp: Client, customer):
        assert "Ship" == erp.patch(address(customer), {"blocked": "Ship"}, tag="*").json()["blocked"]
        assert "_x0020_" == erp.patch(address(customer), {"blocked": " "}, tag="*").json()["blocked"]
        assert (400, "Unknown") == error_code(erp.patch(address(customer), {"blocked": "Never"}, tag="*"))

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"displayName": "x" * 101}, "Application_StringExceededLength"),
            ({"displayName": ""}, "Application_DialogException"),
            ({"salespersonCode": "NOBODY"}, "Internal_InvalidTableRelation"),
            ({"country": "XX"}, "Internal_InvalidTableRelation"),
            ({"paymentTermsId": str(uuid.uuid4())}, "Application_DialogException"),
            ({"paymentTermsId": "no guid"}, "Application_InvalidGUID"),
            ({"balanceDue": 5}, "BadRequest_InvalidOperation"),
            ({"faxNumber": "1"}, "BadRequest"),
            ({"creditLimit": "much"}, "BadRequest"),
            ({"currencyCode": "XYZ"}, "Application_DialogException"),
        ],
    )
    def test_what_cannot_be_is_refused_and_changes_nothing(self, erp: Client, customer, body, code: str):
        reply = erp.patch(address(customer), {"phoneNumber": "2", **body}, tag="*")

        assert (400, code) == error_code(reply)
        assert customer["@odata.etag"] == erp.get(address(customer)).json()["@odata.etag"]

    def test_neither_codes_nor_members_depend_on_the_language(self, erp: Client, customer):
        """`Accept-Language` is about texts alone; the sandbox has them in English."""
        german = {"headers": {"Accept-Language": "de-DE"}}
        shown = erp.get(address(customer), **german).json()
        refused = erp.patch(address(customer), {"blocked": "Niemals"}, tag="*", **german)

        assert customer["blocked"] == shown["blocked"]
        assert (400, "Unknown") == error_code(refused)
        assert "'Niemals' is not an option. The existing options are:  ,Ship,Invoice,All" in refused.text

    def test_an_error_ends_with_its_correlation_id(self, erp: Client):
        text = erp.get("customers?$filter=nonsense eq 1").json()["error"]["message"]

        assert re.search(r"  CorrelationId:  [0-9a-f-]{36}\.\Z", text)


class TestCreate:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customer
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/dynamics-error-codes
    """

    def test_keeps_the_id_it_is_given(self, erp: Client):
        wanted = str(uuid.uuid4())

        reply = erp.post("customers", {"id": wanted, "displayName": "Chosen"})

        assert (201, wanted) == (reply.status_code, reply.json()["id"])

    def test_refuses_an_id_or_a_number_that_is_taken(self, erp: Client, customer):
        same_id = erp.post("customers", {"id": customer["id"], "displayName": "Again"})
        same_number = erp.post("customers", {"number": customer["number"], "displayName": "Again"})

        assert (400, "Internal_EntityWithSameKeyExists") == error_code(same_id)
        assert (400, "Internal_EntityWithSameKeyExists") == error_code(same_number)

    def test_draws_a_number_from_the_series(self, erp: Client):
        first, second = (erp.post("customers", {"displayName": name}).json()["number"] for name in ("A", "B"))

        assert int(first[1:]) + 1 == int(second[1:])

    def test_needs_a_name(self, erp: Client):
        reply = erp.post("customers", {"city": "Berlin"})

        assert (400, "Application_DialogException") == error_code(reply)
        assert reply.json()["error"]["message"].startswith('A "displayName" must be provided.')

    def test_may_go_without_an_echo(self, erp: Client):
        """docs.oasis-open.org/odata/odata/v4.0/os/part1-protocol/odata-v4.0-os-part1-protocol.html: its place is then in `Location`."""
        reply = erp.post("customers", {"displayName": "Quiet"}, prefer="return-no-content")

        assert (204, b"") == (reply.status_code, reply.content)
        assert "Quiet" == erp.get(reply.headers["Location"]).json()["displayName"]

    def test_a_template_fills_what_was_not_sent(self, erp: Client, control: Control):
        """Source: the sandbox itself."""
        control("POST", "switches", {"customer_template": {"taxLiable": True, "creditLimit": 100}})
        made = erp.post("customers", {"displayName": "Templated", "creditLimit": 5}).json()
        control("POST", "switches", {"customer_template": {}})

        assert (True, 5) == (made["taxLiable"], made["creditLimit"])


class TestConditionalWrites:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/api/dynamics_customer_update"""

    def test_a_tag_is_opaque_base64_that_moves_with_each_write(self, erp: Client, customer):
        inner = base64.b64decode(customer["@odata.etag"][3:-1]).decode()

        assert re.fullmatch(r"'20;\d{20}1;00;'", inner)
        changed = erp.patch(address(customer), {"phoneNumber": "2"}, tag=customer["@odata.etag"]).json()
        assert customer["@odata.etag"] != changed["@odata.etag"]

    def test_a_patch_without_or_with_a_malformed_tag_is_a_bad_request(self, erp: Client, customer):
        assert (400, "BadRequest_InvalidToken") == error_code(erp.patch(address(customer), {"city": "A"}))
        assert (400, "BadRequest_InvalidToken") == error_code(erp.patch(address(customer), {"city": "A"}, tag="W/1"))

    def test_a_stale_tag_is_a_conflict(self, erp: Client, customer):
        erp.patch(address(customer), {"phoneNumber": "2"}, tag="*")

        stale = erp.patch(address(customer), {"phoneNumber": "3"}, tag=customer["@odata.etag"])

        assert (409, "Request_EntityChanged") == error_code(stale)
        assert (409, "Request_EntityChanged") == error_code(erp.delete(address(customer), tag=customer["@odata.etag"]))

    def test_a_delete_needs_no_tag(self, erp: Client, customer):
        assert 204 == erp.delete(address(customer)).status_code
        assert (404, "BadRequest_ResourceNotFound") == error_code(erp.get(address(customer)))
        assert (404, "BadRequest_ResourceNotFound") == error_code(erp.patch(address(customer), {}, tag="*"))

    def test_equal_values_change_neither_tag_nor_time(self, erp: Client, customer):
        same = erp.patch(address(customer), {"phoneNumber": "1"}, tag="*").json()

        assert customer["@odata.etag"] == same["@odata.etag"]
        assert customer["lastModifiedDateTime"] == same["lastModifiedDateTime"]

    def test_times_grow_with_each_write(self, erp: Client, customer):
        rows = [erp.patch(address(customer), {"phoneNumber": str(n)}, tag="*").json() for n in range(2, 8)]
        times = [row["lastModifiedDateTime"] for row in rows]

        padded = [f"{time[:-1]:<23}" for time in times]
        assert sorted(set(padded)) == padded

    def test_a_new_number_renames_and_relations_follow(self, erp: Client, customer):
        seller = erp.post("salespeoplePurchasers", {"code": "OLD", "displayName": "O"}).json()
        erp.patch(address(customer), {"salespersonCode": "OLD"}, tag="*")

        erp.patch(f"salespeoplePurchasers({seller['id']})", {"code": "NEW"}, tag="*")

        assert "NEW" == erp.get(address(customer)).json()["salespersonCode"]


class TestSideEffects:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customer"""

    def test_a_post_code_with_one_match_fills_the_address(self, erp: Client, customer):
        changed = erp.patch(address(customer), {"postalCode": "29221"}, tag=customer["@odata.etag"]).json()

        assert ("Celle", "Niedersachsen", "DE") == (changed["city"], changed["state"], changed["country"])

    def test_a_city_with_several_codes_fills_nothing(self, erp: Client, customer):
        changed = erp.patch(address(customer), {"city": "Berlin"}, tag="*").json()

        assert ("Berlin", "", "") == (changed["city"], changed["postalCode"], changed["country"])

    def test_can_be_switched_off(self, erp: Client, control: Control, customer):
        """Source: the sandbox itself."""
        control("POST", "switches", {"post_codes": False})
        changed = erp.patch(address(customer), {"postalCode": "29221"}, tag="*").json()
        control("POST", "switches", {"post_codes": True})

        assert ("Nowhere", "") == (changed["city"], changed["country"])


class TestQueries:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-connect-apps-filtering
    https://learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-filter-expressions-in-odata-uris
    """

    @pytest.mark.parametrize(
        ("filter_", "numbers"),
        [
            ("number eq 'c00010'", ["C00010"]),
            ("startswith(number,'C0001') and not (number eq 'C00010')", []),
            ("number gt 'C01980'", ["C01990", "C02000"]),
            ("number eq 'C00010' or number eq 'C00020'", ["C00010", "C00020"]),
            ("endswith(number,'0') and contains(displayName,'guild of bell')", ["C00040"]),
            ("blocked eq 'All' and number lt 'C00010'", []),
            ("creditLimit ge 75000.5 and creditLimit lt 0", []),
            ("toupper(displayName) eq 'ASHWORTH PROVISIONS LTD'", ["C00620", "C01480"]),
        ],
    )
    def test_filters(self, erp: Client, filter_: str, numbers: list[str]):
        rows = erp.rows("customers", params={"$filter": f"{filter_} and number le 'C02000'", "$select": "number"})
        if " or " in filter_:
            rows = erp.rows("customers", params={"$filter": filter_, "$select": "number"})

        assert numbers == [row["number"] for row in rows]

    def test_or_across_two_properties_is_refused(self, erp: Client):
        reply = erp.get("customers", params={"$filter": "number eq 'C00010' or city eq 'Berlin'"})

        assert 400 == reply.status_code
        assert "OR operator is not supported on distinct fields" in reply.json()["error"]["message"]

    def test_a_text_longer_than_its_field_is_an_error_of_the_filter(self, erp: Client):
        reply = erp.get("customers", params={"$filter": f"number eq '{'9' * 21}'"})

        assert (400, "Application_FilterErrorException") == error_code(reply)

    @pytest.mark.parametrize("value", ["All", "all", " ", "_x0020_"])
    def test_an_option_is_written_as_it_is_named(self, erp: Client, value: str):
        assert erp.rows("customers", params={"$filter": f"blocked eq '{value}' and number le 'C02000'"})

    @pytest.mark.parametrize("filter_", ["blocked eq 'Some'", "'Some' ne blocked", "not (blocked eq 'Some')"])
    def test_an_option_that_there_is_not_is_an_error_of_the_filter(self, erp: Client, filter_: str):
        reply = erp.get("customers", params={"$filter": filter_})

        assert (400, "Application_FilterErrorException") == error_code(reply)
        assert "The existing options are: " in reply.json()["error"]["message"]

    def test_select_order_top_skip_count(self, erp: Client):
        body = erp.get(
            "customers?$select=number&$orderby=number desc&$top=2&$skip=1&$count=true&$filter=number le 'C02000'"
        )

        assert 200 == body.json()["@odata.count"]
        assert ["C01990", "C01980"] == [row["number"] for row in body.json()["value"]]
        assert {"@odata.etag", "number"} == set(body.json()["value"][0])

    def test_count_alone_is_plain_text(self, erp: Client):
        assert "200" == erp.get("customers/$count?$filter=number le 'C02000'").text

    def test_expand_follows_ids(self, erp: Client):
        row = erp.get("customers?$top=1&$expand=paymentTerm($select=code),currency").json()["value"][0]

        assert {"@odata.etag", "code"} == set(row["paymentTerm"])
        assert row["currency"] is None

    def test_change_tracking_is_gone(self, erp: Client):
        assert 400 == erp.get("customers?$deltatoken=1").status_code


class TestPages:
    """Source: https://docs.oasis-open.org/odata/odata/v4.0/os/part1-protocol/odata-v4.0-os-part1-protocol.html
    https://learn.microsoft.com/training/modules/work-with-api/4-limits
    """

    def test_are_followed_to_the_end_each_row_once(self, erp: Client):
        rows = erp.rows("customers?$filter=number le 'C02000'&$select=number", prefer="odata.maxpagesize=70")

        assert 200 == len({row["number"] for row in rows}) == len(rows)

    def test_lose_no_row_while_rows_change(self, erp: Client):
        """A row that was not touched is on exactly one page, whatever happens to the others."""
        query = "customers?$orderby=lastModifiedDateTime&$filter=number le 'C02000'"
        first = erp.get(query, prefer="odata.maxpagesize=50").json()
        erp.patch(address(first["value"][10]), {"phoneNumber": "+1 999"}, tag="*")

        rest = erp.rows(first["@odata.nextLink"], prefer="odata.maxpagesize=50")

        seen = [row["number"] for row in first["value"] + rest]
        assert 200 == len(set(seen))
        assert 201 == len(seen)

    def test_may_not_exceed_twenty_thousand(self, erp: Client):
        assert 413 == erp.get("customers", prefer="odata.maxpagesize=20001").status_code


class TestBatch:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/webservices/use-odata-batch"""

    def test_answers_each_part_and_stops_at_the_first_failure(self, erp: Client, customer):
        part = {"method": "GET", "url": f"{erp.base.removeprefix(erp.root)[1:]}/{address(customer)}"}
        bad = {**part, "url": part["url"] + "/nothing"}

        responses = erp.post(f"{erp.root}/$batch", {"requests": [{"id": "a", **part}, {"id": "b", **bad}, part]})

        assert [("a", 200), ("b", 404)] == [(r["id"], r["status"]) for r in responses.json()["responses"]]

    def test_in_one_snapshot_nothing_stays_when_one_fails(self, erp: Client, customer):
        """And the answers of what was rolled back still say that it went well."""
        url = f"{erp.base.removeprefix(erp.root)[1:]}/{address(customer)}"
        headers = {"If-Match": "*", "Content-Type": "application/json"}
        good = {"id": "1", "method": "PATCH", "url": url, "headers": headers, "body": {"phoneNumber": "77"}}
        bad = {"id": "2", "method": "PATCH", "url": url, "headers": headers, "body": {"country": "XX"}}

        reply = erp.post(f"{erp.root}/$batch", {"requests": [good, bad]}, headers={"Isolation": "snapshot"})

        assert [200, 400] == [response["status"] for response in reply.json()["responses"]]
        assert "1" == erp.get(address(customer)).json()["phoneNumber"]

    def test_takes_a_hundred_at_most(self, erp: Client):
        assert (
            500
            == erp.post(f"{erp.root}/$batch", {"requests": [{"method": "GET", "url": "companies"}] * 101}).status_code
        )


class TestMetadata:
    """Source: https://learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-connect-apps-tips"""

    def test_is_only_read(self, erp: Client):
        for path in ("", "$metadata", "companies", "entityDefinitions"):
            assert 405 == erp.post(f"{erp.root}/{path}", {}).status_code
        assert 404 == erp.get(f"{erp.root}/$metadata/customers").status_code

    def test_names_every_set(self, erp: Client):
        text = erp.get(f"{erp.root}/$metadata").text

        assert '<EntitySet Name="salespeoplePurchasers" EntityType="Microsoft.NAV.salespersonPurchaser"/>' in text
        assert '<Property Name="displayName" Type="Edm.String" MaxLength="100"/>' in text
