"""The messages that set a record aside: the dead letter with its bytes untouched, and its line in the index.

Pure. `dead-letters` keeps what could not go on, `dead-letters.index` says of each letter whether it is open and where
its bytes are. An open letter is written first, its index line after it, since the line names the letter's position.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from drawbar.ports import InMessage, OutMessage
from schemas.codec import encode
from schemas.errors import RecordError
from schemas.records import DeadLetter, derived_id
from schemas.topics import DEAD_LETTERS, DEAD_LETTERS_INDEX

PREFIX = "drawbar."


def letter_message(
    letter: DeadLetter,
    *,
    key: bytes,
    value: bytes | None,
    headers: tuple[tuple[str, bytes], ...] = (),
    stage: str,
    partition: int,
    offset: int,
) -> OutMessage:
    """The dead letter: key, value and headers of the message that failed, and our own headers after them.

    `partition` and `offset` are those of the message that failed, in `letter.topic`.
    """
    ours = {
        "letter-id": letter.letter_id,
        "code": letter.code,
        "slug": letter.slug,
        "mapping": letter.mapping,
        "ref": letter.ref,
        "missing": letter.missing,
        "cause": letter.cause,
        "topic": letter.topic,
        "partition": str(partition),
        "offset": str(offset),
        "stage": stage,
    }
    theirs = tuple(header for header in headers if not header[0].startswith(PREFIX))
    added = tuple((PREFIX + name, text.encode()) for name, text in ours.items())
    return OutMessage(topic=DEAD_LETTERS, key=key, value=value, headers=theirs + added)


def index_message(
    letter: DeadLetter, *, partition: int, offset: int, headers: tuple[tuple[str, bytes], ...] = ()
) -> OutMessage:
    """The letter's line in the index; `partition` and `offset` are its position in `dead-letters`."""
    placed = replace(letter, partition=partition, offset=offset)
    return OutMessage(topic=DEAD_LETTERS_INDEX, key=letter.letter_id.encode(), value=encode(placed), headers=headers)


def bytes_letter(
    message: InMessage, error: type[RecordError], *, now: datetime, mapping: str = "", home: str = "", detail: str = ""
) -> DeadLetter:
    """The letter of a message that is set aside as bytes, because nobody could make anything of it.

    Its id is derived from its origin: the same message, delivered twice, is one letter.
    """
    origin = f"{message.topic}[{message.partition}]@{message.offset}"
    return DeadLetter(
        letter_id=derived_id("letter", message.topic, message.partition, message.offset),
        code=error.code,
        slug=error.slug,
        mapping=mapping,
        home=home,
        ref="",
        direction="",
        cause=f"{error.slug} {mapping or message.topic}",
        detail=f"{detail} ({origin})" if detail else origin,
        opened_at=now,
        changed_at=now,
        topic=message.topic,
        next_step=error.next_step,
    )
