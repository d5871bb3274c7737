"""Dataverse's Web API, fact by fact."""

from __future__ import annotations

import uuid

import pytest

from tests.sandbox.client import Client, Control, Info, error_code


@pytest.fixture
def account(crm: Client):
    reply = crm.post("accounts", {"name": "Sable & Finch", "telephone1": "1"}, prefer="return=representation")
    return reply.json()


def address(row) -> str:
    return f"accounts({row['accountid']})"


def number(row) -> int:
    return int(row["@odata.etag"][3:-1])


class TestCreate:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-entity-web-api"""

    def test_answers_with_the_address_of_the_row(self, crm: Client):
        reply = crm.post("accounts", {"name": "New"})

        assert (204, b"") == (reply.status_code, reply.content)
        assert reply.headers["OData-EntityId"] == reply.headers["Location"]
        assert "New" == crm.get(reply.headers["Location"]).json()["name"]

    def test_returns_the_row_when_asked(self, crm: Client):
        reply = crm.post("accounts?$select=name", {"name": "New"}, prefer="return=representation")

        assert 201 == reply.status_code
        assert {"@odata.context", "@odata.etag", "accountid", "name"} == set(reply.json())

    def test_keeps_the_id_it_is_given_and_refuses_one_that_exists(self, crm: Client):
        wanted = str(uuid.uuid4())

        first, second = (crm.post("accounts", {"accountid": wanted, "name": "Mine"}) for _ in range(2))

        assert first.headers["OData-EntityId"].endswith(f"accounts({wanted})")
        assert (412, "0x80040237") == error_code(second)

    def test_makes_the_application_user_owner_and_author(self, info: Info, crm: Client, account):
        me = crm.get("WhoAmI").json()["UserId"]
        user = crm.get(f"systemusers({me})").json()

        assert {me} == {account[f"_{name}_value"] for name in ("ownerid", "owninguser", "createdby", "modifiedby")}
        assert info["crm"]["client_id"] == user["applicationid"]
        assert (False, True) == (user["islicensed"], user["isintegrationuser"])

    def test_sets_what_the_platform_sets(self, crm: Client, account):
        assert (0, 1, 1) == (account["statecode"], account["statuscode"], account["preferredcontactmethodcode"])
        assert account["customertypecode"] is None
        currency = crm.get(f"transactioncurrencies({account['_transactioncurrencyid_value']})").json()
        assert "USD" == currency["isocurrencycode"]

    def test_is_dated_back_to_the_day_of_a_migration(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/account: OverriddenCreatedOn"""
        body = {"name": "Old", "overriddencreatedon": "2019-05-04T10:00:00Z"}
        row = crm.post("accounts", body, prefer="return=representation").json()

        assert "2019-05-04T00:00:00Z" == row["createdon"]
        assert row["modifiedon"][:10] == row["overriddencreatedon"]


class TestBodies:
    """Source: https://learn.microsoft.com/troubleshoot/power-platform/dataverse/dataverse-web-api-and-sdk/web-api-client-errors"""

    @pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PATCH", "({id})"), ("PUT", "({id})/name")])
    def test_nothing_is_written_without_one(self, crm: Client, account, method: str, path: str):
        reply = crm.send(method, f"accounts{path.format(id=account['accountid'])}")

        assert (400, "0x80048d19") == error_code(reply)
        assert account["@odata.etag"] == crm.get(address(account)).json()["@odata.etag"]


class TestPatch:
    """The matrix of update, upsert and their conditions.

    Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/perform-conditional-operations-using-web-api
    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/update-delete-entities-using-web-api
    """

    def test_updates_and_creates_alike_without_a_condition(self, crm: Client, account):
        new = f"accounts({uuid.uuid4()})"

        replies = [crm.patch(path, {"name": "N"}) for path in (address(account), new)]
        told = [
            crm.patch(path, {"name": "N"}, prefer="return=representation")
            for path in (address(account), f"accounts({uuid.uuid4()})")
        ]

        assert [204, 204] == [reply.status_code for reply in replies]
        assert [200, 201] == [reply.status_code for reply in told]

    def test_any_match_means_update_only(self, crm: Client):
        assert (404, "0x80040217") == error_code(crm.patch(f"accounts({uuid.uuid4()})", {"name": "N"}, tag="*"))

    def test_no_match_means_create_only(self, crm: Client, account):
        reply = crm.patch(address(account), {"name": "N"}, headers={"If-None-Match": "*"})

        assert (412, "0x80040237") == error_code(reply)

    def test_a_stale_tag_is_refused_and_a_good_one_taken(self, crm: Client, account):
        good = crm.patch(address(account), {"name": "N"}, tag=account["@odata.etag"])
        stale = crm.patch(address(account), {"name": "M"}, tag=account["@odata.etag"])
        gone = crm.delete(address(account), tag=account["@odata.etag"])

        assert 204 == good.status_code
        assert (412, "0x80060882") == error_code(stale)
        assert (412, "0x80060882") == error_code(gone)

    def test_counts_as_a_change_even_when_nothing_differs(self, crm: Client, account):
        same = crm.patch(address(account), {"telephone1": "1"}, prefer="return=representation").json()

        assert number(same) > number(account)

    def test_versions_are_one_counter_for_all_tables(self, crm: Client, account):
        contact = crm.post("contacts", {"lastname": "Lee"}, prefer="return=representation").json()
        again = crm.patch(address(account), {"fax": "2"}, prefer="return=representation").json()

        assert number(account) < number(contact) < number(again) == again["versionnumber"]

    def test_an_unchanged_row_is_not_sent_again(self, crm: Client, account):
        reply = crm.get(address(account), headers={"If-None-Match": account["@odata.etag"]})

        assert 304 == reply.status_code
        assert 200 == crm.get(address(account), headers={"If-None-Match": "null"}).status_code


class TestValues:
    """Source: https://learn.microsoft.com/dynamics365/sales/developer/entities/account"""

    def test_an_empty_text_is_nothing(self, crm: Client, account):
        changed = crm.patch(address(account), {"telephone1": ""}, prefer="return=representation").json()

        assert changed["telephone1"] is None

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"nosuchcolumn": 1}, "0x80048d19"),
            ({"_ownerid_value": str(uuid.uuid4())}, "0x80048d19"),
            ({"telephone1": 5}, "0x80048d19"),
            ({"name": "x" * 161}, "0x80044331"),
            ({"customertypecode": 99}, "0x8004431a"),
            ({"creditlimit": -1}, "0x80044330"),
            ({"numberofemployees": -1}, "0x8004432f"),
            ({"address1_utcoffset": 2**31}, "0x8004432f"),
            ({"lastonholdtime": "yesterday"}, "0x80040239"),
            ({"statecode": 1, "statuscode": 1}, "0x80048408"),
            ({"primarycontactid@odata.bind": "/nosuchset(1)"}, "0x80048d19"),
        ],
    )
    def test_what_cannot_be_is_refused_and_changes_nothing(self, crm: Client, account, body, code: str):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes"""
        reply = crm.patch(address(account), {"fax": "2", **body})

        assert (400, code) == error_code(reply)
        assert account["@odata.etag"] == crm.get(address(account)).json()["@odata.etag"]

    def test_state_and_status_follow_each_other(self, crm: Client, account):
        closed = crm.patch(address(account), {"statecode": 1}, prefer="return=representation").json()
        opened = crm.patch(address(account), {"statuscode": 1}, prefer="return=representation").json()

        assert (1, 2) == (closed["statecode"], closed["statuscode"])
        assert (0, 1) == (opened["statecode"], opened["statuscode"])

    def test_money_has_a_base_amount_at_the_rate_of_its_currency(self, crm: Client, account):
        """learn.microsoft.com/power-apps/developer/data-platform/transaction-currency-currency-entity"""
        euro = crm.rows("transactioncurrencies?$filter=isocurrencycode eq 'EUR'")[0]
        body = {
            "creditlimit": 920,
            "transactioncurrencyid@odata.bind": f"/transactioncurrencies({euro['transactioncurrencyid']})",
        }

        changed = crm.patch(address(account), body, prefer="return=representation").json()

        assert (0.92, 1000) == (changed["exchangerate"], changed["creditlimit_base"])

    def test_names_and_addresses_are_composed(self, crm: Client):
        body = {"firstname": "Ada", "lastname": "Lee", "address1_line1": "1 Quay", "address1_city": "Bath"}
        contact = crm.post("contacts", body, prefer="return=representation").json()

        assert ("Ada Lee", "1 Quay\r\nBath") == (contact["fullname"], contact["address1_composite"])


class TestColumns:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/update-delete-entities-using-web-api"""

    def test_are_put_and_deleted_by_themselves(self, crm: Client, account):
        path = f"{address(account)}/telephone1"

        assert 204 == crm.send("PUT", path, json={"value": "2"}).status_code
        assert "2" == crm.get(path).json()["value"]
        assert 204 == crm.delete(path).status_code
        assert 204 == crm.get(path).status_code

    def test_a_body_without_a_value_empties_none(self, crm: Client, account):
        path = f"{address(account)}/telephone1"

        assert (400, "0x80048d19") == error_code(crm.send("PUT", path, json={"telephone1": "2"}))
        assert "1" == crm.get(path).json()["value"]

    def test_a_stale_tag_is_refused(self, crm: Client, account):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/perform-conditional-operations-using-web-api"""
        path, tag = f"{address(account)}/telephone1", account["@odata.etag"]

        assert 204 == crm.send("PUT", path, json={"value": "2"}, tag=tag).status_code
        assert (412, "0x80060882") == error_code(crm.send("PUT", path, json={"value": "3"}, tag=tag))
        assert (412, "0x80060882") == error_code(crm.delete(path, tag=tag))
        assert "2" == crm.get(path).json()["value"]

    def test_of_an_empty_one_no_part_is_read(self, crm: Client, account):
        assert 405 == crm.get(f"{address(account)}/fax/part").status_code


class TestLookups:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api"""

    def test_are_bound_by_navigation_and_read_as_values(self, info: Info, crm: Client, account):
        company = crm.rows(f"bcbi_companies?$filter=bcbi_externalid eq '{info['erp']['company_id']}'")[0]
        target = f"/bcbi_companies({company['bcbi_companyid']})"

        for name in ("bcbi_CompanyId", "bcbi_companyid"):
            bound = crm.patch(address(account), {f"{name}@odata.bind": target}, prefer="return=representation").json()
            assert company["bcbi_companyid"] == bound["_bcbi_companyid_value"]
            cleared = crm.patch(address(account), {f"{name}@odata.bind": None}, prefer="return=representation").json()
            assert cleared["_bcbi_companyid_value"] is None

    def test_an_owner_is_a_user_or_a_team(self, crm: Client, account):
        user = crm.rows("systemusers?$filter=islicensed eq true")[0]["systemuserid"]
        team = crm.rows("teams")[0]

        by_user = crm.patch(
            address(account), {"ownerid@odata.bind": f"/systemusers({user})"}, prefer="return=representation"
        ).json()
        by_team = crm.patch(
            address(account),
            {"ownerid@odata.bind": f"{crm.base}/teams({team['teamid']})"},
            prefer="return=representation",
        ).json()

        assert (user, user, None) == tuple(by_user[f"_{n}_value"] for n in ("ownerid", "owninguser", "owningteam"))
        assert (team["teamid"], None, team["teamid"]) == tuple(
            by_team[f"_{n}_value"] for n in ("ownerid", "owninguser", "owningteam")
        )
        assert team["_businessunitid_value"] == by_team["_owningbusinessunit_value"]

    def test_a_missing_or_disabled_target_is_refused(self, crm: Client, account):
        disabled = crm.rows("systemusers?$filter=isdisabled eq true")[0]["systemuserid"]

        missing = crm.patch(address(account), {"ownerid@odata.bind": f"/systemusers({uuid.uuid4()})"})

        assert (404, "0x80040217") == error_code(missing)
        assert (403, "0x80040225") == error_code(
            crm.patch(address(account), {"ownerid@odata.bind": f"/systemusers({disabled})"})
        )

    def test_a_customer_is_bound_by_the_navigation_of_its_table(self, crm: Client, account):
        body = {"lastname": "Lee", "parentcustomerid_account@odata.bind": f"/{address(account)}"}
        contact = crm.post("contacts", body, prefer='return=representation,odata.include-annotations="*"').json()

        assert account["accountid"] == contact["_parentcustomerid_value"]
        assert "account" == contact["_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"]

    def test_one_that_leads_to_several_tables_is_bound_once(self, crm: Client, account):
        """learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-navigation-properties: multi-table"""
        contact = crm.post("contacts", {"lastname": "L"}).headers["OData-EntityId"]
        binds = {
            "parentcustomerid_account@odata.bind": f"/{address(account)}",
            "parentcustomerid_contact@odata.bind": contact,
        }
        cleared = {**binds, "parentcustomerid_contact@odata.bind": None}

        assert (400, "0x80048d19") == error_code(crm.post("contacts", {"lastname": "M", **binds}))
        made = crm.post("contacts", {"lastname": "M", **cleared}, prefer="return=representation").json()
        assert account["accountid"] == made["_parentcustomerid_value"]

    def test_the_key_of_a_user_cannot_be_named(self, crm: Client):
        """Users and teams inherit from principal.

        learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-entitytypes
        """
        me = crm.get("WhoAmI").json()["UserId"]

        assert (400, "0x80060888") == error_code(crm.get(f"systemusers(systemuserid={me})"))
        assert [200, 200] == [crm.get(path).status_code for path in (f"systemusers({me})", "accounts?$top=1")]

    def test_a_reference_is_set_and_cleared_by_itself(self, crm: Client, account):
        contact = crm.post("contacts", {"lastname": "Lee"}).headers["OData-EntityId"]
        path = f"{address(account)}/primarycontactid/$ref"

        assert 204 == crm.send("PUT", path, json={"@odata.id": contact}).status_code
        assert "Lee" == crm.get(f"{address(account)}/primarycontactid").json()["lastname"]
        assert 204 == crm.delete(path).status_code
        assert crm.get(address(account)).json()["_primarycontactid_value"] is None

    def test_a_reference_without_an_address_changes_nothing(self, crm: Client, account):
        contact = crm.post("contacts", {"lastname": "C"}).headers["OData-EntityId"]
        path = f"{address(account)}/primarycontactid/$ref"
        crm.send("PUT", path, json={"@odata.id": contact})

        assert (400, "0x80048d19") == error_code(crm.send("PUT", path, json={"id": contact}))
        assert contact == crm.get(path).json()["@odata.id"]

    def test_only_a_row_of_the_collection_is_taken_from_it(self, crm: Client, account):
        other = crm.post("accounts", {"name": "Other"}).headers["OData-EntityId"]
        body = {"lastname": "C", "parentcustomerid_account@odata.bind": other}
        contact = crm.post("contacts", body).headers["OData-EntityId"]
        reference = f"contact_customer_accounts{contact[contact.index('(') :]}/$ref"

        assert (404, "0x80040217") == error_code(crm.delete(f"{address(account)}/{reference}"))
        assert crm.get(contact).json()["_parentcustomerid_value"] in other
        assert 204 == crm.delete(f"{other}/{reference}").status_code

    @pytest.mark.parametrize(
        ("method", "rest", "status"),
        [("PATCH", "", 405), ("DELETE", "", 405), ("POST", "/$ref", 405), ("PUT", "/jobtitle", 404)],
    )
    def test_what_an_empty_one_leads_to_cannot_be_written(
        self, crm: Client, account, method: str, rest: str, status: int
    ):
        path = f"{address(account)}/primarycontactid{rest}"

        assert status == crm.send(method, path, json={"value": "x"}).status_code

    def test_annotations_come_on_request(self, crm: Client):
        row = crm.get(
            "accounts?$top=1&$select=statecode,_ownerid_value&$filter=_owninguser_value ne null",
            prefer='odata.include-annotations="*"',
        ).json()["value"][0]

        assert "Active" == row["statecode@OData.Community.Display.V1.FormattedValue"]
        assert "systemuser" == row["_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"]
        assert row["_ownerid_value@OData.Community.Display.V1.FormattedValue"]


class TestQueries:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/overview"""

    def test_filter_of_the_connector_finds_active_customers_of_this_company_or_none(self, info: Info, crm: Client):
        company = crm.rows(f"bcbi_companies?$filter=bcbi_externalid eq '{info['erp']['company_id']}'")[0]
        wanted = (
            "statecode eq 0 and customertypecode eq 3 and createdby/applicationid eq null and "
            f"(_bcbi_companyid_value eq null or _bcbi_companyid_value eq {company['bcbi_companyid']})"
        )

        assert 130 == len(crm.rows("accounts", params={"$filter": wanted, "$select": "name"}))

    @pytest.mark.parametrize(
        ("filter_", "count"),
        [
            ("fullname eq 'JOHN ROBERTS'", 1),
            ("contains(fullname,'obert') or startswith(fullname,'linda')", 2),
            ("Microsoft.Dynamics.CRM.In(PropertyName='fullname',PropertyValues=['John Roberts','Linda Tate'])", 2),
            ("islicensed eq true and isdisabled eq false and isintegrationuser eq false", 16),
            ("not contains(fullname,'o') and fullname eq 'John Roberts'", 0),
            ("internalemailaddress eq 'john.roberts@harborvale.example'", 1),
            ("businessunitid/name eq 'harborvale' and fullname eq 'John Roberts'", 1),
        ],
    )
    def test_filters(self, crm: Client, filter_: str, count: int):
        assert count == len(crm.rows("systemusers", params={"$filter": filter_, "$select": "fullname"}))

    def test_pages_carry_a_cookie_and_lose_no_row(self, crm: Client):
        total = int(crm.get("accounts/$count").text)
        first = crm.get("accounts?$select=name&$orderby=name", prefer="odata.maxpagesize=40").json()

        assert "$skiptoken=%3Ccookie%20pagenumber" in first["@odata.nextLink"]
        rows = crm.rows("accounts?$select=name&$orderby=name", prefer="odata.maxpagesize=40")
        assert total == len({row["accountid"] for row in rows}) == len(rows)

    def test_top_count_and_unknown_options(self, crm: Client):
        body = crm.get("accounts?$top=3&$count=true&$select=name").json()

        assert (3, int(crm.get("accounts/$count").text)) == (len(body["value"]), body["@odata.count"])
        row = crm.get("accounts?$top=1").json()["value"][0]
        assert 400 == crm.get("accounts?$skip=3").status_code
        assert 400 == crm.get(f"{address(row)}?$skip=3").status_code
        assert 400 == crm.get("accounts?$select=nosuchcolumn").status_code
        assert 404 == crm.get("nosuchset").status_code

    def test_expand_follows_a_lookup(self, crm: Client):
        row = crm.get("accounts?$top=1&$select=name&$expand=owningbusinessunit($select=createdon)").json()["value"][0]

        assert "createdon" in row["owningbusinessunit"]


class TestChangeTracking:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems"""

    def test_begins_with_all_rows_and_a_link_on_the_last_page(self, crm: Client):
        prefer = "odata.track-changes,odata.maxpagesize=60"
        reply = crm.get("accounts?$select=name", prefer=prefer)
        pages = [reply.json()]
        while "@odata.nextLink" in pages[-1]:
            assert "@odata.deltaLink" not in pages[-1]
            pages.append(crm.get(pages[-1]["@odata.nextLink"], prefer=prefer).json())

        assert prefer == reply.headers["Preference-Applied"]
        assert "@odata.deltaLink" in pages[-1]
        assert int(crm.get("accounts/$count").text) == sum(len(page["value"]) for page in pages)

    @staticmethod
    def link(crm: Client) -> str:
        return crm.get("accounts?$select=name", prefer="odata.track-changes").json()["@odata.deltaLink"]

    def test_tells_the_present_state_of_what_changed_and_then_what_is_gone(self, crm: Client, account):
        other = crm.post("accounts", {"name": "Leaving"}).headers["OData-EntityId"]
        link = self.link(crm)
        crm.delete(other)
        crm.patch(address(account), {"name": "One"})
        crm.patch(address(account), {"name": "Two", "fax": "3"})
        brief = crm.post("accounts", {"name": "Brief"}).headers["OData-EntityId"]
        crm.delete(brief)

        body = crm.get(link).json()

        assert ["Two"] == [row["name"] for row in body["value"] if "reason" not in row]
        assert [(other[-37:-1], "deleted"), (brief[-37:-1], "deleted")] == [
            (row["id"], row["reason"]) for row in body["value"] if "reason" in row
        ]
        assert "reason" in body["value"][-1]
        assert [] == crm.get(body["@odata.deltaLink"]).json()["value"]

    def test_pages_of_a_delta_lose_nothing_that_changes_meanwhile(self, crm: Client):
        rows = [crm.post("accounts", {"name": f"P{n}"}).headers["OData-EntityId"] for n in range(5)]
        link = self.link(crm)
        for n, row in enumerate(rows):
            crm.patch(row, {"name": f"Q{n}"})
        first = crm.get(link, prefer="odata.maxpagesize=2").json()
        crm.patch(rows[4], {"name": "R4"})
        crm.delete(rows[0])

        second = crm.get(first["@odata.nextLink"], prefer="odata.maxpagesize=2").json()
        later = crm.get(second["@odata.deltaLink"]).json()

        assert (["Q0", "Q1"], ["Q2", "Q3"]) == tuple([row["name"] for row in page["value"]] for page in (first, second))
        assert ["R4", rows[0][-37:-1]] == [row.get("name", row.get("id")) for row in later["value"]]

    def test_a_change_while_the_first_rows_are_paged_is_in_the_delta(self, crm: Client):
        prefer = "odata.track-changes,odata.maxpagesize=100"
        first = crm.get("accounts?$select=name", prefer=prefer).json()
        changed = first["value"][0]["accountid"]
        crm.patch(f"accounts({changed})", {"name": "Changed while paging"})
        page = first
        while "@odata.nextLink" in page:
            page = crm.get(page["@odata.nextLink"], prefer=prefer).json()

        assert [changed] == [row["accountid"] for row in crm.get(page["@odata.deltaLink"]).json()["value"]]

    @pytest.mark.parametrize("option", ["$filter=statecode eq 0", "$orderby=name", "$top=3", "$expand=ownerid"])
    def test_allows_no_option_that_picks_rows(self, crm: Client, option: str):
        assert 400 == crm.get(f"accounts?$select=name&{option}", prefer="odata.track-changes").status_code

    def test_a_link_can_expire_and_a_new_one_is_good(self, crm: Client, control: Control):
        """Source: the sandbox itself."""
        link = self.link(crm)

        control("POST", "expire", {"what": "delta_links"})

        assert (400, "0x80044352") == error_code(crm.get(link))
        assert 200 == crm.get(self.link(crm)).status_code


class TestMetadata:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api"""

    def test_tells_lengths_and_choices_and_targets(self, crm: Client):
        base = "EntityDefinitions(LogicalName='account')"
        name = crm.get(f"{base}/Attributes(LogicalName='name')").json()
        kind = crm.get(
            f"{base}/Attributes(LogicalName='customertypecode')/Microsoft.Dynamics.CRM.PicklistAttributeMetadata"
            "?$select=LogicalName&$expand=OptionSet($select=Options),GlobalOptionSet($select=Options)"
        ).json()
        texts = crm.get(
            f"{base}/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata?$select=LogicalName,MaxLength"
        ).json()

        assert (160, "String") == (name["MaxLength"], name["AttributeType"])
        assert {3: "Customer", 11: "Vendor"}.items() <= {
            option["Value"]: option["Label"]["UserLocalizedLabel"]["Label"] for option in kind["OptionSet"]["Options"]
        }.items()
        assert {"telephone1": 50, "websiteurl": 200}.items() <= {
            row["LogicalName"]: row["MaxLength"] for row in texts["value"]
        }.items()

    def test_tells_tables(self, crm: Client):
        one = crm.get("EntityDefinitions(LogicalName='account')?$select=EntitySetName,ChangeTrackingEnabled").json()
        tracked = crm.get("EntityDefinitions?$select=LogicalName&$filter=ChangeTrackingEnabled eq true").json()["value"]

        assert ("accounts", True) == (one["EntitySetName"], one["ChangeTrackingEnabled"])
        assert {"account", "systemuser"} <= {row["LogicalName"] for row in tracked}
        assert '<EntitySet Name="accounts" EntityType="mscrm.account"/>' in crm.get("$metadata").text
