"""Dataverse's system jobs: work in the background, each with a row that says how it stands (`asyncoperations`).

Nobody is told of a job: the service offers no event for them.
Source: https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/asyncoperation
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from drawbar.sandbox.crm.model import CrmError, entities, whole_seconds
from drawbar.sandbox.store import Store, Values

DELAY_S = 0.05  # before a job begins
_LOOK_S = 0.05  # how often a job that waits for its time looks at the clock
TABLE = "asyncoperation"
SYSTEM_EVENT, PUBLISH_RULE, BULK_DELETE = 1, 7, 13  # kinds
WAITING, IN_PROGRESS, SUCCEEDED, FAILED, CANCELED = 0, 20, 30, 31, 32  # statuses
STATES = {WAITING: 0, IN_PROGRESS: 2, SUCCEEDED: 3, FAILED: 3, CANCELED: 3}
Work = Callable[[str], Awaitable[str]]  # told the job's id; what it returns is the job's message


class JobCanceled(Exception):
    """Somebody ended the job while it was at work."""


class CrmJobs:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ rows

    def keep(self, job_id: str, status: int, *, user: Values, name: str, kind: int, **more: Any) -> None:
        """The row of a job, within a transaction."""
        now = self._store.clock.whole_seconds()
        values: Values = {
            "asyncoperationid": job_id,
            "name": name[:256],
            "operationtype": kind,
            "statecode": STATES[status],
            "statuscode": status,
            "depth": 1,
            "retrycount": 0,
            **owned_by(user),
            **{f"{verb}{what}": value for verb in ("created", "modified") for what, value in stamp(user, now)},
            **more,
        }
        self._store.put(TABLE, job_id, {name: value for name, value in values.items() if value is not None})

    def mark(self, job_id: str, status: int, **more: Any) -> None:
        """How a job stands now. A job whose row is gone stands nowhere."""
        stored = self._store.table(TABLE).rows.get(job_id)
        if stored is None:
            return
        now = self._store.clock.whole_seconds()
        end = {"completedon": now} if STATES[status] == STATES[SUCCEEDED] else {}
        row = {**stored.values, "statecode": STATES[status], "statuscode": status, "modifiedon": now, **end, **more}
        with self._store.transaction():
            self._store.put(TABLE, job_id, row)

    def check_goes_on(self, job_id: str) -> None:
        """Raises JobCanceled when somebody ended the job, or took its row away."""
        stored = self._store.table(TABLE).rows.get(job_id)
        if stored is None or stored.values["statuscode"] == CANCELED:
            raise JobCanceled

    # ------------------------------------------------------------ work

    def submit(self, work: Work, *, user: Values, name: str, kind: int, begins: str | None = None, **more: Any) -> str:
        """Have it done soon, or from a time on; the job's id. Within a transaction: if that fails there is no job."""
        job_id = self._store.new_id()
        if begins is not None:
            more["postponeuntil"] = begins
        self.keep(job_id, WAITING, user=user, name=name, kind=kind, **more)
        self._start(self._run(job_id, work))
        return job_id

    def _start(self, running: Any) -> None:
        task = asyncio.get_running_loop().create_task(running)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job_id: str, work: Work) -> None:
        await asyncio.sleep(DELAY_S)
        try:
            await self._await_its_time(job_id)
            self.mark(job_id, IN_PROGRESS, startedon=self._store.clock.whole_seconds())
            message = await work(job_id)
        except JobCanceled:
            self.mark(job_id, CANCELED)
        except CrmError as error:
            self.mark(job_id, FAILED, message=error.message, friendlymessage=error.message, errorcode=number_of(error))
        except Exception:  # noqa: BLE001 - the edge: a bug of the sandbox must end the job and be seen
            traceback.print_exc(file=sys.stderr)
            self.mark(job_id, FAILED, message="An unexpected error occurred.", errorcode=0x80040216 - 2**32)
        else:
            self.mark(job_id, SUCCEEDED, message=message, friendlymessage=message)

    async def _await_its_time(self, job_id: str) -> None:
        while True:
            self.check_goes_on(job_id)
            begins = self._store.table(TABLE).rows[job_id].values.get("postponeuntil")
            if begins is None or _moment(begins) <= self._store.clock.now():
                return
            await asyncio.sleep(_LOOK_S)

    def end_those_of_the_last_run(self) -> None:
        """A job does not survive its sandbox."""
        for job_id, stored in list(self._store.table(TABLE).rows.items()):
            if stored.values["statecode"] != STATES[SUCCEEDED]:
                self.mark(job_id, FAILED, message="The asynchronous service was stopped.")
        for row_id, stored in list(self._store.table("bulkdeleteoperation").rows.items()):
            if stored.values["statecode"] != STATES[SUCCEEDED]:
                row = {**stored.values, "statecode": STATES[FAILED], "statuscode": FAILED}
                with self._store.transaction():
                    self._store.put("bulkdeleteoperation", row_id, row)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


def owned_by(user: Values) -> Values:
    return {
        "ownerid": user["systemuserid"],
        "ownerid@type": "systemuser",
        "owninguser": user["systemuserid"],
        "owningbusinessunit": user.get("businessunitid"),
    }


def stamp(user: Values, now: str) -> tuple[tuple[str, str], ...]:
    return ("on", now), ("by", user["systemuserid"])


def number_of(error: CrmError) -> int:
    """A platform code as a number, as rows have it."""
    return int(error.code, 16) - 2**32


def regarding(table: str, row_id: str) -> Values:
    """What a job is about, where the column can say so."""
    if table not in entities()[TABLE].attributes["regardingobjectid"].targets:
        return {}
    return {"regardingobjectid": row_id, "regardingobjectid@type": table}


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(whole_seconds(text).replace("Z", "+00:00"))
