"""The command line: one group, its commands in modules of their own. Quick to import: commands import the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from drawbar.cli import (
    applying,
    brakes,
    changes,
    check,
    couplings,
    dead_letters,
    explain,
    mappings,
    rebaseline,
    run,
    schemas,
    setup,
    status,
    sync,
    topics,
    transfer,
)
from drawbar.cli.shared import new_app

app = new_app("Keep a Business Central and a Dynamics 365 Sales in step over Kafka.")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"drawbar {version('drawbar')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keep a Business Central and a Dynamics 365 Sales in step over Kafka.

    Example: drawbar up --sandbox --connection-file connection.json
    """


def _demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the system running at the end, until Ctrl-C.")] = False,
) -> None:
    """Show on this machine, with a sandbox of both systems, how changes cross and what happens to those that cannot.

    Takes about a minute and a half. Exit code 0 only if everything is as it must be at the end.

    Example: drawbar demo
    """
    from drawbar.cli.demo import demo

    demo(keep=keep)


# The list of commands has a line of 60 characters for each; the help of a command says more.
app.command("up", short_help="Start bus, stages and, if asked, a sandbox; keep all running.")(run.up)
app.command("demo", short_help="See on this machine how changes cross and what holds them.")(_demo)
app.command("status", short_help="Show what runs, what waits, and open dead letters by cause.")(status.status)
app.command("wait", short_help="Return once every edit made before has crossed.")(status.wait)
app.command("pause", short_help="Write nothing more, here or everywhere; lose nothing.")(brakes.pause)
app.command("resume", short_help="Go on writing what was paused.")(brakes.resume)
app.add_typer(brakes.app, name="brakes", short_help="See what is held or has stopped; let it happen.")
app.command("check", short_help="Test settings, mappings, broker, and rights in both systems.")(check.check)
app.command("explain", short_help="Tell what is known of a record, and why.")(explain.explain)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(couplings.app, name="couplings")
transfer.register(couplings.app)
mappings.app.command("apply")(applying.apply)
rebaseline.register(sync.app)
app.add_typer(sync.app, name="sync", short_help="Plan and run a first load; take a new base after a restore.")
app.add_typer(mappings.app, name="mappings", short_help="What is synchronised and how; are the files right.")
app.command("changes", short_help="Print what capture saw of one entity.")(changes.changes)
app.add_typer(run.capture_app, name="capture", short_help="Find changes in both systems; confirm deletes.")
app.command("metrics", short_help="Serve figures and health of all stages for Prometheus.")(run.metrics)
app.command("process")(run.process)
app.command("sink")(run.sink)
app.add_typer(topics.app, name="topics")
app.add_typer(schemas.app, name="schemas", short_help="What the schema registry has, and what it should.")
app.add_typer(setup.app, name="setup", short_help="Register the webhooks in both systems.")
app.command("bus", short_help="Run an Apache Kafka on this machine until Ctrl-C.")(run.bus)
app.command("sandbox", short_help="Serve a Business Central and a Dataverse on this machine.")(run.sandbox)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code: 0 done, 1 failed, 2 settings, mapping or usage wrong, 3 not reachable."""
    try:
        app(list(arguments) if arguments is not None else None, prog_name="drawbar")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
