"""The CRM's row of the company's own currency: amounts that the ERP keeps in no currency are in it (R226, R228).

The built-in integration makes the row where it is missing. Drawbar makes it on order: a currency cannot be taken away
again once an amount is in it, and its rate is a matter of the books. Until it is there, accounts keep the currency that
the CRM gives them, and `drawbar check` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from schemas.errors import SourceBroken, UsageError

if TYPE_CHECKING:
    from drawbar.asking import Asker
    from drawbar.cli.running import Running

RATE_DECIMALS = 10  # as the CRM keeps them
PRECISION = 2  # decimals of an amount, where nobody says otherwise (R321)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCurrency:
    """What the ERP says: the code, and how many units of it are one of the CRM's base currency."""

    code: str
    rate: Decimal

    @property
    def rate_text(self) -> str:
        return f"{self.rate.normalize():f}"

    def body(self) -> dict[str, Any]:
        """Of a new row. The ERP keeps neither name nor symbol of its own currency: the code stands for both (R321)."""
        return {
            "isocurrencycode": self.code,
            "currencyname": self.code,
            "currencysymbol": self.code,
            "currencyprecision": PRECISION,
            "exchangerate": self.rate,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """`state`: as it should be, missing, made, another rate, changed."""

    currency: OwnCurrency
    state: str
    rate_there: Decimal | None = None

    @property
    def is_well(self) -> bool:
        return self.state in ("as it should be", "made", "changed")


def own_currency(system: Running) -> OwnCurrency:
    """By what capture has seen of both systems. Raises UsageError, SourceBroken when that does not suffice."""
    from processors.view import ReferenceView

    view = ReferenceView(system.mappings.values(), company_id=system.settings.erp.company_id)
    for row in system.rows.rows().values():
        view.apply(row)
    if view.local_currency is None:
        raise UsageError("the company's own currency was not captured yet", next_step="start capture: drawbar up")
    if view.base_rate is None:
        raise SourceBroken(
            "the ERP has no exchange rate of the CRM's base currency",
            where="erp:currency",
            next_step="add that currency and its rate in the ERP, then give the command again",
        )
    return OwnCurrency(code=view.local_currency, rate=round(1 / view.base_rate, RATE_DECIMALS))


def settle(asker: Asker, wanted: OwnCurrency, *, may_write: bool) -> Done:
    """Make the row, or put its rate right. A row made by somebody else meanwhile is as good. Raises DrawbarError."""
    there = row_of(asker, wanted.code)
    if there is None and not may_write:
        return Done(currency=wanted, state="missing")
    if there is None:
        reply = asker.answer("POST", "transactioncurrencies", body=wanted.body())
        if 200 <= reply.status < 300:
            return Done(currency=wanted, state="made")
        there = row_of(asker, wanted.code)
        if there is None:
            raise asker.refusal("a new currency", reply)
    rate = Decimal(str(there["exchangerate"]))
    if rate == wanted.rate:
        return Done(currency=wanted, state="as it should be")
    if may_write:
        path = f"transactioncurrencies({there['transactioncurrencyid']})"
        asker.ask("PATCH", path, body={"exchangerate": wanted.rate}, headers={"If-Match": str(there["@odata.etag"])})
    return Done(currency=wanted, state="changed" if may_write else "another rate", rate_there=rate)


def row_of(asker: Asker, code: str) -> Mapping[str, Any] | None:
    """The CRM's currency of this ISO code."""
    from drawbar.entities import with_query

    quoted = code.replace("'", "''")
    query = {"$filter": f"isocurrencycode eq '{quoted}'", "$select": "isocurrencycode,exchangerate"}
    found = asker.rows(with_query("transactioncurrencies", query))
    return found[0] if found else None
