"""llama.cpp beside us: run by a Python that has `llama-cpp-python`, it times what it is asked for.

    PYTHONPATH=. PYTHON -m tests.benchmarks.llama_cpp MODEL.gguf THREADS

Each line it reads is JSON: token ids of each prompt of a batch, and how many new ones of each are
to follow. It answers with the likeliest tokens after the first prompt, and with the seconds that
`smollm2` times of the others: of the first token, or the mean of those after it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import llama_cpp
import numpy as np

CONTEXT, BATCH = 16_384, 2_048


class Model:
    """A model with room for a batch of sequences."""

    def __init__(self, path: str, threads: int) -> None:
        llama_cpp.llama_backend_init()
        self._model: Any = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        given = llama_cpp.llama_context_default_params()
        given.n_ctx, given.n_batch, given.n_ubatch, given.n_seq_max = CONTEXT, BATCH, BATCH, 16
        given.n_threads = given.n_threads_batch = threads
        self._context: Any = llama_cpp.llama_init_from_model(self._model, given)
        if not self._context:
            raise RuntimeError(f"llama.cpp could not make a context for {path}")
        self._words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._room = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def _next(self, tokens: list[list[int]], at: int) -> list[list[int]]:
        """Go on with these tokens, of each sequence from a place on; return the likeliest next."""
        room, last, count = self._room, [], 0
        for sequence, own in enumerate(tokens):
            for offset, token in enumerate(own):
                room.token[count], room.pos[count] = token, at + offset
                room.n_seq_id[count], room.seq_id[count][0] = 1, sequence
                room.logits[count] = offset == len(own) - 1
                count += 1
            last.append(count - 1)
        room.n_tokens = count
        if llama_cpp.llama_decode(self._context, room) != 0:
            raise RuntimeError("llama.cpp could not decode")
        rows = (llama_cpp.llama_get_logits_ith(self._context, number) for number in last)
        return [[int(np.ctypeslib.as_array(row, (self._words,)).argmax())] for row in rows]

    def go_on(self, tokens: list[list[int]], new: int) -> tuple[list[int], float]:
        """Return what follows the first prompt, and the seconds of a token."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        began = time.perf_counter()
        said, at = self._next(tokens, 0), len(tokens[0])
        first_s, heard = time.perf_counter() - began, said[0]
        began = time.perf_counter()
        for number in range(new):
            said = self._next(said, at + number)
            heard = heard + said[0]
        return heard, (time.perf_counter() - began) / new if new else first_s


def main() -> None:
    """Answer until nobody asks any more."""
    model = Model(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        print(json.dumps(model.go_on(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
