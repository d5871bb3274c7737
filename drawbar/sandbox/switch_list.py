"""The open questions about the two services, as data: what may be so or otherwise, and the page that does not say.

Each is a fact of the wire that nobody could confirm, or a set-up of a company; docs/sandbox-business-central.md and
docs/sandbox-dataverse.md have a row for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drawbar.sandbox.switch import Answer, Switch

_ERP = "learn.microsoft.com/dynamics365/business-central/dev-itpro"
_CRM = "learn.microsoft.com/power-apps/developer/data-platform"
UNDOCUMENTED = "not documented"


def _template(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError
    return dict(given)


def _rates(given: Any) -> dict[str, float]:
    rates = {str(code): float(rate) for code, rate in _template(given).items()}
    if not all(0 <= rate <= 100 for rate in rates.values()):
        raise ValueError
    return rates


def _open(name: str, system: str, question: str, does: Mapping[Answer, str], left_open: str = UNDOCUMENTED) -> Switch:
    return Switch(name=name, system=system, question=question, does=does, left_open=left_open)


_SETUP = (
    _open(
        "post_codes",
        "erp",
        "Does validation of post code or city fill the address?",
        {True: "yes, when the post code table has one match", False: "only what was sent is written"},
    ),
    Switch(
        name="customer_template",
        system="erp",
        question="What does a template fill in where a POST of a customer says nothing?",
        does={},
        left_open=f"{_ERP}/api-reference/v2.0/api/dynamics_customer_create",
        initial={},
        read=_template,
        takes="an object of fields and values",
    ),
    Switch(
        name="tax_rates",
        system="erp",
        question="How many percent is the tax of a `taxCode`?",
        does={},
        left_open=f"{_ERP}/api-reference/v2.0/resources/dynamics_salesorderline",
        initial={"TAXABLE": 5.0},
        read=_rates,
        takes="an object of codes and percentages, 0 to 100",
    ),
    _open(
        "full_name",
        "crm",
        "Of which parts is `fullname` made?",
        {
            "first_middle_last": "first, middle, last name",
            "first_last": "first, last name",
            "last_first": "last name, a comma, first name",
        },
        "learn.microsoft.com/power-platform/admin/system-settings-dialog-box-general-tab",
    ),
)

_STATUSES_AND_CODES = (
    _open(
        "erp_duplicate_key_status",
        "erp",
        "Status of `Internal_EntityWithSameKeyExists`?",
        {400: "as seen in traces", 409: "as reported elsewhere"},
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_stale_etag_status",
        "erp",
        "Status of a stale ETag, `Request_EntityChanged`?",
        {409: "as documented", 412: "as reported elsewhere"},
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_missing_record_code",
        "erp",
        "Code of the 404 of a record that no id names?",
        {
            "BadRequest_ResourceNotFound": "as of an address that leads nowhere",
            "Internal_RecordNotFound": "as of a record that business code misses",
        },
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_bad_key_status",
        "erp",
        "Status of a key in an address that is no id, `BadRequest_NotFound`?",
        {400: "a bad request", 404: "not found"},
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_unknown_company_status",
        "erp",
        "Status of `Internal_CompanyNotFound`?",
        {404: "not found", 400: "a bad request"},
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_unknown_action",
        "erp",
        "What answers an action that there is not?",
        {
            "404 BadRequest_NotFound": "a resource that is not found",
            "501 BadRequest_MethodNotImplemented": "a method that is not implemented",
        },
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_missing_right_status",
        "erp",
        "Status of a missing right, `Authorization_RequestDenied`?",
        {403: "forbidden", 401: "unauthorized"},
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_unknown_application_status",
        "erp",
        "Status of a good token of an application that is not set up?",
        {401: "unauthorized", 403: "forbidden"},
        f"{_ERP}/webservices/dynamics-error-codes",
    ),
    _open(
        "erp_429_code",
        "erp",
        "Code of a 429?",
        {"Application_TooManyRequests": "of its own", "Unknown": "that of what has none"},
        f"{_ERP}/administration/operational-limits-online",
    ),
    _open(
        "erp_batch_too_long_status",
        "erp",
        "Status of a `$batch` of more than 100?",
        {500: "as seen in traces", 400: "a bad request"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "crm_expired_delta_status",
        "crm",
        "Status of an expired delta link, `0x80044352`?",
        {400: "a bad request", 410: "gone"},
        f"{_CRM}/use-change-tracking-synchronize-data-external-systems",
    ),
    _open(
        "crm_not_a_member_status",
        "crm",
        "Status of an application without a user, `0x80072560`?",
        {403: "forbidden", 401: "unauthorized"},
        f"{_CRM}/reference/web-service-error-codes",
    ),
    _open(
        "crm_disabled_owner_status",
        "crm",
        "Status of an owner who is disabled, `0x80040225`?",
        {403: "forbidden", 400: "a bad request"},
        f"{_CRM}/reference/web-service-error-codes",
    ),
    _open(
        "crm_delete_blocked_status",
        "crm",
        "Status of a delete that another row forbids, `0x80040227`?",
        {405: "as the table of status codes has it", 400: "a bad request"},
        f"{_CRM}/webapi/compose-http-requests-handle-errors",
    ),
    _open(
        "crm_currency_code_status",
        "crm",
        "Status of a currency code that another currency has, `0x80048cf3`?",
        {400: "a bad request", 412: "a condition that fails, as of other keys"},
        f"{_CRM}/reference/web-service-error-codes",
    ),
    _open(
        "crm_taken_answer",
        "crm",
        "What answers an id or a number that another row has?",
        {
            "412 0x80040237": "a duplicate record",
            "412 0x80073002": "the unique index of the database",
            "400 0x80073002": "the same, as a bad request",
        },
        f"{_CRM}/reference/web-service-error-codes",
    ),
    _open(
        "crm_create_only_code",
        "crm",
        "Code of the 412 of `If-None-Match: *` for a row that is there?",
        {"0x80040237": "a duplicate record", "0x80060882": "a version that does not match"},
        f"{_CRM}/webapi/perform-conditional-operations-using-web-api",
    ),
    _open(
        "crm_unknown_resource_code",
        "crm",
        "Code of the 404 of an address that leads nowhere?",
        {"0x80060888": "as seen in traces of 2025", "0x8006088a": "as seen in older ones"},
        f"{_CRM}/reference/web-service-error-codes",
    ),
    _open(
        "crm_error_code_empty",
        "crm",
        "Which errors have an empty code?",
        {
            "never": "every error has one",
            "conditional": "those of conditions, 412",
            "always": "all, as in older builds",
        },
        f"{_CRM}/webapi/compose-http-requests-handle-errors",
    ),
)

_ERP_SHAPES = (
    _open(
        "erp_challenge_header",
        "erp",
        "Does a 401 bear `WWW-Authenticate`?",
        {True: "yes", False: "no"},
    ),
    _open(
        "erp_retry_after_on_429",
        "erp",
        "Does a 429 bear `Retry-After`?",
        {"none": "no", "seconds": "the seconds until the limit allows another"},
        f"{_ERP}/administration/operational-limits-online",
    ),
    _open(
        "erp_location_header",
        "erp",
        "Does the answer to a create bear `Location`?",
        {True: "yes", False: "no"},
    ),
    _open(
        "erp_action_location_header",
        "erp",
        "Does an action say by `Location` where the document is that it made?",
        {True: "yes", False: "no"},
        f"{_ERP}/developer/devenv-creating-and-interacting-with-odatav4-bound-action",
    ),
    _open(
        "erp_etag_header",
        "erp",
        "Does the answer of one entity bear `ETag`?",
        {True: "yes", False: "no, only `@odata.etag`"},
    ),
    _open(
        "erp_etag_form",
        "erp",
        "What is inside an ETag?",
        {"newer": "`'20;` and the row version", "older": "`'44;` and a hash"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "erp_next_link",
        "erp",
        "How does a `nextLink` go on?",
        {"aid_and_skiptoken": "`aid=FIN&$skiptoken=…`", "skiptoken": "`$skiptoken=…`"},
        f"{_ERP}/webservices/server-driven-paging-in-odata-web-services",
    ),
)

_ERP_BEHAVIOUR = (
    _open(
        "erp_null_resets",
        "erp",
        "What does `null` in a body do to a field?",
        {"yes": "resets it to its empty value", "no": "leaves it alone", "refused": "400 `BadRequest`"},
    ),
    _open(
        "erp_validation_order",
        "erp",
        "In which order are the fields of a body validated?",
        {"as_sent": "that of the body", "as_declared": "that of the page"},
    ),
    _open(
        "erp_return_no_content",
        "erp",
        "Is `Prefer: return-no-content` honoured?",
        {True: "204 without a body", False: "201 with the entity"},
    ),
    _open(
        "erp_deep_insert_echoes",
        "erp",
        "Does the answer of a POST show the entities nested in it?",
        {False: "only with `$expand`", True: "yes"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "erp_expand_options",
        "erp",
        "Which options are taken inside `$expand`?",
        {"all": "`$filter`, `$orderby`, `$top` too", "select_and_expand": "`$select`, `$expand`; others: 400"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "erp_company_by_name_in_query",
        "erp",
        "Does `?company=` take a name?",
        {True: "an id or a name", False: "an id"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "erp_action_names_any_case",
        "erp",
        "Are names of actions matched without regard to letter case?",
        {True: "yes", False: "no"},
    ),
    _open(
        "erp_delete_without_if_match",
        "erp",
        "Is a DELETE without `If-Match` taken?",
        {True: "yes", False: "400 `BadRequest_InvalidToken`"},
        f"{_ERP}/api-reference/v2.0/api/dynamics_customer_delete",
    ),
    _open(
        "erp_batch_counts",
        "erp",
        "How does a `$batch` count against the rate limit?",
        {"once": "as one request", "each": "as many as are in it"},
        f"{_ERP}/administration/operational-limits-online",
    ),
    _open(
        "erp_batch_stops_at_failure",
        "erp",
        "Does a `$batch` without `odata.continue-on-error` stop at a failure?",
        {True: "yes, the rest has no response", False: "no"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "erp_batch_groups",
        "erp",
        "What of `atomicityGroup` and `dependsOn` in a `$batch`?",
        {"ignored": "ignored", "refused": "400 `BadRequest`"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "erp_snapshot_first_failure",
        "erp",
        "What responses has a snapshot batch of which the first request failed?",
        {"alone": "that of the first", "all": "those of all"},
        f"{_ERP}/developer/devenv-connect-apps-tips",
    ),
    _open(
        "erp_handshake_verb",
        "erp",
        "By which verb is a notification address asked for its token?",
        {"POST": "`POST`", "GET": "`GET`"},
        f"{_ERP}/api-reference/v2.0/dynamics-subscriptions",
    ),
    _open(
        "erp_subscribe_twice",
        "erp",
        "What if there is a subscription of the same resource and address?",
        {"refused": "400 `BadRequest`", "accepted": "another one is made"},
        f"{_ERP}/api-reference/v2.0/dynamics-subscriptions",
    ),
    _open(
        "erp_webhook_sets",
        "erp",
        "Which sets can be subscribed?",
        {
            "by_rule": "those that fit the rule, `contacts` and `salespeoplePurchasers` among them",
            "documented": "of the standard API those that are listed, without these",
        },
        f"{_ERP}/api-reference/v2.0/dynamics-subscriptions",
    ),
    _open(
        "erp_contact_type",
        "erp",
        "Of which `type` is a contact whose POST says none?",
        {"Company": "a company", "Person": "a person"},
        f"{_ERP}/api-reference/v2.0/resources/dynamics_contact",
    ),
    _open(
        "erp_customer_contact_type",
        "erp",
        "Of which `type` is the contact of a customer?",
        {"customer": "the customer's own", "Company": "always a company"},
        f"{_ERP}/api-reference/v2.0/resources/dynamics_contact",
    ),
    _open(
        "erp_posted_due_date",
        "erp",
        "Can `dueDate` of a posted invoice be written?",
        {"refused": "no, nothing of it", "written": "yes, it alone"},
        f"{_ERP}/api-reference/v2.0/api/dynamics_salesinvoice_update",
    ),
    _open(
        "erp_opportunity_delete",
        "erp",
        "Which opportunities can be deleted?",
        {"not_in_progress": "those not in progress", "closed": "those won or lost"},
        f"{_ERP}/api-reference/v2.0/api/dynamics_opportunity_delete",
    ),
)

_CRM_BEHAVIOUR = (
    _open(
        "crm_etag_header",
        "crm",
        "Does the answer of one row bear `ETag`?",
        {True: "yes", False: "no, only `@odata.etag`"},
        f"{_CRM}/webapi/perform-conditional-operations-using-web-api",
    ),
    _open(
        "crm_date_columns",
        "crm",
        "Of which type are columns of a date?",
        {"Edm.Date": "a date", "Edm.DateTimeOffset": "its midnight"},
        f"{_CRM}/behavior-format-date-time-attribute",
    ),
    _open(
        "crm_repeated_targets",
        "crm",
        "What if `UpdateMultiple` has one row twice?",
        {"in_order": "applied in order", "refused": "as `UpsertMultiple` does"},
        f"{_CRM}/bulk-operations",
    ),
    _open(
        "crm_read_only_columns",
        "crm",
        "What if a body has a read-only column?",
        {"ignored": "it is ignored", "refused": "400 `0x80048d19`"},
        f"{_CRM}/webapi/create-entity-web-api",
    ),
    _open(
        "crm_equal_values_move",
        "crm",
        "Does a PATCH with equal values make a new version?",
        {True: "yes", False: "no, and nobody is told"},
        f"{_CRM}/webapi/update-delete-entities-using-web-api",
    ),
    _open(
        "crm_keys_per_table",
        "crm",
        "How many alternate keys can a table have?",
        {10: "as in current releases", 5: "as in older ones"},
        f"{_CRM}/define-alternate-keys-entity",
    ),
    _open(
        "crm_key_index",
        "crm",
        "When is the index of a new alternate key built?",
        {"at_once": "with the key", "in_background": "`Pending` for 2 seconds"},
        f"{_CRM}/define-alternate-keys-entity",
    ),
    _open(
        "crm_key_characters",
        "crm",
        "Are characters such as `/`, `&`, `+` taken in the value of an alternate key in an address?",
        {"taken": "yes, percent-encoded", "refused": "400 `0x80060888`"},
        f"{_CRM}/define-alternate-keys-entity",
    ),
    _open(
        "crm_price_list_names",
        "crm",
        "Are names of price lists unique?",
        {"unique": "yes, 400 `0x80043b0f`", "free": "no"},
        f"{_CRM}/reference/entities/pricelevel",
    ),
    _open(
        "crm_actual_value",
        "crm",
        "What is `actualvalue` of a won opportunity whose closing says nothing?",
        {"estimated": "its estimated value", "zero": "0"},
        "learn.microsoft.com/dynamics365/sales/developer/entities/opportunity",
    ),
    _open(
        "crm_invoiced_order",
        "crm",
        "What state has an order after `ConvertSalesOrderToInvoice`?",
        {"as_before": "that of before", "invoiced": "invoiced"},
        "learn.microsoft.com/dynamics365/customerengagement/on-premises/developer/order-entity",
    ),
    _open(
        "crm_lock_pricing",
        "crm",
        "To what are `Lock…Pricing` and `Unlock…Pricing` bound?",
        {"both": "to a row, or to nothing", "unbound": "to nothing", "bound": "to a row"},
        "learn.microsoft.com/dynamics365/customerengagement/web-api/locksalesorderpricing",
    ),
    _open(
        "crm_document_numbers",
        "crm",
        "Are numbers of quotes, orders and invoices unique?",
        {"unique": "yes", "free": "no"},
        f"{_CRM}/autonumber-fields",
    ),
    _open(
        "crm_metadata_options",
        "crm",
        "Do lists of `EntityDefinitions` take `$top` and `$orderby`?",
        {"refused": "400 `0x80060888`", "honoured": "yes"},
        f"{_CRM}/webapi/query-metadata-web-api",
    ),
    _open(
        "crm_bypass_skips_webhooks",
        "crm",
        "Does `MSCRM.BypassBusinessLogicExecution: CustomAsync` skip webhooks?",
        {True: "yes, as other asynchronous steps", False: "no"},
        f"{_CRM}/bypass-custom-business-logic",
    ),
    _open(
        "crm_automatic_post_image",
        "crm",
        "Do steps have an image `AsynchronousStepPrimaryName` of their own?",
        {False: "no", True: "yes, with id and name of the row"},
        f"{_CRM}/understand-the-data-context",
    ),
    _open(
        "crm_image_row_version",
        "crm",
        "Does an image tell the row's version?",
        {False: "`RowVersion` is null", True: "`RowVersion` is its number"},
        f"{_CRM}/use-webhooks",
    ),
    _open(
        "crm_object_ids",
        "crm",
        "Has a webhook's context the object ids of the users?",
        {True: "yes", False: "both members are absent"},
        f"{_CRM}/use-webhooks",
    ),
    _open(
        "crm_owning_extension_name",
        "crm",
        "Does `OwningExtension` of a context have its name?",
        {True: "yes", False: "null"},
        f"{_CRM}/use-webhooks",
    ),
)

SWITCHES: Mapping[str, Switch] = {
    switch.name: switch for switch in (*_SETUP, *_STATUSES_AND_CODES, *_ERP_SHAPES, *_ERP_BEHAVIOUR, *_CRM_BEHAVIOUR)
}

# Whose value is the status of an error, by the error's code. The rules raise the usual one.
STATUS_OF: Mapping[str, str] = {
    "Internal_EntityWithSameKeyExists": "erp_duplicate_key_status",
    "Request_EntityChanged": "erp_stale_etag_status",
    "Internal_CompanyNotFound": "erp_unknown_company_status",
    "Authorization_RequestDenied": "erp_missing_right_status",
    "0x80044352": "crm_expired_delta_status",
    "0x80072560": "crm_not_a_member_status",
    "0x80040225": "crm_disabled_owner_status",
    "0x80040227": "crm_delete_blocked_status",
    "0x80048cf3": "crm_currency_code_status",
}
