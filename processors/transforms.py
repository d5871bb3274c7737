"""The named changes a value may undergo on its way, each for both directions.

Pure. A mapping file names a transform; there are no expressions in mapping files. A transform that loses something on
the way there says so by `lossy`: back is then not the inverse, and the values do not count as different for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from schemas.records import BETWEEN_PARTS, Value, as_one

Text = Callable[[str], str]


def _same(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """`to_crm` and `to_erp` are given text that is not blank; other values and blanks pass unchanged."""

    name: str
    to_crm: Text
    to_erp: Text
    lossy: bool
    doc: str
    keeps: bool = False  # what the CRM holds stands where it comes out as what the ERP holds


def _international(text: str) -> str:
    """Digits with a leading `+`; text that holds letters stays as it is. `00` opens an international number."""
    if re.search(r"[^\W\d_]", text):
        return text
    digits = re.sub(r"\D", "", text)
    if text.lstrip().startswith("+"):
        return f"+{digits}"
    if digits.startswith("00"):
        return f"+{digits[2:]}"
    return text


def _with_scheme(text: str) -> str:
    return text if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) else f"https://{text}"


def _without_scheme(text: str) -> str:
    return re.sub(r"^https?://", "", text)


# What stands before a first name, opens a last name of several words, and follows a last name.
# fmt: off
_TITLES = frozenset((
    "dr", "dr.", "prof", "prof.", "mr", "mr.", "mrs", "mrs.", "ms", "ms.", "sir", "dame", "dipl.-ing.", "ing.",
    "rev.", "frau", "herr",
))
_PARTICLES = frozenset((
    "al", "bin", "da", "das", "de", "del", "della", "den", "der", "di", "do", "dos", "du", "el", "ibn", "la", "le",
    "lo", "san", "st.", "te", "ten", "ter", "van", "vande", "vom", "von", "zu", "zum", "zur", "y",
))
_SUFFIXES = frozenset((
    "jr", "jr.", "sr", "sr.", "ii", "iii", "iv", "phd", "ph.d.", "md", "m.d.",
))
# fmt: on
_PART_LENGTH = 50  # what each of the CRM's three columns takes


def _name_in_parts(text: str) -> str:
    """First, middle and last name. One word is a last name; titles stay with the first name, suffixes with the last."""
    words = text.split()
    begin = next((place for place, word in enumerate(words) if word.lower() not in _TITLES), 0)
    end = len(words)
    while end > begin + 2 and words[end - 1].lower() in _SUFFIXES:
        end -= 1
    given = words[begin:end]
    last = next(
        (place for place, word in enumerate(given) if place > 0 and word.lower() in _PARTICLES and word.islower()),
        len(given) - 1,
    )
    last = max(0, min(last, len(given) - 1))
    first = words[:begin] + (given[:1] if last else [])
    parts = (first, given[1:last], given[last:] + words[end:])
    return BETWEEN_PARTS.join(" ".join(part)[:_PART_LENGTH].rstrip() for part in parts)


_ALL = (
    Transform(name="trim", to_crm=str.strip, to_erp=str.strip, lossy=True, doc="Takes blanks off both ends."),
    Transform(name="upper", to_crm=str.upper, to_erp=str.upper, lossy=True, doc="Upper case in the target."),
    Transform(name="lower", to_crm=str.lower, to_erp=str.lower, lossy=True, doc="Lower case in the target."),
    Transform(
        name="international",
        to_crm=_international,
        to_erp=_same,
        lossy=True,
        doc="A phone number that opens with + or 00 loses its punctuation on the way to the CRM: +49305550100.",
    ),
    Transform(
        name="web-address",
        to_crm=_with_scheme,
        to_erp=_without_scheme,
        lossy=True,
        doc="The CRM holds a web address with https://, the ERP without.",
    ),
    Transform(
        name="person-name",
        to_crm=_name_in_parts,
        to_erp=as_one,
        lossy=True,
        keeps=True,
        doc="One name in the ERP; first, middle and last name, with a tab between each two, in the CRM. One word is a "
        "last name. Where the CRM divides the same name in another way, that division stands.",
    ),
)
TRANSFORMS: dict[str, Transform] = {transform.name: transform for transform in _ALL}


def transformed(value: Value, name: str | None, *, to_crm: bool) -> Value:
    """`value` after the transform `name` (None: none). Raises KeyError for a name that is not in the table."""
    if name is None or not isinstance(value, str):
        return value
    transform = TRANSFORMS[name]
    return (transform.to_crm if to_crm else transform.to_erp)(value) or None
