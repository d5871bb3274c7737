"""What the addresses of Business Central name: companies and rows."""

from __future__ import annotations

from drawbar.sandbox.erp.call import Call
from drawbar.sandbox.erp.model import EntitySet, ErpError
from drawbar.sandbox.erp.records import ErpRecords
from drawbar.sandbox.odata import GUID, unquote_key
from drawbar.sandbox.store import Stored, Values
from drawbar.sandbox.switches import Switches


def company_by_key(records: ErpRecords, key: str) -> Values:
    """By id or by name."""
    wanted = unquote_key(key).lower()
    for company in records.companies():
        if wanted in (company["id"], company["name"].lower()):
            return company
    raise _no_company(f"The company '{unquote_key(key)}' does not exist.")


def company_asked(records: ErpRecords, call: Call) -> str:
    """The company of a path without one: by query, by header, or the only one there is."""
    given = call.options.get("company")
    if given and not GUID.match(given) and not records.switches["erp_company_by_name_in_query"]:
        raise _no_company(f"The company '{given}' does not exist.")
    given = given or call.request.headers.get("company")
    if given:
        return str(company_by_key(records, given)["id"])
    companies = records.companies()
    if len(companies) != 1:
        raise _no_company("Cannot find the company. No company was given.")
    return str(companies[0]["id"])


def _no_company(text: str) -> ErpError:
    return ErpError(404, "Internal_CompanyNotFound", text)


def row_id_of(key: str, switches: Switches) -> str:
    """Raises ErpError for a key that is no id."""
    text = key.strip().removeprefix("id=")
    if not GUID.match(text):
        raise ErpError(
            switches["erp_bad_key_status"], "BadRequest_NotFound", f"Bad Request - Error in query syntax: '{key}'."
        )
    return text.lower()


def row_of(records: ErpRecords, company: str, entity_set: EntitySet, row_id: str) -> Stored:
    """Raises ErpError when there is none."""
    stored = records.find(company, entity_set, row_id)
    if stored is None:
        raise missing(entity_set.source, f"SystemId='{row_id}'", records.switches)
    return stored


def missing(source: str, key: str, switches: Switches) -> ErpError:
    text = f"The {source} does not exist. Identification fields and values: {key}"
    return ErpError(404, switches["erp_missing_record_code"], text)
