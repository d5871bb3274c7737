"""Dataverse's contacts, fact by fact."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.sandbox.client import Client, Control, Info, error_code


@pytest.fixture
def account(crm: Client) -> str:
    return crm.post("accounts", {"name": "Corliss & Pike"}).headers["OData-EntityId"]


@pytest.fixture
def contact(crm: Client, account) -> str:
    body = {"firstname": "Nia", "lastname": "Pike", "parentcustomerid_account@odata.bind": account}
    return crm.post("contacts", body).headers["OData-EntityId"]


def key(address: str) -> str:
    return address[address.index("(") + 1 : -1]


class TestFullName:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact"""

    @pytest.fixture
    def switched(self, control: Control) -> Iterator[Callable[[str], None]]:
        yield lambda order: control("POST", "switches", {"full_name": order})
        control("POST", "switches", {"full_name": "first_middle_last"})

    @pytest.mark.parametrize(
        ("order", "name"),
        [("first_middle_last", "Nia J. Pike"), ("first_last", "Nia Pike"), ("last_first", "Pike, Nia")],
    )
    def test_is_made_of_the_parts_as_the_organization_orders_them(self, crm: Client, switched, order, name):
        switched(order)
        body = {"firstname": "Nia", "middlename": "J.", "lastname": "Pike"}

        assert name == crm.post("contacts", body, prefer="return=representation").json()["fullname"]

    def test_needs_no_more_than_one_part(self, crm: Client):
        row = crm.post("contacts", {"lastname": "Teller"}, prefer="return=representation").json()

        assert (None, "Teller") == (row["firstname"], row["fullname"])

    def test_cannot_be_written_and_follows(self, crm: Client, contact):
        crm.patch(contact, {"fullname": "Somebody Else", "firstname": "Mia"})

        assert "Mia Pike" == crm.get(contact).json()["fullname"]


class TestParent:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact"""

    def test_is_an_account_or_a_contact_never_both(self, crm: Client, account, contact):
        other = crm.post("contacts", {"lastname": "Lee"}).headers["OData-EntityId"]
        first = crm.get(contact).json()
        crm.patch(contact, {"parentcustomerid_contact@odata.bind": other})
        second = crm.get(contact).json()
        crm.patch(contact, {"parentcustomerid_contact@odata.bind": None})
        third = crm.get(contact).json()

        names = ("_parentcustomerid_value", "_accountid_value", "_parentcontactid_value")
        assert (key(account), key(account), None) == tuple(first[name] for name in names)
        assert (key(other), None, key(other)) == tuple(second[name] for name in names)
        assert (None, None, None) == tuple(third[name] for name in names)

    def test_is_filtered_by_its_kind(self, crm: Client, account, contact):
        """The mirror says which kind of parent it is."""
        query = f"contacts?$filter=_parentcustomerid_value eq {key(account)} and _accountid_value ne null"

        assert [key(contact)] == [row["contactid"] for row in crm.rows(query)]

    def test_takes_its_contacts_with_it(self, crm: Client, account, contact):
        assert 204 == crm.delete(account).status_code

        assert (404, "0x80040217") == error_code(crm.get(contact))


class TestPrimaryContact:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api"""

    def test_of_an_account_is_bound_expanded_and_emptied_when_it_goes(self, crm: Client, account, contact):
        crm.patch(account, {"primarycontactid@odata.bind": contact})
        expanded = crm.get(f"{account}?$select=name&$expand=primarycontactid($select=fullname)").json()
        crm.delete(contact)

        assert "Nia Pike" == expanded["primarycontactid"]["fullname"]
        assert crm.get(account).json()["_primarycontactid_value"] is None


class TestCollection:
    """`contact_customer_accounts`: an account's contacts.

    Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api
    """

    @pytest.fixture
    def path(self, account) -> str:
        return f"{account}/contact_customer_accounts"

    def test_is_listed_counted_filtered_and_paged(self, crm: Client, path, contact):
        second = crm.post(path, {"lastname": "Lee"}).headers["OData-EntityId"]

        assert {key(contact), key(second)} == {row["contactid"] for row in crm.rows(path)}
        assert "2" == crm.get(f"{path}/$count").text
        assert [key(second)] == [row["contactid"] for row in crm.rows(f"{path}?$filter=lastname eq 'Lee'")]
        assert 2 == len(crm.rows(path, prefer="odata.maxpagesize=1"))

    def test_is_expanded(self, crm: Client, account, path, contact):
        crm.post(path, {"lastname": "Lee"})
        query = "$select=name&$expand=contact_customer_accounts($select=lastname;$orderby=lastname desc;$top=1)"

        row = crm.get(f"{account}?{query}").json()

        assert ["Pike"] == [child["lastname"] for child in row["contact_customer_accounts"]]

    def test_is_joined_and_left(self, crm: Client, account, path, contact):
        other = crm.post("contacts", {"lastname": "Lee"}).headers["OData-EntityId"]
        joined = crm.post(f"{path}/$ref", {"@odata.id": other})
        first = crm.delete(f"{path}({key(contact)})/$ref")
        second = crm.delete(f"{path}/$ref", params={"$id": other})

        assert [204, 204, 204] == [reply.status_code for reply in (joined, first, second)]
        assert [] == crm.rows(path)
        assert crm.get(other).json()["_parentcustomerid_value"] is None

    def test_is_described(self, crm: Client):
        relations = crm.rows("EntityDefinitions(LogicalName='account')/OneToManyRelationships")

        assert ("contact", "parentcustomerid") in {
            (r["ReferencingEntity"], r["ReferencingAttribute"]) for r in relations
        }
        assert 'Name="contact_customer_accounts" Type="Collection(mscrm.contact)"' in crm.get("$metadata").text


class TestDescription:
    """Source: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api"""

    def test_names_types_lengths_and_targets(self, crm: Client):
        base = "EntityDefinitions(LogicalName='contact')"
        strings = crm.get(
            f"{base}/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata?$select=LogicalName,MaxLength"
        )
        lengths = {row["LogicalName"]: row["MaxLength"] for row in strings.json()["value"]}
        parent = crm.get(f"{base}/Attributes(LogicalName='parentcustomerid')").json()

        assert (50, 50, 50, 160, 100) == tuple(
            lengths[name] for name in ("firstname", "middlename", "lastname", "fullname", "emailaddress1")
        )
        assert ("Customer", ["account", "contact"]) == (parent["AttributeType"], parent["Targets"])
        assert crm.get(base).json()["ChangeTrackingEnabled"] is True

    def test_changes_are_tracked(self, crm: Client, contact):
        link = crm.get("contacts?$select=fullname", prefer="odata.track-changes").json()["@odata.deltaLink"]
        crm.patch(contact, {"lastname": "Lee"})
        changed = crm.get(link).json()
        crm.delete(contact)
        gone = crm.get(changed["@odata.deltaLink"]).json()

        assert ["Nia Lee"] == [row["fullname"] for row in changed["value"]]
        assert [key(contact)] == [row["id"] for row in gone["value"]]

    def test_rights_are_named_after_the_table(self, info: Info, control: Control, crm: Client):
        grants = [
            {"system": "crm", "app": info["crm"]["client_id"], "entity": entity}
            for entity in ("contact", "transactioncurrency")
        ]
        for grant in grants:
            control("POST", "grants", {**grant, "allowed": False})
        texts = [crm.get(path).json()["error"]["message"] for path in ("contacts", "transactioncurrencies")]
        for grant in grants:
            control("POST", "grants", {**grant, "allowed": True})

        assert "prvReadContact privilege" in texts[0]
        assert "prvReadTransactionCurrency privilege" in texts[1]
