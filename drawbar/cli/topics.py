"""`drawbar topics`: the topic table held against the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from drawbar.cli.shared import AsJson, ConnectionFile, new_app, open_running, print_json_line, print_table

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from drawbar.bus.topics import TopicPlan
    from drawbar.settings import Settings

app = new_app("Topics: what the broker has, and what it should have.")

WAIT_S = 10.0  # a person waits for the answer


@app.command("plan")
def plan_topics(connection_file: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Show which topics would be made or changed; change nothing. Ends with 1 when something must be refused.

    Example: drawbar topics plan --connection-file connection.json
    """
    from drawbar.bus.topics import plan
    from schemas.topics import TOPICS

    settings = open_running(connection_file)
    found = plan(
        _admin(settings),
        TOPICS,
        partitions=settings.bus.partitions,
        replication_factor=settings.bus.replication_factor,
    )
    _show(found, as_json=as_json, words=("to make", "to set", "refused"))
    if found.refused:
        raise typer.Exit(1)


@app.command("apply")
def apply_topics(connection_file: ConnectionFile = None, as_json: AsJson = False) -> None:
    """Make missing topics and set what differs. A partition count is never changed: then nothing is done at all.

    Example: drawbar topics apply --connection-file connection.json
    """
    from drawbar.bus.topics import apply
    from schemas.topics import TOPICS

    settings = open_running(connection_file)
    done = apply(
        _admin(settings),
        TOPICS,
        partitions=settings.bus.partitions,
        replication_factor=settings.bus.replication_factor,
    )
    _show(done, as_json=as_json, words=("made", "set", "refused"))


def _admin(settings: Settings) -> AdminClient:
    """A client of a broker that answers. Raises BusUnavailable when none does."""
    from drawbar.bus.clients import make_admin, wait_for_broker
    from drawbar.log import set_up_log
    from drawbar.settings import LogSettings

    set_up_log(LogSettings(level="error", format=settings.log.format))
    wait_for_broker(settings.bus.bootstrap_servers, settings.bus.extra, give_up_after_s=WAIT_S)
    return make_admin(settings.bus.bootstrap_servers, client_id="drawbar-topics", extra=settings.bus.extra)


def _show(plan: TopicPlan, *, as_json: bool, words: tuple[str, str, str]) -> None:
    make, change, refuse = words
    lines: list[dict[str, Any]] = [
        *({"topic": topic.name, "what": make, "detail": f"{topic.partitions} partitions"} for topic in plan.missing),
        *(
            {"topic": change_.topic, "what": change, "detail": f"{change_.setting}: {change_.now} -> {change_.wanted}"}
            for change_ in plan.changes
        ),
        *(
            {"topic": wrong.topic, "what": refuse, "detail": f"{wrong.now} partitions, wanted {wrong.wanted}"}
            for wrong in plan.refused
        ),
        *({"topic": name, "what": "as it should be", "detail": ""} for name in plan.unchanged),
    ]
    if as_json:
        for line in lines:
            print_json_line(line)
    else:
        print_table(("topic", "", "detail"), [(line["topic"], line["what"], line["detail"]) for line in lines])
