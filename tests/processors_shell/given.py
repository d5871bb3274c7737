"""What the tests of the shell are given: two small mappings, change events, and a worker process to run them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from drawbar.settings import Settings
from processors.mapping import Defaults, EntityMapping, FieldMapping, Key
from processors.worker import run_process
from schemas.records import ChangeEvent, Operation, RecordRef, System, Value, Work, derived_id

NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)

SALESPERSON = EntityMapping(
    name="salesperson-systemuser",
    erp="salesperson",
    crm="systemuser",
    direction="to_erp",
    create="none",
    key=Key(erp="code", crm="internalemailaddress"),
    fields=(FieldMapping(erp="email", crm="internalemailaddress", direction="to_erp"),),
)
CUSTOMER = EntityMapping(
    name="customer-account",
    erp="customer",
    crm="account",
    key=Key(erp="number", crm="accountnumber"),
    defaults=Defaults(crm={"customertypecode": 3}),
    fields=(
        FieldMapping(erp="displayName", crm="name", required=True, erp_length=100, crm_length=160),
        FieldMapping(erp="addressLine1", crm="address1_line1", erp_length=100, crm_length=250),
        FieldMapping(erp="city", crm="address1_city", erp_length=30, crm_length=80),
        FieldMapping(erp="phoneNumber", crm="telephone1", erp_length=30, crm_length=50),
        FieldMapping(erp="salespersonCode", crm="ownerid", owner="salesperson-systemuser", direction="to_crm"),
    ),
)
MAPPINGS = {mapping.name: mapping for mapping in (SALESPERSON, CUSTOMER)}


def an_id(number: int, kind: str = "customer") -> str:
    return derived_id("test", kind, number)


def a_change(
    record_id: str, *, order: int = 1, entity: str = "customer", system: System = System.ERP, **after: Value
) -> ChangeEvent:
    state: dict[str, Value]
    if entity == "customer":
        state = {
            "number": f"C-{record_id[:8]}",
            "displayName": f"Customer {record_id[:8]}",
            "addressLine1": "Unter den Linden 1",
            "city": "Berlin",
            "phoneNumber": "+49 30 555 0100",
            "salespersonCode": None,
            **after,
        }
    else:
        state = dict(after)
    return ChangeEvent(
        event_id=derived_id(system, entity, record_id, order),
        ref=RecordRef(system, entity, record_id),
        operation=Operation.CHANGE,
        version=f'W/"{order}"',
        order=order,
        modified_at=NOON + timedelta(seconds=order),
        captured_at=NOON + timedelta(seconds=order + 1),
        after=state,
    )


def a_work(change: ChangeEvent, mapping: str = "customer-account") -> Work:
    return Work(message_id=f"{change.event_id}:{mapping}", mapping=mapping, home=change.ref.id, change=change)


def settings_for(
    bootstrap: str, state_dir: Path, *, group_prefix: str, brakes: Mapping[str, float] | None = None, **decide: float
) -> Settings:
    """Many tests change every record they have: nothing stops by itself unless `brakes` say so."""
    return Settings.model_validate(
        {
            "bus": {"bootstrap_servers": bootstrap, "partitions": 4, "group_prefix": group_prefix},
            "state_dir": state_dir,
            "decide": decide,
            "brakes": {"share": 1} if brakes is None else brakes,
        }
    )


if __name__ == "__main__":
    run_process(Settings.model_validate_json(sys.argv[1]), MAPPINGS)
