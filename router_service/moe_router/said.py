"""A routing table as its source said it: what was read, and what it was read from.

To read a large one takes longer than clients wait for a word of a router. So it is read where it
arrives, beside the event loop. Whether it is served, `Tables` decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from moe_core.document import InvalidDocument
from moe_core.parts import Part, table_of
from moe_core.table import Table

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A RoutingTable object with the parts that it names.

    `table` is None where they cannot be read; then `wrong` says why.
    """

    body: Body
    parts: tuple[Part, ...] = ()
    table: Table | None = None
    wrong: str = ""

    @classmethod
    def of(cls, body: Body, parts: Iterable[Part] = ()) -> Self:
        """Read an object, which names these parts. Raises MissingPart where one is not given."""
        known = {part.sha256: part for part in parts}
        try:
            table = table_of(body, known.get)
        except InvalidDocument as error:
            return cls(body, tuple(known.values()), wrong=str(error))
        return cls(body, tuple(known.values()), table)
