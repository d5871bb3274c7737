"""Which mapping files a command or a stage works by: those that are in force, or where nothing ever was, a folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from drawbar.settings import Settings
    from processors.mapping import EntityMapping
    from schemas.mapping_set import MappingSet

SHORT_WAIT_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """`version` names the files, `drawbar mappings diff` what a folder would change in them."""

    version: str
    mappings: Mapping[str, EntityMapping]


def mappings_in_force(settings: Settings) -> Mapping[str, EntityMapping]:
    """What decides now; the folder's files while no broker is named, and before the first start of a system.

    Raises MappingFileError, BusUnavailable, TopicMismatch.
    """
    from drawbar.mapping_sets import read_sets

    found = read_sets(settings.bus).in_force if settings.bus.bootstrap_servers else None
    return loaded(found, settings)


def captured_names(settings: Settings) -> list[str]:
    """What must be captured by the mappings in force, `erp.customer`, sorted. Raises as `mappings_in_force`."""
    from processors.mapping_files import captured_entities

    mappings = mappings_in_force(settings)
    return sorted(f"{system}.{entity}" for system, entity in captured_entities(mappings.values()))


def mappings_as_far_as_known(settings: Settings) -> Mapping[str, EntityMapping]:
    """As `mappings_in_force`, for a command that needs no broker: where none answers, it says so and takes the folder.

    Raises MappingFileError.
    """
    from drawbar.bus.clients import wait_for_broker
    from drawbar.cli.shared import say
    from schemas.errors import BusError

    if settings.bus.bootstrap_servers:
        try:
            wait_for_broker(settings.bus.bootstrap_servers, settings.bus.extra, give_up_after_s=SHORT_WAIT_S)
            return mappings_in_force(settings)
        except BusError as fault:
            say(f"going by the mapping files in the folder, not by those in force: {fault.code} {fault.message}")
    return loaded(None, settings)


def take_up(settings: Settings, stage: str) -> InForce:
    """What a stage is to work by. The first decide process of a system puts its folder's files in force.

    The broker must answer. Raises MappingFileError, BusUnavailable, TopicMismatch.
    """
    from drawbar.mapping_sets import put_set, read_sets
    from schemas.mapping_set import IN_FORCE

    found = read_sets(settings.bus).of_stage(stage)
    if found is not None:
        if (next_step := put_in_force_by(settings.mappings_dir, found)) is not None:
            log.warning(
                "mappings.folder_differs",
                folder=str(settings.mappings_dir),
                in_force=found.version,
                next_step=next_step,
            )
        return InForce(version=found.version, mappings=loaded(found, settings))
    ours = of_folder(settings.mappings_dir, by=f"{stage} {os.getpid()} on {socket.gethostname()}")
    mappings = loaded(ours, settings)
    if stage == "process":
        put_set(settings.bus, IN_FORCE, ours)
    return InForce(version=ours.version, mappings=mappings)


def put_in_force_by(folder: Path | None, found: MappingSet) -> str | None:
    """The commands that put the folder's files in force; None: they are, or no folder is named.

    An edited folder changes nothing by itself, and neither does one that is being edited right now.
    """
    from schemas.errors import MappingFileError

    try:
        is_same = folder is None or of_folder(folder, by="").version == found.version
    except MappingFileError:
        is_same = False
    return None if is_same else f"drawbar mappings diff {folder}, then drawbar mappings apply {folder}"


def of_folder(folder: Path | None, *, by: str) -> MappingSet:
    """The files of a folder (None: the shipped ones). Raises MappingFileError when there is none."""
    from drawbar.cli.shared import utc_now
    from processors.mapping_files import texts_of
    from schemas.mapping_set import MappingSet

    return MappingSet(files={path.name: text for path, text in texts_of(folder).items()}, by=by, at=utc_now())


def loaded(files: MappingSet | None, settings: Settings) -> Mapping[str, EntityMapping]:
    """The mappings under the settings; None: those of the folder in the settings. Raises MappingFileError."""
    from processors.mapping_files import load_mappings

    texts = None if files is None else {Path(f"(in force) {name}"): text for name, text in files.files.items()}
    source = settings.mappings_dir if texts is None else texts
    return load_mappings(source, compat=settings.compat, ownership=settings.ownership)


def speak_by_registry(settings: Settings, mappings: Mapping[str, EntityMapping]) -> None:
    """Where a registry is named, this stage writes and reads by its schemas from here on. Waits until it answers.

    Raises SchemaNotRegistered when something that the stages write is not there.
    """
    if not settings.registry.url:
        return
    from drawbar.registry import Registry, RegistryFraming
    from processors.mapping_files import captured_entities
    from schemas.codec import install

    registry = Registry(settings.registry)
    registry.await_there()
    framing = RegistryFraming(registry)
    framing.prepare(captured_entities(mappings.values()))
    install(framing)
