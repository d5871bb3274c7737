"""`drawbar setup`: what has to be made in the two systems once, by somebody who may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from drawbar.cli.shared import AsJson, ConnectionFile, new_app, open_settings, print_json_line, print_table, say
from schemas.errors import UsageError
from schemas.records import System

if TYPE_CHECKING:
    from drawbar.settings import Settings
    from producers.registrations import Found

app = new_app("Make in the two systems what has to be there once: webhooks, the own currency.")


@app.callback()
def _group() -> None:
    """Make in the two systems what has to be there once: webhooks, the own currency."""


@app.command("webhooks")
def webhooks(
    url: Annotated[
        Optional[str],
        typer.Option(
            "--url",
            help="Address of the receiver as the two systems reach it.",
            show_default="capture.webhook_public_url",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only look; end with 1 when something is missing.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take away what leads to this address.")] = False,
    system: Annotated[
        Optional[str], typer.Option("--system", metavar="erp|crm", help="Only this one.", show_default="both")
    ] = None,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Register the webhooks in both systems; say of each what was found, made or changed. Twice is as good as once.

    The CRM gets a service endpoint and steps for creates, updates and deletes; that takes rights which the running
    system does not need. The ERP's subscriptions are made and renewed by capture itself: here they are listed, and
    renewed when due. The secret is that of the settings.

    Example: drawbar setup webhooks --url https://hub.example.com
    """
    from drawbar.log import set_up_log
    from drawbar.settings import LogSettings

    if check and remove:
        raise UsageError("--check and --remove exclude each other")
    if system not in (None, "erp", "crm"):
        raise UsageError(f"--system is erp or crm, not {system!r}")
    settings = open_settings(connection_file)
    set_up_log(LogSettings(level="error", format=settings.log.format))
    found: list[Found] = []
    for each in System if system is None else (System(system),):
        found += registered(settings, each, url=url, check=check, remove=remove)
    _show(found, as_json=as_json)
    faults = [one.fault for one in found if one.fault is not None]
    for text in sorted({fault.for_people() for fault in faults}):
        say(text)
    if faults:
        raise typer.Exit(max(fault.exit_code for fault in faults))
    if check and not all(one.is_well for one in found):
        raise typer.Exit(1)


def registered(settings: Settings, system: System, *, url: str | None, check: bool, remove: bool) -> list[Found]:
    """What became of one system's registrations. Raises SettingsError and AccessError for what stops all of it."""
    from drawbar.cli.in_force import mappings_as_far_as_known
    from drawbar.odata import open_http
    from processors.mapping_files import captured_entities
    from producers.webhooks import checked_url, public_url, secret_of

    address = public_url(settings.capture) if url is None else checked_url(url, where="--url")
    secret = "" if remove else secret_of(settings.capture)
    mappings = mappings_as_far_as_known(settings)
    fields = {entity: names for (of, entity), names in captured_entities(mappings.values()).items() if of is system}
    http = open_http(settings, system)
    try:
        http.sign_in()
        make = _erp if system is System.ERP else _crm
        return make(settings, http, fields, url=address, secret=secret, check=check, remove=remove)
    finally:
        http.close()


def _erp(
    settings: Settings,
    http: Any,
    fields: Mapping[str, Sequence[str]],
    *,
    url: str,
    secret: str,
    check: bool,
    remove: bool,
) -> list[Found]:
    from drawbar.business_central import BusinessCentral
    from drawbar.clock import SystemClock
    from drawbar.odata import adapter_for
    from producers.registrations import ErpSubscriptions

    adapter_for(settings, System.ERP)  # raises when the company is not set
    adapter = BusinessCentral(company_id=settings.erp.company_id)
    subscriptions = ErpSubscriptions(http, adapter, SystemClock(), url=url, secret=secret)
    if remove:
        return subscriptions.remove()
    return subscriptions.look(sorted(fields)) if check else subscriptions.keep(sorted(fields))


def _crm(
    _settings: Settings,
    http: Any,
    fields: Mapping[str, Sequence[str]],
    *,
    url: str,
    secret: str,
    check: bool,
    remove: bool,
) -> list[Found]:
    from producers.registrations import CrmSteps

    steps = CrmSteps(http, url=url, secret=secret)
    if remove:
        return steps.remove()
    return steps.look(fields) if check else steps.keep(fields)


def _show(found: Iterable[Found], *, as_json: bool) -> None:
    lines = [
        {
            "system": one.system.value,
            "kind": one.kind,
            "entity": one.entity,
            "message": one.message,
            "state": one.deed.value,
            "detail": one.detail or (one.fault.code if one.fault else ""),
        }
        for one in found
    ]
    if as_json:
        for line in lines:
            print_json_line(line)
    elif lines:
        columns = ("system", "kind", "entity", "message", "state", "detail")
        print_table(columns, [[line[name] for name in columns] for line in lines])
    else:
        typer.echo("nothing is registered for this address")


@app.command("currency")
def currency(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Only look; end with 1 when something is to be done.")] = False,
    as_json: AsJson = False,
    connection_file: ConnectionFile = None,
) -> None:
    """Make the CRM's row of the company's own currency, or put its exchange rate right. Twice is as good as once.

    Amounts that the ERP keeps in no currency are in its own. The rate is worked out from the ERP's rate of the CRM's
    base currency; it takes the right to write currencies, which the running system may not have.

    Example: drawbar setup currency --check
    """
    from drawbar.asking import Asker
    from drawbar.cli.own_currency import own_currency, settle
    from drawbar.cli.running import running
    from drawbar.odata import open_http

    system = running(ctx, connection_file)
    wanted = own_currency(system)
    http = open_http(system.settings, System.CRM)
    try:
        http.sign_in()
        done = settle(Asker(http=http, system=System.CRM), wanted, may_write=not check)
    finally:
        http.close()
    before = "" if done.rate_there is None else f", was {done.rate_there:f}"
    if as_json:
        print_json_line({"code": wanted.code, "rate": wanted.rate_text, "state": done.state})
    else:
        typer.echo(f"{wanted.code}: {done.state} ({wanted.rate_text} for one of the CRM's base currency{before})")
    if not done.is_well:
        raise typer.Exit(1)
