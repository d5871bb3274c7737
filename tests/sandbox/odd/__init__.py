"""Requests that a client could send, right and wrong: what the fuzzing of both services draws from.

Each strategy makes something near to what is right, so that it comes far into the services: real names, ids of real
rows, values of the right type for most properties, and among them what is odd.
"""

from tests.sandbox.odd.crm import crm_batches, crm_reads, crm_requests, crm_writes
from tests.sandbox.odd.erp import erp_batches, erp_reads, erp_requests, erp_writes
from tests.sandbox.odd.outside import authorizations, control_calls, sign_in_requests
from tests.sandbox.odd.queries import Sent, texts
from tests.sandbox.odd.shapes import crm_shapes, erp_shapes

__all__ = [
    "Sent",
    "authorizations",
    "control_calls",
    "crm_batches",
    "crm_reads",
    "crm_requests",
    "crm_shapes",
    "crm_writes",
    "erp_batches",
    "erp_reads",
    "erp_requests",
    "erp_shapes",
    "erp_writes",
    "sign_in_requests",
    "texts",
]
