"""What an evaluator found on a golden set, read from the termination message of its pod.

Reads and nothing else; what follows from the numbers is judged in `quality`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import Final, Self

from moe_core.document import InvalidDocument, Reader
from moe_operator.paired import Paired
from moe_operator.quality import Compared, GoldenResult
from moe_operator.spec import Tried

OF_GATE: Final = "gate/"  # begins what is no id of an expert
_SHOWN: Final = 200  # characters of what is no result, from its end


@dataclass(frozen=True, slots=True)
class Beside:
    """The versions of an expert or another gate that both versions of a gate are run with.

    By sha256; `name` is the id of an expert, or `gate/NAME`.
    """

    name: str
    stable: str
    candidate: str

    @property
    def gate(self) -> bool:
        return self.name.startswith(OF_GATE)

    def __str__(self) -> str:
        """The form in which an evaluator is told of it."""
        return f"{self.name}={self.stable}:{self.candidate}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What is compared: two versions of one expert or gate, on one golden set, all by sha256.

    `beside` is what is tried out with a gate, in order of names.
    """

    golden: str
    expert_id: str  # or the name of the gate
    stable: str
    candidate: str
    kind: Tried = Tried.EXPERT
    beside: tuple[Beside, ...] = ()

    @property
    def told_beside(self) -> str:
        return ",".join(map(str, self.beside))

    @classmethod
    def read(cls, said: Reader) -> Self:
        kind = Tried.GATE if "gate" in said.value else Tried.EXPERT
        return cls(
            golden=said.sha256("golden"),
            expert_id=said.text(kind.lower()),
            stable=said.sha256("stable"),
            candidate=said.sha256("candidate"),
            kind=kind,
        )


def read_result(text: str, trial: Trial) -> GoldenResult:
    """Read a termination message. Raises InvalidDocument, also where it is of another trial."""
    try:
        said = Reader(json.loads(text), "result")
    except ValueError as error:
        if isinstance(error, InvalidDocument):
            raise
        last = (text.strip().splitlines() or [""])[-1]
        raise InvalidDocument(f"result ends in {last[-_SHOWN:]!r}; it must be JSON") from None
    if "error" in said.value:
        raise InvalidDocument(said.text("error"))
    found, told = Trial.read(said), trial.told_beside
    beside = hashlib.sha256(told.encode()).hexdigest() if told else ""
    if said.text("beside", default="") != beside:
        raise InvalidDocument(f"result is not of {told or 'the gate or expert alone'}")
    if found != replace(trial, beside=()):
        raise InvalidDocument(f"result is of {found}; it must be of {trial}")
    slices = said.optional_child("slices") or Reader({}, "result.slices")
    return GoldenResult(
        all=_compared(said.child("all")),
        slices={name: _compared(slices.child(name)) for name in sorted(slices.value)},
        flipped_percent=_number(said, "flippedPercent"),
    )


def _compared(reader: Reader) -> Compared:
    difference = Paired(
        n=reader.integer("n", low=1), mean=_number(reader, "mean"), sd=_number(reader, "sd")
    )
    return Compared(difference, _number(reader, "stable"), _number(reader, "candidate"))


def _number(reader: Reader, name: str) -> float:
    """Read a finite number; those of an evaluator are not negative where they cannot be."""
    value = reader.value.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidDocument(f"{reader.path}.{name} is {value!r}; it must be a finite number")
    if value < 0 and name != "mean":
        raise InvalidDocument(f"{reader.path}.{name} is {value}; it must be zero or more")
    return float(value)
