"""The mapping files that are in force, and those that are about to be: the value of topic `mappings`.

Pure types. The files are kept word for word, so whoever reads the topic needs no folder, and all stages of all machines
have the same. `drawbar mappings apply` says what comes next; the first decide process of a new system says what it was
started with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from schemas.errors import Undecodable

IN_FORCE = "in-force"  # by these is decided
NEXT = "next"  # by these is captured already, so that nothing is missing when they come into force


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingSet:
    """All files of one folder. `unseen`: mapping -> CRM fields of changed lines for which not all records were seen;
    `added`: mappings that there were not before, whose records capture was perhaps not yet asked to bring.
    """

    files: Mapping[str, str]  # name of the file -> its text
    by: str  # a person's login, or a process
    at: datetime
    unseen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    added: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The same for the same files: 12 hexadecimal digits."""
        return version_of(self.files)

    @property
    def is_seen(self) -> bool:
        """All records were looked at by these files."""
        return not self.unseen and not self.added

    def to_text(self) -> bytes:
        """As JSON."""
        said = {
            "version": self.version,
            "by": self.by,
            "at": self.at.isoformat(),
            "unseen": {name: list(fields) for name, fields in self.unseen.items()},
            "added": list(self.added),
            "files": dict(self.files),
        }
        return json.dumps(said, ensure_ascii=False).encode()


def version_of(files: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        digest.update(json.dumps([name, text]).encode())
    return digest.hexdigest()[:12]


def read_mapping_set(text: bytes) -> MappingSet:
    """Raises Undecodable."""
    try:
        said = json.loads(text)
        return MappingSet(
            files={str(name): str(content) for name, content in said["files"].items()},
            by=str(said["by"]),
            at=datetime.fromisoformat(said["at"]).astimezone(timezone.utc),
            unseen={str(name): tuple(map(str, fields)) for name, fields in said["unseen"].items()},
            added=tuple(map(str, said.get("added", ()))),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise Undecodable(f"no mapping files: {type(fault).__name__}") from fault
