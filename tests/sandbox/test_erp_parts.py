"""What hangs on Business Central's records: pictures, PDFs, attachments, dimensions, what customers owe."""

from __future__ import annotations

import datetime as dt
import re
import struct
import uuid
import zlib

import pytest

from tests.sandbox.client import Client, Control, Info, error_code, eventually
from tests.sandbox.conftest import Receiver

BYTES = {"Content-Type": "application/octet-stream"}


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\0\0\0" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def put(erp: Client, address: str, content: bytes, tag: str | None = "*"):
    return erp.send("PATCH", address, data=content, tag=tag, headers=BYTES)


@pytest.fixture
def customer(erp: Client) -> dict:
    return erp.post("customers", {"displayName": "Mercer & Ode", "email": "buy@mercer.example"}).json()


@pytest.fixture
def item(erp: Client) -> dict:
    return erp.post("items", {"displayName": "Latch", "baseUnitOfMeasureCode": "PCS", "unitPrice": 40}).json()


@pytest.fixture
def order(erp: Client, customer, item) -> dict:
    lines = [{"itemId": item["id"], "quantity": 3}]
    return erp.post("salesOrders", {"customerId": customer["id"], "salesOrderLines": lines}).json()


@pytest.fixture(scope="module")
def values(erp: Client) -> dict[str, dict]:
    """Dimension values by code, with the code of their dimension."""
    dimensions = {row["id"]: row for row in erp.rows("dimensions")}
    return {
        row["code"]: {**row, "dimension": dimensions[row["dimensionId"]]["code"]} for row in erp.rows("dimensionValues")
    }


class TestPicture:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_picture"""

    @pytest.mark.parametrize("set_name", ["customers", "contacts", "items", "itemVariants"])
    def test_is_there_without_size_until_one_is_written(self, erp: Client, item, set_name: str):
        kind = {"customers": "Customer", "contacts": "Contact", "items": "Item", "itemVariants": "Item_x0020_Variant"}
        body = {"displayName": "Wren"} if set_name != "itemVariants" else {"itemId": item["id"], "code": "OAK"}
        row = erp.post(set_name, body).json()
        picture = erp.get(f"{set_name}({row['id']})/picture").json()
        link = f"{erp.base}/{set_name}({row['id']})/picture/pictureContent"

        assert (row["id"], kind[set_name], 0, 0, "") == tuple(
            picture[name] for name in ("id", "parentType", "width", "height", "contentType")
        )
        assert {link} == {picture[f"pictureContent@odata.media{way}Link"] for way in ("Read", "Edit")}
        assert 204 == erp.get(link).status_code

    def test_content_is_written_and_read_as_bytes(self, erp: Client, item):
        """PATCH pictureContent, If-Match required, 204.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/api/dynamics_picture_update
        """
        address, content = f"items({item['id']})/picture", png(12, 7)
        written = put(erp, f"{address}/pictureContent", content, erp.get(address).json()["@odata.etag"])
        read = erp.get(f"{address}({item['id']})/pictureContent")

        assert (204, 200, content) == (written.status_code, read.status_code, read.content)
        assert "application/octet-stream" == read.headers["Content-Type"]
        assert ("image/png", 12, 7) == tuple(
            erp.get(address).json()[name] for name in ("contentType", "width", "height")
        )

    @pytest.mark.parametrize(
        ("content", "looks"),
        [
            (b"GIF89a" + struct.pack("<HH", 5, 6) + bytes(10), ("image/gif", 5, 6)),
            (b"BM" + bytes(16) + struct.pack("<ii", 9, -4) + bytes(10), ("image/bmp", 9, 4)),
            (
                b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08\x00\x03\x00\x02" + bytes(12),
                ("image/jpeg", 2, 3),
            ),
        ],
    )
    def test_kind_and_size_are_read_from_the_bytes(self, erp: Client, item, content: bytes, looks: tuple):
        put(erp, f"items({item['id']})/picture/pictureContent", content)
        picture = erp.get(f"items({item['id']})/picture").json()

        assert looks == (picture["contentType"], picture["width"], picture["height"])

    def test_is_a_field_of_its_record(self, erp: Client, customer, receiver: Receiver):
        """A change of the picture is one of the record: another version, another time, a notification."""
        body = {"notificationUrl": receiver.url, "resource": f"/api/v2.0/{erp.base.rpartition('/')[2]}/customers"}
        subscription = erp.post(f"{erp.root}/subscriptions", body).json()
        put(erp, f"customers({customer['id']})/picture/pictureContent", png(2, 2))
        after = erp.get(f"customers({customer['id']})").json()

        assert after["@odata.etag"] != customer["@odata.etag"]
        assert after["lastModifiedDateTime"] != customer["lastModifiedDateTime"]
        assert eventually(lambda: any(customer["id"] in str(got) for _, got in receiver.got))
        erp.delete(f"{erp.root}/subscriptions('{subscription['subscriptionId']}')")

    @pytest.mark.parametrize(("tag", "status"), [(None, 400), ("stale", 409)])
    def test_is_written_only_under_its_tag(self, erp: Client, item, tag: str | None, status: int):
        stale = erp.get(f"items({item['id']})").json()["@odata.etag"]
        erp.patch(f"items({item['id']})", {"displayName": "Latch, large"}, tag="*")
        reply = put(erp, f"items({item['id']})/picture/pictureContent", png(1, 1), stale if tag else None)

        assert status == reply.status_code

    def test_is_taken_away(self, erp: Client, item):
        address = f"items({item['id']})/picture"
        put(erp, f"{address}/pictureContent", png(3, 3))

        assert 204 == erp.delete(address).status_code
        assert 0 == erp.get(address).json()["width"]

    def test_comes_with_its_record_when_asked(self, erp: Client, item):
        shown = erp.get(f"items({item['id']})?$select=number,picture&$expand=picture($select=width)").json()

        assert {"@odata.context", "@odata.etag", "number", "picture"} == set(shown)
        assert 0 == shown["picture"]["width"]

    def test_is_not_made_nor_found_without_its_record(self, erp: Client, item):
        """Text of the public source of the page (APIV2 - Pictures)."""
        assert 405 == erp.post(f"items({item['id']})/picture", {}).status_code
        for address in ("pictures", f"pictures({item['id']})"):
            reply = erp.get(address)
            assert (400, "Application_DialogException") == error_code(reply)
            assert "You must get to the parent first to get to the picture." in reply.json()["error"]["message"]

    def test_needs_the_right_to_the_record(self, info: Info, erp: Client, control: Control, item):
        rule = {"system": "erp", "app": info["erp"]["client_id"], "entity": "items", "operation": "write"}
        control("POST", "grants", {**rule, "allowed": False})
        reply = put(erp, f"items({item['id']})/picture/pictureContent", png(1, 1))
        control("POST", "grants", {**rule, "allowed": True})

        assert 403 == reply.status_code

    def test_of_the_company_is_read_only(self, erp: Client):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_companyinformation"""
        company = erp.rows("companyInformation")[0]

        assert 204 == erp.get(company["picture@odata.mediaReadLink"]).status_code
        assert 405 == put(erp, company["picture@odata.mediaEditLink"], png(1, 1)).status_code


class TestPdf:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_pdfdocument"""

    def test_of_an_order_names_it_and_its_amounts(self, erp: Client, order):
        address = f"salesOrders({order['id']})/pdfDocument"
        document = erp.get(address).json()
        content = erp.get(document["pdfDocumentContent@odata.mediaReadLink"]).content

        assert (order["id"], order["id"], "Sales_x0020_Order") == tuple(
            document[name] for name in ("id", "parentId", "parentType")
        )
        for text in (order["number"], "Mercer & Ode", "Latch", "120.00"):
            assert text.encode() in content
        assert content == erp.get(f"{address}/pdfDocumentContent").content

    def test_is_one(self, erp: Client, order):
        """ISO 32000-1: header, cross-reference table with true offsets, trailer."""
        content = erp.get(f"salesOrders({order['id']})/pdfDocument/pdfDocumentContent").content
        start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n\Z", content).group(1))
        offsets = [int(entry) for entry in re.findall(rb"(\d{10}) 00000 n", content[start:])]

        assert content.startswith(b"%PDF-1.4\n")
        assert content[start:].startswith(b"xref\n")
        assert len(offsets) == content.count(b" 0 obj\n")
        assert all(
            content[offset:].startswith(b"%d 0 obj\n" % number) for number, offset in enumerate(offsets, start=1)
        )

    def test_of_a_long_document_has_more_pages(self, erp: Client, customer, item):
        lines = [{"itemId": item["id"], "quantity": 1} for _ in range(70)]
        order = erp.post("salesOrders", {"customerId": customer["id"], "salesOrderLines": lines}).json()
        content = erp.get(f"salesOrders({order['id']})/pdfDocument/pdfDocumentContent").content

        assert b"/Count 2 " in content

    @pytest.mark.parametrize("set_name", ["salesQuotes", "salesInvoices"])
    def test_is_of_every_document(self, erp: Client, customer, item, set_name: str):
        lines = [{"itemId": item["id"], "quantity": 1}]
        row = erp.post(set_name, {"customerId": customer["id"], f"{set_name[:-1]}Lines": lines}).json()
        expanded = erp.get(f"{set_name}({row['id']})?$expand=pdfDocument").json()["pdfDocument"]

        assert row["number"].encode() in erp.get(expanded["pdfDocumentContent@odata.mediaReadLink"]).content

    def test_of_a_customer_s_contact_is_a_statement(self, erp: Client, customer, item):
        """The public source of the page (APIV2 - CustContacts): Customer Statement."""
        contact = erp.rows(f"customers({customer['id']})/contactsInformation")[0]
        body = {"displayName": "Ann Ode", "type": "Person", "companyNumber": contact["contactNumber"]}
        person = erp.post("contacts", body).json()
        lines = [{"itemId": item["id"], "quantity": 2}]
        invoice = erp.post("salesInvoices", {"customerId": customer["id"], "salesInvoiceLines": lines}).json()
        erp.post(f"salesInvoices({invoice['id']})/Microsoft.NAV.post", None)
        number = erp.get(f"salesInvoices({invoice['id']})").json()["number"]
        document = erp.get(f"customerContacts({person['id']})/pdfDocument").json()
        content = erp.get(document["pdfDocumentContent@odata.mediaReadLink"]).content

        assert "Customer_x0020_Statement" == document["parentType"]
        assert number.encode() in content
        assert b"80.00" in content

    def test_is_read_only_and_not_found_alone(self, erp: Client, order):
        address = f"salesOrders({order['id']})/pdfDocument"

        assert 405 == put(erp, f"{address}/pdfDocumentContent", b"%PDF").status_code
        assert 405 == erp.delete(address).status_code
        assert 400 == erp.get("pdfDocument").status_code


class TestAttachment:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_documentattachment
    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_attachment
    """

    @pytest.mark.parametrize("set_name", ["attachments", "documentAttachments"])
    def test_is_made_then_filled(self, erp: Client, order, set_name: str):
        body = {"parentId": order["id"], "parentType": "Sales Order", "fileName": "terms.txt"}
        made = erp.post(set_name, body)
        row = made.json()
        filled = put(erp, f"{set_name}({row['id']})/attachmentContent", b"net 30", row["@odata.etag"])
        after = erp.get(f"{set_name}({row['id']})").json()

        assert (201, 204, 0, 6) == (made.status_code, filled.status_code, row["byteSize"], after["byteSize"])
        assert b"net 30" == erp.get(after["attachmentContent@odata.mediaReadLink"]).content
        assert ("Sales_x0020_Order", "terms.txt") == (after["parentType"], after["fileName"])
        assert after["@odata.etag"] != row["@odata.etag"]

    @pytest.mark.parametrize("parent", ["customers", "items"])
    def test_may_be_at_a_customer_or_an_item(self, erp: Client, customer, item, parent: str):
        row = customer if parent == "customers" else item
        address = f"{parent}({row['id']})/documentAttachments"
        made = erp.post(address, {"fileName": "photo.png"}).json()

        assert (row["id"], parent[:-1].title()) == (made["parentId"], made["parentType"])
        assert [made["id"]] == [each["id"] for each in erp.rows(address)]
        assert 204 == erp.delete(f"{address}({made['id']})").status_code

    def test_of_a_name_that_is_none_gets_one(self, erp: Client, order):
        """The public source of the page: `filename.txt`."""
        made = erp.post("documentAttachments", {"parentId": order["id"], "fileName": "a/b"}).json()

        assert "filename.txt" == made["fileName"]

    def test_stays_where_it_is(self, erp: Client, order, customer):
        made = erp.post(f"salesOrders({order['id']})/documentAttachments", {"fileName": "a.txt"}).json()
        reply = erp.patch(f"documentAttachments({made['id']})", {"parentId": customer["id"]}, tag="*")

        assert "You cannot change the value of the key field parentId." in reply.json()["error"]["message"]

    def test_of_nothing_is_refused_or_kept_alone(self, erp: Client):
        """The public source: an attachment whose document is not found is kept unlinked."""
        body = {"parentId": str(uuid.uuid4()), "parentType": "Sales Order", "fileName": "a.txt"}
        alone = erp.post("attachments", body)

        assert 400 == erp.post("documentAttachments", body).status_code
        assert (201, "_x0020_") == (alone.status_code, alone.json()["parentType"])

    def test_goes_with_the_quote_into_the_order_and_with_the_order_away(self, erp: Client, customer, item):
        body = {"customerId": customer["id"], "salesQuoteLines": [{"itemId": item["id"], "quantity": 1}]}
        quote = erp.post("salesQuotes", body).json()
        made = erp.post(f"salesQuotes({quote['id']})/documentAttachments", {"fileName": "plan.txt"}).json()
        put(erp, f"documentAttachments({made['id']})/attachmentContent", b"plan")
        reply = erp.post(f"salesQuotes({quote['id']})/Microsoft.NAV.makeOrder", None)
        order = reply.headers["Location"].rpartition("/")[2]
        (carried,) = erp.rows(f"{order}/documentAttachments")
        content = erp.get(carried["attachmentContent@odata.mediaReadLink"]).content
        erp.delete(order)

        assert (b"plan", "Sales_x0020_Order") == (content, carried["parentType"])
        assert [404, 404] == [
            erp.get(f"documentAttachments({row_id})").status_code for row_id in (made["id"], carried["id"])
        ]


class TestDefaultDimensions:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_defaultdimension"""

    def test_are_of_a_customer_or_an_item(self, erp: Client, customer, values):
        value = values["EUROPE"]
        body = {"dimensionId": value["dimensionId"], "dimensionValueId": value["id"]}
        made = erp.post(f"customers({customer['id']})/defaultDimensions", body)
        row = made.json()

        assert (201, "Customer", "AREA", "EUROPE", "_x0020_") == (
            made.status_code,
            *(row[name] for name in ("parentType", "dimensionCode", "dimensionValueCode", "postingValidation")),
        )
        expanded = erp.get(f"customers({customer['id']})?$expand=defaultDimensions").json()
        assert [row["id"]] == [each["id"] for each in expanded["defaultDimensions"]]

    def test_are_one_for_each_dimension_with_a_value_of_it(self, erp: Client, customer, values):
        address = f"customers({customer['id']})/defaultDimensions"
        body = {"dimensionId": values["EUROPE"]["dimensionId"], "dimensionValueId": values["EUROPE"]["id"]}
        erp.post(address, body)
        second = erp.post(address, body)
        other = erp.post(address, {**body, "dimensionId": values["ADM"]["dimensionId"]})

        assert (400, "Internal_EntityWithSameKeyExists") == error_code(second)
        assert (400, "Application_DialogException") == error_code(other)

    def test_in_the_body_of_their_parent_need_the_right_to_them(self, info: Info, erp: Client, control, values):
        """learn.microsoft.com/dynamics365/business-central/dev-itpro/developer/devenv-permissionset-object"""
        body = {"dimensionId": values["EUROPE"]["dimensionId"], "dimensionValueId": values["EUROPE"]["id"]}
        name = f"Rights {uuid.uuid4()}"
        rule = {"system": "erp", "app": info["erp"]["client_id"], "entity": "defaultDimensions", "operation": "create"}
        control("POST", "grants", {**rule, "allowed": False})
        reply = erp.post("customers", {"displayName": name, "defaultDimensions": [body]})
        control("POST", "grants", {**rule, "allowed": True})

        assert (403, "Authorization_RequestDenied") == error_code(reply)
        assert [] == erp.rows(f"customers?$filter=displayName eq '{name}'")

    def test_need_a_parent(self, erp: Client, values):
        reply = erp.post("defaultDimensions", {"dimensionId": values["EUROPE"]["dimensionId"]})

        assert "You must get to the parent first" in reply.json()["error"]["message"]

    def test_keep_parent_and_dimension_and_change_their_value(self, erp: Client, customer, values):
        """Key fields cannot be modified.

        learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/api/dynamics_item_update_defaultdimensions
        """
        body = {"dimensionId": values["EUROPE"]["dimensionId"], "dimensionValueId": values["EUROPE"]["id"]}
        row = erp.post(f"customers({customer['id']})/defaultDimensions", body).json()
        address = f"defaultDimensions({row['id']})"
        moved = erp.patch(address, {"dimensionId": values["ADM"]["dimensionId"]}, tag="*")
        changed = erp.patch(address, {"dimensionValueId": values["ASIA"]["id"]}, tag=row["@odata.etag"]).json()

        assert (400, "ASIA") == (moved.status_code, changed["dimensionValueCode"])

    def test_go_with_their_parent(self, erp: Client, customer, values):
        body = {"dimensionId": values["EUROPE"]["dimensionId"], "dimensionValueId": values["EUROPE"]["id"]}
        row = erp.post(f"customers({customer['id']})/defaultDimensions", body).json()
        erp.delete(f"customers({customer['id']})")

        assert 404 == erp.get(f"defaultDimensions({row['id']})").status_code


class TestDimensionSetLines:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_dimensionsetline"""

    def test_are_added_to_a_document_by_code_or_id(self, erp: Client, order, values):
        address = f"salesOrders({order['id']})/dimensionSetLines"
        by_code = erp.post(address, {"code": "AREA", "valueCode": "ASIA"})
        department = values["SALES"]
        by_id = erp.post(address, {"id": department["dimensionId"], "valueId": department["id"]}).json()

        assert (201, values["ASIA"]["dimensionId"], "Asia") == (
            by_code.status_code,
            by_code.json()["id"],
            by_code.json()["valueDisplayName"],
        )
        assert ("DEPARTMENT", "SALES", order["id"], "Sales_x0020_Order") == tuple(
            by_id[name] for name in ("code", "valueCode", "parentId", "parentType")
        )
        assert ["AREA", "DEPARTMENT"] == [row["code"] for row in erp.rows(address)]
        assert ["AREA"] == [row["code"] for row in erp.rows(f"{address}?$filter=valueCode eq 'ASIA'")]

    def test_change_their_document(self, erp: Client, order):
        erp.post(f"salesOrders({order['id']})/dimensionSetLines", {"code": "AREA", "valueCode": "ASIA"})
        after = erp.get(f"salesOrders({order['id']})").json()

        assert after["@odata.etag"] != order["@odata.etag"]

    def test_are_the_document_s_shortcut_codes(self, erp: Client, order, values):
        address = f"salesOrders({order['id']})"
        erp.post(f"{address}/dimensionSetLines", {"code": "DEPARTMENT", "valueCode": "SALES"})
        shown = erp.get(f"{address}?$expand=dimensionValue").json()
        erp.patch(address, {"shortcutDimension1Code": "ADM", "shortcutDimension2Code": "LARGE"}, tag="*")
        lines = {row["code"]: row["valueCode"] for row in erp.rows(f"{address}/dimensionSetLines")}
        erp.patch(address, {"shortcutDimension2Code": ""}, tag="*")

        assert ("SALES", values["SALES"]["id"]) == (shown["shortcutDimension1Code"], shown["dimensionValue"]["id"])
        assert {"DEPARTMENT": "ADM", "CUSTOMERGROUP": "LARGE"} == lines
        assert ["DEPARTMENT"] == [row["code"] for row in erp.rows(f"{address}/dimensionSetLines")]

    def test_a_shortcut_code_is_a_value_of_its_dimension(self, erp: Client, order):
        reply = erp.patch(f"salesOrders({order['id']})", {"shortcutDimension1Code": "ASIA"}, tag="*")

        assert (400, "Internal_InvalidTableRelation") == error_code(reply)

    def test_are_taken_from_customer_document_and_item(self, erp: Client, customer, item, values):
        for parent, row, code in (("customers", customer, "EUROPE"), ("items", item, "SERVICE")):
            body = {"dimensionId": values[code]["dimensionId"], "dimensionValueId": values[code]["id"]}
            erp.post(f"{parent}({row['id']})/defaultDimensions", body)
        lines = [{"itemId": item["id"], "quantity": 1}]
        quote = erp.post("salesQuotes", {"customerId": customer["id"], "salesQuoteLines": lines}).json()
        (line,) = erp.rows(f"salesQuotes({quote['id']})/salesQuoteLines")
        reply = erp.post(f"salesQuotes({quote['id']})/Microsoft.NAV.makeOrder", None)
        order = reply.headers["Location"].rpartition("/")[2]

        assert ["EUROPE"] == [row["valueCode"] for row in erp.rows(f"{order}/dimensionSetLines")]
        (line,) = erp.rows(f"{order}/salesOrderLines?$expand=dimensionSetLines($orderby=code)")
        assert ["EUROPE", "SERVICE"] == [row["valueCode"] for row in line["dimensionSetLines"]]

    def test_are_nested_in_a_new_document(self, erp: Client, customer):
        body = {"customerId": customer["id"], "dimensionSetLines": [{"code": "AREA", "valueCode": "ASIA"}]}
        order = erp.post("salesOrders", body).json()

        assert ["ASIA"] == [row["valueCode"] for row in erp.rows(f"salesOrders({order['id']})/dimensionSetLines")]

    def test_of_a_line_are_its_own(self, erp: Client, order):
        (line,) = erp.rows(f"salesOrders({order['id']})/salesOrderLines")
        address = f"salesOrderLines({line['id']})/dimensionSetLines"
        made = erp.post(address, {"code": "AREA", "valueCode": "ASIA"}).json()

        assert "Sales_x0020_Order_x0020_Line" == made["parentType"]
        assert 1 == len(erp.rows(address))
        assert not erp.rows(f"salesOrders({order['id']})/dimensionSetLines")

    def test_are_changed_and_taken_away_by_the_id_of_their_dimension(self, erp: Client, order):
        address = f"salesOrders({order['id']})/dimensionSetLines"
        made = erp.post(address, {"code": "AREA", "valueCode": "ASIA"}).json()
        row = f"{address}({made['id']})"

        assert 400 == erp.patch(row, {"valueCode": "EUROPE"}).status_code
        assert "EUROPE" == erp.patch(row, {"valueCode": "EUROPE"}, tag="*").json()["valueCode"]
        assert 400 == erp.patch(row, {"code": "DEPARTMENT"}, tag="*").status_code
        assert (204, 404) == (erp.delete(row).status_code, erp.get(row).status_code)

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({"valueCode": "ASIA"}, 'The "id" or "code" field must be filled in.'),
            ({"code": "AREA"}, 'The "valueId" or "valueCode" field must be filled in.'),
            ({"code": "NOWHERE", "valueCode": "ASIA"}, 'The "code" does not match to a Dimension.'),
            ({"code": "AREA", "valueCode": "SALES"}, 'The "valueCode" does not match to a Dimension Value.'),
        ],
    )
    def test_say_what_they_lack(self, erp: Client, order, body: dict, text: str):
        """Texts of the public source of the page (APIV2 - Dimension Set Lines)."""
        reply = erp.post(f"salesOrders({order['id']})/dimensionSetLines", body)

        assert (400, True) == (reply.status_code, text in reply.json()["error"]["message"])

    def test_are_one_for_each_dimension_and_not_found_alone(self, erp: Client, order):
        address, body = f"salesOrders({order['id']})/dimensionSetLines", {"code": "AREA", "valueCode": "ASIA"}
        erp.post(address, body)

        assert "already exists" in erp.post(address, body).json()["error"]["message"]
        assert "You must get to the parent first" in erp.get("dimensionSetLines").json()["error"]["message"]


class TestReceivables:
    """learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_agedaccountsreceivable
    learn.microsoft.com/dynamics365/business-central/dev-itpro/api-reference/v2.0/resources/dynamics_customersale
    """

    def test_are_of_the_open_invoices_by_due_date(self, erp: Client, customer, item):
        today = dt.datetime.now(dt.timezone.utc).date()
        for days, quantity in ((-5, 1), (10, 2), (40, 3), (200, 4)):
            body = {"customerId": customer["id"], "salesInvoiceLines": [{"itemId": item["id"], "quantity": quantity}]}
            due = (today - dt.timedelta(days=days)).isoformat()
            invoice = erp.post("salesInvoices", {**body, "dueDate": due}).json()
            erp.post(f"salesInvoices({invoice['id']})/Microsoft.NAV.post", None)
        aged = erp.get(f"customers({customer['id']})/agedAccountsReceivable").json()

        assert (400, 40, 80, 120, 160) == tuple(
            aged[name] for name in ("balanceDue", "currentAmount", "period1Amount", "period2Amount", "period3Amount")
        )
        assert (customer["number"], "USD", "30D") == tuple(
            aged[name] for name in ("customerNumber", "currencyCode", "periodLengthFilter")
        )
        expanded = erp.get(f"customers({customer['id']})?$expand=agedAccountsReceivable").json()
        assert 400 == expanded["agedAccountsReceivable"]["balanceDue"]

    def test_have_a_sum_of_all_customers(self, erp: Client):
        rows = erp.rows("agedAccountsReceivables")
        (total,) = (row for row in rows if row["name"] == "Total")

        assert len(erp.rows("customers")) + 1 == len(rows)
        assert total["balanceDue"] == pytest.approx(sum(row["balanceDue"] for row in rows if row is not total))

    def test_what_was_sold_is_summed_up_for_each_customer(self, erp: Client, customer, item):
        lines = [{"itemId": item["id"], "quantity": 2}]
        invoice = erp.post("salesInvoices", {"customerId": customer["id"], "salesInvoiceLines": lines}).json()
        erp.post(f"salesInvoices({invoice['id']})/Microsoft.NAV.post", None)
        (sold,) = erp.rows(f"customerSales?$filter=customerId eq {customer['id']}")

        assert ("Mercer & Ode", 80) == (sold["name"], sold["totalSalesAmount"])
