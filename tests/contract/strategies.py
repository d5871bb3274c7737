"""Any record of the contract, made by its type hints."""

from __future__ import annotations

import types
from collections.abc import Mapping
from datetime import datetime, timezone
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin

from hypothesis import Phase
from hypothesis import strategies as st
from msgspec.structs import fields

# A whole row is large: making a failing one smaller takes minutes, and its first form says enough.
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
TEXTS = st.text(max_size=12)
LONGS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(
    min_value=datetime(1900, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(timezone.utc),
).map(lambda time: time.replace(fold=0))
VALUES = st.one_of(st.none(), st.booleans(), LONGS, TEXTS, AMOUNTS)


@cache
def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Every value that a field of this type may have."""
    if hint is Any:  # a value of a field
        return VALUES
    scalars = {str: TEXTS, int: LONGS, bool: st.booleans(), datetime: TIMES}
    if hint in scalars:
        return scalars[hint]
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        return st.none() | any_of(inner)
    if origin is tuple:
        return st.lists(any_of(get_args(hint)[0]), max_size=2).map(tuple)
    if origin is Mapping:
        return st.dictionaries(TEXTS, any_of(get_args(hint)[1]), max_size=3)
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    return st.builds(hint, **{member.name: any_of(member.type) for member in fields(hint)})
