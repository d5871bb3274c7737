"""Dataverse's product catalogue and notes, fact by fact; each test names the page it models.

Error codes, where a page is shortened: learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
"""

from __future__ import annotations

import uuid

import pytest

from tests.sandbox.catalogue import a_name, a_price, a_price_list, a_product, a_unit_group, key, made
from tests.sandbox.client import Client, error_code


@pytest.fixture
def units(crm: Client) -> tuple[str, str]:
    return a_unit_group(crm)


@pytest.fixture
def product(crm: Client, units) -> str:
    return a_product(crm, units)


@pytest.fixture
def price_list(crm: Client) -> str:
    return a_price_list(crm)


class TestUnits:
    def test_a_group_is_made_with_its_primary_unit(self, crm: Client, units):
        """learn.microsoft.com/dynamics365/sales/create-unit-group-add-units-that-group"""
        unit = crm.get(units[1]).json()

        assert ("Piece", True, 1, None) == tuple(
            unit[name] for name in ("name", "isschedulebaseuom", "quantity", "_baseuom_value")
        )

    def test_a_group_names_its_primary_unit(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: BaseUomNameNotSpecified"""
        assert (400, "0x80043810") == error_code(crm.post("uomschedules", {"name": a_name("Group")}))

    def test_a_unit_is_so_many_of_another(self, crm: Client, units):
        """learn.microsoft.com/dynamics365/sales/create-unit-group-add-units-that-group: base unit and quantity"""
        body = {"name": "Box", "quantity": 12, "uomscheduleid@odata.bind": f"/{units[0]}"}
        box = crm.get(made(crm, "uoms", body)).json()

        assert (12, False, key(units[1])) == (box["quantity"], box["isschedulebaseuom"], box["_baseuom_value"])

    def test_a_unit_belongs_to_a_group(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: MissingUomScheduleId"""
        assert (400, "0x80043b0a") == error_code(crm.post("uoms", {"name": "Box", "quantity": 12}))

    def test_a_unit_is_made_of_units_of_its_group(self, crm: Client, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidBaseUnit"""
        foreign = a_unit_group(crm)[1]
        body = {"name": "Box", "quantity": 12, "uomscheduleid@odata.bind": f"/{units[0]}"}

        assert (400, "0x80043b0b") == error_code(crm.post("uoms", {**body, "baseuom@odata.bind": f"/{foreign}"}))

    def test_units_make_no_loop(self, crm: Client, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: UnitLoopBeingCreated"""
        body = {"quantity": 12, "uomscheduleid@odata.bind": f"/{units[0]}"}
        box = made(crm, "uoms", {"name": "Box", **body})
        pallet = made(crm, "uoms", {"name": "Pallet", **body, "baseuom@odata.bind": f"/{box}"})

        assert (400, "0x80043b1a") == error_code(crm.patch(box, {"baseuom@odata.bind": f"/{pallet}"}))

    @pytest.mark.parametrize(
        ("body", "code"), [({"quantity": 2}, "0x80043b18"), ({"baseuom@odata.bind": "itself"}, "0x80043b17")]
    )
    def test_a_primary_unit_is_one_of_itself(self, crm: Client, units, body, code):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: QuantityReadonly, BaseUnitNotNull"""
        bound = {name: f"/{units[1]}" if value == "itself" else value for name, value in body.items()}

        assert (400, code) == error_code(crm.patch(units[1], bound))

    def test_a_primary_unit_goes_with_its_group_only(self, crm: Client, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: BaseUnitNotDeletable"""
        assert (400, "0x80043b03") == error_code(crm.delete(units[1]))
        assert 204 == crm.delete(units[0]).status_code
        assert 404 == crm.get(units[1]).status_code

    def test_a_group_in_use_stays(self, crm: Client, units, product):
        """learn.microsoft.com/dynamics365/sales/developer/entities/product: relationship of the unit group restricts"""
        assert (405, "0x80040227") == error_code(crm.delete(units[0]))


class TestProduct:
    def test_is_made_as_a_draft(self, crm: Client, units):
        """learn.microsoft.com/dynamics365/sales/publish-product-bundle-make-available-selling"""
        row = crm.get(a_product(crm, units, active=False)).json()

        assert (2, 0, 1) == (row["statecode"], row["statuscode"], row["productstructure"])

    @pytest.mark.parametrize("status", [1, 2, 3])
    def test_is_not_made_in_another_state(self, crm: Client, units, status):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidStateCodeStatusCode"""
        body = {
            "name": "N",
            "productnumber": uuid.uuid4().hex,
            "defaultuomscheduleid@odata.bind": f"/{units[0]}",
            "defaultuomid@odata.bind": f"/{units[1]}",
            "statuscode": status,
        }

        assert (400, "0x80048408") == error_code(crm.post("products", body))

    def test_its_number_is_required(self, crm: Client, units):
        """learn.microsoft.com/dynamics365/sales/developer/entities/product: ProductNumber is SystemRequired"""
        body = {
            "name": "N",
            "defaultuomscheduleid@odata.bind": f"/{units[0]}",
            "defaultuomid@odata.bind": f"/{units[1]}",
        }

        assert (400, "0x80040200") == error_code(crm.post("products", body))

    def test_its_number_is_unique(self, crm: Client, units, product):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductProductNumberExists"""
        other = a_product(crm, units, active=False)
        number = crm.get(product).json()["productnumber"]

        assert (400, "0x80043b06") == error_code(crm.patch(other, {"productnumber": number}))

    @pytest.mark.parametrize(
        ("missing", "code"), [("defaultuomscheduleid", "0x80043b0a"), ("defaultuomid", "0x80043b0d")]
    )
    def test_is_counted_in_a_unit_of_a_group(self, crm: Client, units, missing, code):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: MissingUomScheduleId, MissingUomId"""
        binds = {"defaultuomscheduleid": units[0], "defaultuomid": units[1]}
        body = {"name": "N", "productnumber": uuid.uuid4().hex}
        body |= {f"{name}@odata.bind": f"/{path}" for name, path in binds.items() if name != missing}

        assert (400, code) == error_code(crm.post("products", body))

    def test_its_unit_is_of_its_group(self, crm: Client, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductInvalidUnit"""
        draft = a_product(crm, units, active=False)
        foreign = a_unit_group(crm)[1]

        assert (400, "0x80043b14") == error_code(crm.patch(draft, {"defaultuomid@odata.bind": f"/{foreign}"}))

    def test_becomes_active_by_publishing(self, crm: Client, product):
        """learn.microsoft.com/dynamics365/sales/publish-product-bundle-make-available-selling"""
        row = crm.get(product).json()

        assert (0, 1) == (row["statecode"], row["statuscode"])

    def test_becomes_active_by_patch_too(self, crm: Client, units):
        """learn.microsoft.com/dynamics365/sales/developer/entities/product: message SetState is PATCH of the state"""
        draft = a_product(crm, units, active=False)

        assert 204 == crm.patch(draft, {"statecode": 0, "statuscode": 1}).status_code

    def test_is_published_once(self, crm: Client, product):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductFromActiveToActiveState"""
        reply = crm.post(f"{product}/Microsoft.Dynamics.CRM.PublishProductHierarchy", {})

        assert (400, "0x8004f982") == error_code(reply)

    def test_a_family_is_published_with_what_is_below_it(self, crm: Client, units):
        """learn.microsoft.com/dynamics365/sales/publish-product-bundle-make-available-selling: Publish Hierarchy"""
        body = {"name": a_name("Family"), "productnumber": uuid.uuid4().hex, "productstructure": 2}
        family = made(crm, "products", body)
        child = a_product(crm, units, active=False, **{"parentproductid@odata.bind": f"/{family}"})
        early = crm.post(f"{child}/Microsoft.Dynamics.CRM.PublishProductHierarchy", {})
        crm.post(f"{family}/Microsoft.Dynamics.CRM.PublishProductHierarchy", {})

        assert 400 == early.status_code
        assert [0, 0] == [crm.get(path).json()["statecode"] for path in (family, child)]

    def test_has_a_family_as_parent_or_none(self, crm: Client, units, product):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductOrBundleCannotBeAsParent"""
        body = {
            "name": "N",
            "productnumber": uuid.uuid4().hex,
            "defaultuomscheduleid@odata.bind": f"/{units[0]}",
            "defaultuomid@odata.bind": f"/{units[1]}",
            "parentproductid@odata.bind": f"/{product}",
        }

        assert (400, "0x8004f973") == error_code(crm.post("products", body))

    def test_once_active_it_is_not_written(self, crm: Client, product):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductCanOnlyBeUpdatedInDraft"""
        assert (400, "0x8004f995") == error_code(crm.patch(product, {"name": "Other"}))

    def test_under_revision_it_is_written_and_published_again(self, crm: Client, product):
        """learn.microsoft.com/dynamics365/sales/revise-product"""
        replies = [
            crm.patch(product, {"statecode": 3}),
            crm.patch(product, {"name": "Other"}),
            crm.post(f"{product}/Microsoft.Dynamics.CRM.PublishProductHierarchy", {}),
        ]

        assert [204, 204, 204] == [reply.status_code for reply in replies]
        assert ("Other", 0) == tuple(crm.get(product).json()[name] for name in ("name", "statecode"))

    @pytest.mark.parametrize(
        ("path", "to", "code"),
        [
            ((), 1, "0x8004f978"),
            ((), 3, "0x8004f913"),
            ((0,), 2, "0x8004f912"),
            ((0, 3), 2, "0x8004f912"),
            ((0, 1), 0, "0x8004f977"),
            ((0, 1), 2, "0x8004f979"),
            ((0, 1), 3, "0x8004f913"),
        ],
    )
    def test_goes_no_other_way(self, crm: Client, units, path, to, code):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductFrom…To…State"""
        draft = a_product(crm, units, active=False)
        for state in path:
            assert 204 == crm.patch(draft, {"statecode": state}).status_code

        assert (400, code) == error_code(crm.patch(draft, {"statecode": to}))


class TestPriceList:
    def test_is_in_a_currency_and_stays_in_it(self, crm: Client, price_list):
        """learn.microsoft.com/dynamics365/sales/developer/entities/pricelevel: TransactionCurrencyId, not for update"""
        euro = crm.rows("transactioncurrencies?$filter=isocurrencycode eq 'EUR'")[0]["transactioncurrencyid"]
        before = crm.get(price_list).json()["_transactioncurrencyid_value"]
        crm.patch(price_list, {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({euro})", "name": "X"})

        assert before == crm.get(price_list).json()["_transactioncurrencyid_value"] != euro

    def test_its_name_is_unique(self, crm: Client, price_list):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: PriceLevelNameExists"""
        name = crm.get(price_list).json()["name"]

        assert (400, "0x80043b0f") == error_code(crm.post("pricelevels", {"name": name}))

    def test_is_given_up(self, crm: Client, price_list):
        """learn.microsoft.com/dynamics365/sales/developer/entities/pricelevel: choices of StateCode and StatusCode"""
        assert (0, 100001) == tuple(crm.get(price_list).json()[name] for name in ("statecode", "statuscode"))
        crm.patch(price_list, {"statecode": 1})
        assert 100002 == crm.get(price_list).json()["statuscode"]

    def test_goes_with_what_stands_on_it(self, crm: Client, price_list, product, units):
        """learn.microsoft.com/dynamics365/sales/developer/entities/productpricelevel: price list is its parent"""
        item = a_price(crm, price_list, product, units[1])
        crm.delete(price_list)

        assert 404 == crm.get(item).status_code

    def test_lists_what_stands_on_it(self, crm: Client, price_list, product, units):
        """learn.microsoft.com/dynamics365/sales/developer/entities/pricelevel: price_level_product_price_levels"""
        item = a_price(crm, price_list, product, units[1])

        assert [key(item)] == [
            row["productpricelevelid"] for row in crm.rows(f"{price_list}/price_level_product_price_levels")
        ]


class TestPrice:
    def test_shows_what_follows_from_product_unit_and_list(self, crm: Client, price_list, product, units):
        """learn.microsoft.com/dynamics365/sales/developer/entities/productpricelevel"""
        row = crm.get(a_price(crm, price_list, product, units[1], amount=12.5)).json()

        assert (12.5, 12.5, 1, key(units[0])) == tuple(
            row[name] for name in ("amount", "amount_base", "pricingmethodcode", "_uomscheduleid_value")
        )
        assert crm.get(product).json()["productnumber"] == row["productnumber"]
        assert crm.get(price_list).json()["_transactioncurrencyid_value"] == row["_transactioncurrencyid_value"]

    def test_follows_the_number_of_its_product(self, crm: Client, price_list, units):
        """learn.microsoft.com/dynamics365/sales/developer/entities/productpricelevel: ProductNumber, read-only"""
        draft = a_product(crm, units, active=False)
        item = a_price(crm, price_list, draft, units[1])
        number = uuid.uuid4().hex
        crm.patch(draft, {"productnumber": number})

        assert number == crm.get(item).json()["productnumber"]

    def test_there_is_one_for_product_and_unit(self, crm: Client, price_list, product, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: DuplicateProductPriceLevel"""
        a_price(crm, price_list, product, units[1])
        body = {
            "pricelevelid@odata.bind": f"/{price_list}",
            "productid@odata.bind": f"/{product}",
            "uomid@odata.bind": f"/{units[1]}",
        }

        assert (400, "0x80043b08") == error_code(crm.post("productpricelevels", body))

    @pytest.mark.parametrize(
        ("missing", "code"),
        [("pricelevelid", "0x80043b12"), ("uomid", "0x80043b0d"), ("productid", "0x80040200")],
    )
    def test_names_list_product_and_unit(self, crm: Client, price_list, product, units, missing, code):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: MissingPriceLevelId, MissingUomId"""
        binds = {"pricelevelid": price_list, "productid": product, "uomid": units[1]}
        body = {f"{name}@odata.bind": f"/{path}" for name, path in binds.items() if name != missing}

        assert (400, code) == error_code(crm.post("productpricelevels", body))

    def test_is_for_a_unit_of_the_product(self, crm: Client, price_list, product):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductInvalidUnit"""
        body = {
            "pricelevelid@odata.bind": f"/{price_list}",
            "productid@odata.bind": f"/{product}",
            "uomid@odata.bind": f"/{a_unit_group(crm)[1]}",
        }

        assert (400, "0x80043b14") == error_code(crm.post("productpricelevels", body))

    def test_may_be_for_a_draft(self, crm: Client, price_list, units):
        """learn.microsoft.com/dynamics365/sales/set-up-product-catalog-walkthrough: prices come before publishing"""
        item = a_price(crm, price_list, a_product(crm, units, active=False), units[1])

        assert 200 == crm.get(item).status_code

    def test_is_not_for_a_retired_product(self, crm: Client, price_list, product, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: CannotAddRetiredProductToPricelist"""
        crm.patch(product, {"statecode": 1})
        body = {
            "pricelevelid@odata.bind": f"/{price_list}",
            "productid@odata.bind": f"/{product}",
            "uomid@odata.bind": f"/{units[1]}",
        }

        assert (400, "0x80061009") == error_code(crm.post("productpricelevels", body))

    def test_is_not_for_a_family(self, crm: Client, price_list, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: CannotAddPricelistToProductFamily"""
        body = {"name": a_name("Family"), "productnumber": uuid.uuid4().hex, "productstructure": 2}
        family = made(crm, "products", body)
        reply = crm.post(
            "productpricelevels",
            {
                "pricelevelid@odata.bind": f"/{price_list}",
                "productid@odata.bind": f"/{family}",
                "uomid@odata.bind": f"/{units[1]}",
            },
        )

        assert (400, "0x8004f902") == error_code(reply)

    def test_its_percentage_has_an_end(self, crm: Client, price_list, product, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: ProductInvalidPriceLevelPercentage"""
        item = a_price(crm, price_list, product, units[1])

        assert (400, "0x80043b0c") == error_code(crm.patch(item, {"pricingmethodcode": 2, "percentage": 100_000}))

    def test_a_percentage_is_of_prices_in_its_currency(self, crm: Client, product, units):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes: InvalidPriceLevelCurrencyForPricingMethod"""
        euro = crm.rows("transactioncurrencies?$filter=isocurrencycode eq 'EUR'")[0]["transactioncurrencyid"]
        price_list = a_price_list(crm, **{"transactioncurrencyid@odata.bind": f"/transactioncurrencies({euro})"})
        item = a_price(crm, price_list, product, units[1])

        assert (400, "0x80048cf9") == error_code(crm.patch(item, {"pricingmethodcode": 2, "percentage": 50}))

    def test_its_table_takes_no_bulk_messages(self, crm: Client):
        """learn.microsoft.com/dynamics365/sales/developer/entities/productpricelevel: messages, without CreateMultiple"""
        target = {"@odata.type": "Microsoft.Dynamics.CRM.productpricelevel"}
        reply = crm.post("productpricelevels/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": [target]})

        assert (400, "0x80040800") == error_code(reply)


class TestNote:
    @pytest.mark.parametrize(
        ("set_name", "collection"), [("accounts", "Account_Annotation"), ("products", "Product_Annotation")]
    )
    def test_is_of_one_row_of_one_of_many_tables(self, crm: Client, product, set_name, collection):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/annotation: ObjectId"""
        parent = product if set_name == "products" else made(crm, "accounts", {"name": a_name("Account")})
        table = set_name[:-1]
        body = {"subject": "S", "notetext": "T", f"objectid_{table}@odata.bind": f"/{parent}"}
        note = crm.get(made(crm, "annotations", body), prefer='odata.include-annotations="*"').json()

        assert (key(parent), table) == (
            note["_objectid_value"],
            note["_objectid_value@Microsoft.Dynamics.CRM.lookuplogicalname"],
        )
        assert [note["annotationid"]] == [row["annotationid"] for row in crm.rows(f"{parent}/{collection}")]

    def test_goes_with_what_it_is_of(self, crm: Client):
        """learn.microsoft.com/power-apps/developer/data-platform/reference/entities/annotation: Account_Annotation"""
        account = made(crm, "accounts", {"name": a_name("Account")})
        note = made(crm, "annotations", {"subject": "S", "objectid_account@odata.bind": f"/{account}"})
        crm.delete(account)

        assert 404 == crm.get(note).status_code


class TestDescription:
    @pytest.mark.parametrize(
        ("table", "set_name", "id_", "name"),
        [
            ("uomschedule", "uomschedules", "uomscheduleid", "name"),
            ("uom", "uoms", "uomid", "name"),
            ("product", "products", "productid", "name"),
            ("pricelevel", "pricelevels", "pricelevelid", "name"),
            ("productpricelevel", "productpricelevels", "productpricelevelid", "productid"),
            ("annotation", "annotations", "annotationid", "subject"),
        ],
    )
    def test_names_set_id_and_name(self, crm: Client, table, set_name, id_, name):
        """learn.microsoft.com/dynamics365/sales/developer/about-entity-reference: properties of each table"""
        row = crm.get(f"EntityDefinitions(LogicalName='{table}')").json()

        assert (set_name, id_, name) == tuple(
            row[what] for what in ("EntitySetName", "PrimaryIdAttribute", "PrimaryNameAttribute")
        )
