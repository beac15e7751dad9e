"""Named contexts of a gate: biases that lead rows to the experts which know what they are about.

A request says that its rows are `legal`, say, and the biases of that name are added to the logits
before experts are selected. None is ever larger than the policy's bound. Data and its form; pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from moe_core.decimals import read_decimal, show_decimal
from moe_core.document import InvalidDocument, Reader

MAX_CONTEXTS = 16
MAX_BIASES = 16
MAX_NAME = 63
LARGEST = "100"


@dataclass(frozen=True, slots=True)
class Context:
    """A context by its name, with a bias for each of some experts, by id."""

    name: str
    biases: tuple[tuple[str, Decimal], ...]

    @classmethod
    def read(cls, reader: Reader) -> Self:
        name = reader.text("name")
        if not 1 <= len(name) <= MAX_NAME:
            raise InvalidDocument(f"{reader.path}.name is {name!r:.80}; 1 to {MAX_NAME} characters")
        biases = tuple(
            (item.text("id"), read_decimal(item, "bias", f"-{LARGEST}", LARGEST))
            for item in reader.items("biases")
        )
        if not 1 <= len(biases) <= MAX_BIASES or len(dict(biases)) < len(biases):
            text = f"it must name 1 to {MAX_BIASES} experts, each once"
            raise InvalidDocument(f"{reader.path}.biases has {len(biases)} entries; {text}")
        return cls(name, biases)

    def to_dict(self) -> dict[str, Any]:
        biases = [{"id": e, "bias": show_decimal(bias)} for e, bias in self.biases]
        return {"name": self.name, "biases": biases}


@dataclass(frozen=True, slots=True)
class Contexts:
    """The contexts that a gate knows; `bound` is the largest bias that is ever added."""

    bound: Decimal
    known: tuple[Context, ...]

    @classmethod
    def read(cls, reader: Reader) -> Self:
        known = tuple(Context.read(item) for item in reader.items("known"))
        if not 1 <= len(known) <= MAX_CONTEXTS or len({c.name for c in known}) < len(known):
            text = f"it must name 1 to {MAX_CONTEXTS} contexts, each once"
            raise InvalidDocument(f"{reader.path}.known has {len(known)} entries; {text}")
        return cls(read_decimal(reader, "bound", "0", LARGEST), known)

    def to_dict(self) -> dict[str, Any]:
        return {
            "bound": show_decimal(self.bound),
            "known": [context.to_dict() for context in self.known],
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(context.name for context in self.known)

    def check(self, experts: Sequence[str], path: str) -> None:
        """Raise InvalidDocument where a bias is for no expert of the gate."""
        for context in self.known:
            for expert_id, _ in context.biases:
                if expert_id not in experts:
                    what = f"{path}.known of {context.name!r} has a bias for {expert_id!r}"
                    raise InvalidDocument(f"{what}; the gate lists {', '.join(experts):.200}")

    def bias(self, name: str, experts: Sequence[str]) -> tuple[float, ...] | None:
        """Return what is added to the logits (E,), clipped to the bound; None if it is unknown."""
        found = next((context for context in self.known if context.name == name), None)
        if found is None:
            return None
        biases = dict(found.biases)
        clipped = (max(-self.bound, min(self.bound, biases.get(e, Decimal(0)))) for e in experts)
        return tuple(map(float, clipped))
