"""Makes golden sets from what people have: text that is read byte by byte, or tokens as JSON lines.

Pure: content goes in, a set comes out. Whoever's tokenizer is not of bytes writes JSON lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_artifacts.errors import Refused
from moe_artifacts.golden import MAX_VOCAB, Golden, Sequence
from moe_core.document import InvalidDocument, Reader

BYTES_VOCAB = 256
JSON_LINES = ".jsonl"


@dataclass(frozen=True, slots=True)
class Rules:
    """How inputs are cut. `limit` bounds the sequences of one input, spread over it evenly.

    `length` is that of a sequence of text; `vocab` None is 256 for bytes, else just enough.
    """

    of_bytes: bool = False
    length: int = 256
    limit: int | None = None
    vocab: int | None = None


def make_golden(inputs: Iterable[tuple[Path, bytes]], rules: Rules) -> Golden:
    """Return the set of all inputs, in their order. Raises Refused, below it BadArtifact."""
    sequences: list[Sequence] = []
    for path, content in inputs:
        found = [*(_of_lines if path.suffix == JSON_LINES else _of_text)(path, content, rules)]
        sequences += _spread(found, rules.limit)
    slices = tuple(dict.fromkeys(sequence.slice for sequence in sequences))
    least = BYTES_VOCAB if rules.of_bytes else 2
    largest = max((int(s.tokens.max(initial=0)) for s in sequences), default=0)
    vocab = max(least, largest + 1) if rules.vocab is None else rules.vocab
    return Golden(vocab, slices, tuple(sequences))


def _of_text(path: Path, content: bytes, rules: Rules) -> Iterator[Sequence]:
    """Cut a text into pieces of one length; the rest, which is shorter, is left out."""
    if not rules.of_bytes:
        right = f"--bytes, if a byte is a token of the model, or {JSON_LINES} files of tokens"
        raise Refused(f"{path} is text, and moe knows no tokenizer; give {right}")
    if len(content) < rules.length:
        raise Refused(f"{path} has {len(content)} bytes; a sequence has {rules.length} (--length)")
    tokens = np.frombuffer(content, np.uint8).astype(np.int32)
    for start in range(0, len(tokens) - rules.length + 1, rules.length):
        yield Sequence(path.stem, tokens[start : start + rules.length])


def _of_lines(path: Path, content: bytes, rules: Rules) -> Iterator[Sequence]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            reader = Reader(json.loads(line), where)
            name, tokens = reader.text("slice"), reader.integers("tokens")
        except InvalidDocument as error:
            raise Refused(str(error)) from None
        except (ValueError, RecursionError) as error:
            raise Refused(f"{where} is not JSON ({error}); it must be {_RIGHT}") from None
        if wrong := [token for token in tokens if not 0 <= token < MAX_VOCAB]:
            raise Refused(f"{where} has the token {wrong[0]}; it must be 0 to {MAX_VOCAB - 1}")
        yield Sequence(name, np.array(tokens, np.int32))


_RIGHT = '{"slice": "legal", "tokens": [17, 4, …]}'


def _spread(found: list[Sequence], limit: int | None) -> list[Sequence]:
    """Return at most `limit` of them, the same distance apart."""
    if limit is None or len(found) <= limit:
        return found
    return [found[number * len(found) // limit] for number in range(limit)]
