"""Decides what may stand at the cursor of a command line: pure, from the vocabulary alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_moe.grammar import Argument, Verb, Words
from kubectl_moe.vocabulary import CONNECTION, VERBS, verb_of

Choice = tuple[str, str]  # the word, and what it means


@dataclass(frozen=True, slots=True)
class Wanted:
    """What may stand there: fixed choices, or words that somebody else knows.

    `said` has the values of the arguments before it, by their name.
    """

    current: str
    fixed: tuple[Choice, ...] = ()
    words: Words = Words.NOTHING
    verb: Verb | None = None
    said: Mapping[str, str] = field(default_factory=dict)


def wanted(words: Sequence[str]) -> Wanted:
    """Read a command line behind `kubectl moe`, the last word of which is being written."""
    *before, current = words or [""]
    reader = _Reader()
    for word in before:
        reader.read(word)
    return reader.wanted(current)


@dataclass(slots=True)
class _Reader:
    """Reads word by word; `open` is the flag whose value comes next."""

    verb: Verb | None = None
    open: Argument | None = None
    only_places: bool = False
    said: dict[str, str] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    def read(self, word: str) -> None:
        if self.open is not None and self._takes(word):
            if word != "=":  # which bash splits from --flag=value
                self.said[_key(self.open)], self.open = word, None
            return
        self.open = None
        if word == "--":
            self.only_places = True
        elif word.startswith("-") and word != "-" and not self.only_places:
            self._read_flag(word)
        elif self.verb is None:
            self.verb = verb_of(word)
        else:
            place = self._place()
            if place is not None:
                self.said[_key(place)] = word
            self.places.append(word)

    def wanted(self, current: str) -> Wanted:
        name, equals, value = current.partition("=")
        flag = self._flag(name) if equals and current.startswith("--") else None
        if flag is not None:
            return self._of(flag, value)
        if self.open is not None and self._takes(current):
            return self._of(self.open, "" if current == "=" else current)
        if current.startswith("-") and not self.only_places:
            return Wanted(current, tuple(self._flags()), verb=self.verb)
        if self.verb is None:
            known = tuple((verb.name, verb.help) for verb in VERBS)
            return Wanted(current, () if self.places else known)
        place = self._place()
        return Wanted(current) if place is None else self._of(place, current)

    def _of(self, argument: Argument, current: str) -> Wanted:
        fixed = tuple((choice, "") for choice in argument.choices)
        return Wanted(current, fixed, argument.words, self.verb, dict(self.said))

    def _takes(self, word: str) -> bool:
        """Return whether the open flag takes this word; a value that may be missing is no flag."""
        assert self.open is not None
        return self.open.least > 0 or not word.startswith("-")

    def _read_flag(self, word: str) -> None:
        name, equals, value = word.partition("=")
        flag = self._flag(name)
        if flag is None and not word.startswith("--"):  # -nNAME
            flag, equals, value = self._flag(word[:2]), "=", word[2:]
        if flag is None:
            return
        if equals or flag.is_switch:
            self.said[_key(flag)] = value
        else:
            self.said[_key(flag)] = ""
            self.open = flag

    def _flag(self, name: str) -> Argument | None:
        return next((one for one in self._known() if one.is_flag and name in one.names), None)

    def _flags(self) -> Iterator[Choice]:
        """Give the flags that were not said yet, by their long names."""
        for argument in self._known():
            if argument.is_flag and _key(argument) not in self.said:
                yield argument.names[-1], argument.help
        yield "--help", "what this is and what may be said"

    def _known(self) -> tuple[Argument, ...]:
        return (*(self.verb.all_arguments if self.verb else ()), *CONNECTION)

    def _place(self) -> Argument | None:
        """Return the argument whose place is next."""
        places = [one for one in self._known() if not one.is_flag]
        if len(self.places) < len(places):
            return places[len(self.places)]
        return places[-1] if places and places[-1].most is None else None


def _key(argument: Argument) -> str:
    return argument.names[-1].lstrip("-").replace("-", "_")
