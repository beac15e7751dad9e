"""Reads fields out of a JSON-like document, and says exactly which one is wrong.

Used where an object or a message enters a program: afterwards there are only frozen dataclasses.
Unknown fields are ignored, so that neighbouring versions understand each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

E = TypeVar("E", bound=StrEnum)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MISSING: Final = object()


class InvalidDocument(ValueError):
    """A field is missing or not what it should be; the message names field and value."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One object of a document, and where it stands in it (`spec.experts[2]`)."""

    value: Any
    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.value, dict):
            raise InvalidDocument(f"{self.path} is {_show(self.value)}; it must be an object")

    def _get(self, name: str, kind: type, expected: str, default: Any = _MISSING) -> Any:
        value = self.value.get(name, default)
        if value is _MISSING:
            raise InvalidDocument(f"{self.path}.{name} is missing; it must be {expected}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidDocument(f"{self.path}.{name} is {_show(value)}; it must be {expected}")
        return value

    def text(self, name: str, *, default: str | None = None) -> str:
        value: str = self._get(name, str, "text", _MISSING if default is None else default)
        return value

    def boolean(self, name: str, *, default: bool = False) -> bool:
        value: bool = self._get(name, bool, "true or false", default)
        return value

    def integer(
        self, name: str, *, low: int = 0, high: int = 2**63 - 1, default: int | None = None
    ) -> int:
        expected = f"a whole number from {low} to {high}" if high < 2**63 - 1 else f"{low} or more"
        value: int = self._get(name, int, expected, _MISSING if default is None else default)
        if not low <= value <= high:
            raise InvalidDocument(f"{self.path}.{name} is {value}; it must be {expected}")
        return value

    def sha256(self, name: str) -> str:
        expected = "64 lower-case hexadecimal digits"
        value: str = self._get(name, str, expected)
        if not _SHA256.fullmatch(value):
            raise InvalidDocument(f"{self.path}.{name} is {_show(value)}; it must be {expected}")
        return value

    def enum(self, name: str, kind: type[E], *, default: E | None = None) -> E:
        value = self.value.get(name, default)
        try:
            return kind(value)
        except ValueError:  # the names are put together only where they are told
            expected = f"one of {', '.join(kind)}"
            self._get(name, str, expected)
            message = f"{self.path}.{name} is {_show(value)}; it must be {expected}"
            raise InvalidDocument(message) from None

    def child(self, name: str) -> Reader:
        return Reader(self._get(name, dict, "an object"), f"{self.path}.{name}")

    def optional_child(self, name: str) -> Reader | None:
        return None if self.value.get(name) is None else self.child(name)

    def items(self, name: str) -> Iterator[Reader]:
        """Give the objects of a list; a missing list is empty."""
        where = f"{self.path}.{name}"
        for index, item in enumerate(self._get(name, list, "a list", [])):
            yield Reader(item, f"{where}[{index}]")

    def texts(self, name: str) -> tuple[str, ...]:
        return self._list(name, str, "text")

    def integers(self, name: str) -> tuple[int, ...]:
        return self._list(name, int, "a whole number")

    def _list(self, name: str, kind: type, expected: str) -> tuple[Any, ...]:
        values = self._get(name, list, "a list", [])
        for index, value in enumerate(values):
            if not isinstance(value, kind) or isinstance(value, bool):
                where = f"{self.path}.{name}[{index}]"
                raise InvalidDocument(f"{where} is {_show(value)}; it must be {expected}")
        return tuple(values)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
