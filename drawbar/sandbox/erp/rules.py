"""Which sets of Business Central have rules of their own, and the rules that need no module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from drawbar.sandbox.erp.amounts import money, plain
from drawbar.sandbox.erp.automation import AutomationCompanyRules
from drawbar.sandbox.erp.contacts import ContactInformationRules, ContactRules, CustomerContactRules, PartnerRules
from drawbar.sandbox.erp.dimensions import DefaultDimensionRules, DimensionSetLineRules
from drawbar.sandbox.erp.documents_pdf import PdfDocumentRules
from drawbar.sandbox.erp.model import ErpError, is_subscribable
from drawbar.sandbox.erp.opportunities import OpportunityRules
from drawbar.sandbox.erp.parts import AttachmentRules
from drawbar.sandbox.erp.payments import CustomerPaymentRules, JournalLineRules, JournalRules, PaymentJournalRules
from drawbar.sandbox.erp.pictures import PictureRules
from drawbar.sandbox.erp.prices import PriceListLineRules, PriceListRules
from drawbar.sandbox.erp.receivables import AgedPayableRules, AgedReceivableRules, CustomerSalesRules, open_invoices
from drawbar.sandbox.erp.records import ErpRecords, SetRules
from drawbar.sandbox.erp.sales import (
    DOCUMENTS,
    DocumentLineRules,
    DocumentRules,
    ItemRules,
    ItemVariantRules,
    refuse_with_documents,
)
from drawbar.sandbox.erp.units import OWNERS, ResourceRules, UnitGroupRules, UnitOfOwnerRules
from drawbar.sandbox.store import Stored, Values


class FinancialDetailRules(SetRules):
    def view(self, records: ErpRecords, company: str, stored: Stored) -> Stored:
        customer = stored.values
        due = [row for row in open_invoices(records, company, customer["id"]) if row["dueDate"] < records.now[:10]]
        return Stored(
            {
                "id": customer["id"],
                "number": customer["number"],
                "balance": customer["balanceDue"],
                "totalSalesExcludingTax": customer.get("totalSalesExcludingTax", 0),
                "overdueAmount": plain(sum((money(row["remainingAmount"]) for row in due), Decimal(0))),
                "lastModifiedDateTime": customer["lastModifiedDateTime"],
            },
            stored.version,
        )


class CurrencyRules(SetRules):
    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """Its exchange rates go with a currency."""
        if before is None or after is not None:
            return
        for rate_id, rate in list(records.rows(company, "currencyExchangeRates").items()):
            if rate.values["currencyCode"] == before["code"]:
                records.remove(company, "currencyExchangeRates", rate_id, app=app)


class EmployeeRules(SetRules):
    def assign(self, records: ErpRecords, company: str, row: Values, name: str, value: Any) -> None:  # noqa: ARG002
        """There are no statistics groups, so that none can be named."""
        if name == "statisticsGroupCode" and value:
            raise ErpError(
                400,
                "Internal_InvalidTableRelation",
                f"The field Statistics Group Code of table Employee contains a value ({value})"
                " that cannot be found in the related table (Employee Statistics Group).",
            )
        row[name] = value

    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:  # noqa: ARG002
        row["displayName"] = f"{row['givenName']} {row['surname']}"


class TaxAreaRules(SetRules):
    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """Customers look its name up: what they show moves, and nothing else of theirs."""
        if before is None or (after or {}).get("displayName") == before["displayName"]:
            return
        for row_id in records.store.table(f"{company}/customers").having("taxAreaId", before["id"]):
            customer = records.rows(company, "customers")[row_id].values
            row = {**customer, "taxAreaDisplayName": (after or {}).get("displayName", "")}
            records.store.put(f"{company}/customers", row_id, row, note=app, silent=True)


class TradingCustomerRules(PartnerRules):
    def settle(self, records: ErpRecords, company: str, row: Values, before: Values | None) -> None:
        super().settle(records, company, row, before)
        area = records.rows(company, "taxAreas").get(row["taxAreaId"])
        row["taxAreaDisplayName"] = area.values["displayName"] if area is not None else ""

    def after(self, records: ErpRecords, company: str, before: Values | None, after: Values | None, app: str) -> None:
        """A customer with documents stays."""
        if before is not None and after is None:
            refuse_with_documents(records, company, before)
        super().after(records, company, before, after, app)


class SupportedResourceRules(SetRules):
    def implied(self, records: ErpRecords, company: str) -> Iterable[Stored]:  # noqa: ARG002
        """What can be subscribed, by route and set."""
        for entity_set in records.sets.values():
            if is_subscribable(entity_set, records.switches["erp_webhook_sets"]):
                yield Stored({"resource": f"{entity_set.route}/{entity_set.name}"}, 0)


RULES: Mapping[str, SetRules] = {
    "agedAccountsReceivables": AgedReceivableRules(),
    "automationCompanies": AutomationCompanyRules(),
    "agedAccountsPayables": AgedPayableRules(),
    "attachments": AttachmentRules("attachments", strict=False),
    "contacts": ContactRules(),
    "contactsInformation": ContactInformationRules(),
    "currencies": CurrencyRules(),
    "customerContacts": CustomerContactRules(),
    "customerFinancialDetails": FinancialDetailRules(),
    "customerPaymentJournals": PaymentJournalRules(),
    "customerPayments": CustomerPaymentRules(),
    "customerSales": CustomerSalesRules(),
    "customers": TradingCustomerRules(),
    "defaultDimensions": DefaultDimensionRules(),
    "dimensionSetLines": DimensionSetLineRules(),
    "documentAttachments": AttachmentRules("documentAttachments", strict=True),
    "employees": EmployeeRules(),
    "itemVariants": ItemVariantRules(),
    "items": ItemRules(),
    "journalLines": JournalLineRules(),
    "journals": JournalRules(),
    "opportunities": OpportunityRules(),
    "pdfDocument": PdfDocumentRules(),
    "pictures": PictureRules(),
    "priceListLines": PriceListLineRules(),
    "priceLists": PriceListRules(),
    "resources": ResourceRules(),
    "taxAreas": TaxAreaRules(),
    "unitGroups": UnitGroupRules(),
    "vendors": PartnerRules(),
    "webhookSupportedResources": SupportedResourceRules(),
    **{set_name: UnitOfOwnerRules(set_name) for set_name in OWNERS},
    **{kind.set: DocumentRules(kind.set) for kind in DOCUMENTS.values()},
    **{kind.lines: DocumentLineRules(kind.lines) for kind in DOCUMENTS.values()},
}
