"""The golden set that a candidate must pass in the dark, as Mixtures and Experts name it.

Reads and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from moe_core.document import InvalidDocument, Reader

_PERCENT: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?%")


def percent(reader: Reader, name: str, default: str | None = None) -> float:
    """Read a share written as `1%` or `0.5%`. Raises InvalidDocument."""
    text = reader.text(name, default=default)
    if not _PERCENT.fullmatch(text):
        message = f"{reader.path}.{name} is {text!r}; it must be a percentage such as 1% or 0.5%"
        raise InvalidDocument(message)
    return float(text.removesuffix("%"))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A golden set, and how much worse than stable's the loss on it may be, in percent.

    `slices` are the limits of slices that have one of their own, by name.
    """

    uri: str
    sha256: str
    max_loss_increase_percent: float = 1.0
    slices: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        artifact = reader.child("artifact")
        return cls(
            uri=artifact.text("uri"),
            sha256=artifact.sha256("sha256"),
            max_loss_increase_percent=percent(reader, "maxLossIncrease", "1%"),
            slices={
                item.text("name"): percent(item, "maxLossIncrease")
                for item in reader.items("slices")
            },
        )
