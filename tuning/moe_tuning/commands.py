"""What each tool does, from a folder to a folder. Imports torch: loaded when one of them is run."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from moe_artifacts.errors import Refused
from moe_artifacts.golden import Golden
from moe_artifacts.golden_text import Rules
from moe_artifacts.metadata import GateMetadata
from moe_artifacts.parts import GATE
from moe_artifacts.plan import MANIFESTS
from moe_core.rows import Role
from moe_tuning import changes
from moe_tuning.change import Change, NewExpert, Target, Tensors, Written, write_change
from moe_tuning.distill import distill
from moe_tuning.folder import Folder, open_folder
from moe_tuning.measure import bits_per_token, usage
from moe_tuning.model import Model, check_vocabulary, load_model
from moe_tuning.outage import outages
from moe_tuning.parts import Parts, read_parts, to_arrays
from moe_tuning.report import print_bits, print_outages, print_usage
from moe_tuning.texts import read_texts
from moe_tuning.training import Recipe

_NUMBERED = re.compile(r"e(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Bench:
    """What a tool works with: a folder, its parts, the model that has them, and the texts."""

    folder: Folder
    parts: Parts
    model: Model
    text: Golden
    familiar: Golden | None
    heldout: Golden
    before: Mapping[str, float]

    @classmethod
    def of(cls, given: argparse.Namespace) -> Bench:
        """Read everything, and measure what is served now. Raises Refused."""
        torch.set_num_threads(given.threads)
        folder = open_folder(given.base, tuple(given.artifacts))
        rules = Rules(given.bytes, given.length, given.limit)
        text = read_texts(given.text, rules, "--text")
        familiar = getattr(given, "familiar", [])
        old = read_texts(familiar, rules, "--familiar") if familiar else None
        heldout = read_texts(given.heldout, rules, "--heldout")
        parts = read_parts(folder)
        model = load_model(folder, parts)
        texts = {"--text": text, "--familiar": old, "--heldout": heldout}
        check_vocabulary(model, {what: golden for what, golden in texts.items() if golden})
        before = bits_per_token(model, heldout)
        return cls(folder, parts, model, text, old, heldout, before)

    def free(self, name: str) -> str:
        """Return `name`. Raises Refused where an expert that no gate lists has it."""
        if self.folder.index.entry(name) is not None:
            raise Refused(f"--id is {name!r}; {self.folder.path} has a part of that name already")
        return name


def prune(given: argparse.Namespace) -> int:
    """Leave experts out of the gate."""
    if (given.experts is None) == (given.count is None):
        raise Refused("give either --experts or --count: which experts go, or how many")
    bench = Bench.of(given)
    seen = usage(bench.model, bench.text)
    print_usage(bench.parts.ids, seen)
    gone = given.experts or changes.least_used(bench.parts, seen, given.count)
    made = changes.prune(bench.parts, gone).rounded()
    return _finish(given, bench, made, Change(_gate(made), gone=gone))


def merge(given: argparse.Namespace) -> int:
    """Make one expert of several."""
    if len(set(given.experts)) < max(2, len(given.experts)):
        asked = ",".join(given.experts)
        raise Refused(f"--experts is {asked}; a merge needs two different ones or more")
    bench = Bench.of(given)
    seen = usage(bench.model, bench.text)
    print_usage(bench.parts.ids, seen)
    merged: tuple[str, ...] = given.experts
    name = bench.free(given.id or "-".join(merged))
    made = changes.merge(bench.model, bench.parts, merged, name, seen, bench.text)
    if given.steps:
        bench.model.install(made)
        recipe, say = _recipe(given), _say("merge")
        made = changes.finetune(bench.model, made, [name], [bench.text], recipe, say)
    made = made.rounded()
    backups = {name: _backup(bench.folder, merged)}
    new = {name: _expert(made, name, merged[0])}
    return _finish(given, bench, made, Change(_gate(made), new, merged, backups))


def grow(given: argparse.Namespace) -> int:
    """Add an expert."""
    bench = Bench.of(given)
    assert bench.familiar is not None  # the command line asks for it
    source = given.source
    if source is None:
        seen = usage(bench.model, bench.text)
        print_usage(bench.parts.ids, seen)
        source = changes.most_used(bench.parts, seen)
    name = bench.free(given.id or _next_id(bench.folder))
    growth = changes.Growth(source, name, keep=given.keep)
    texts, recipe = (bench.text, bench.familiar), _recipe(given)
    made = changes.grow(bench.model, bench.parts, growth, texts, recipe, _say("grow")).rounded()
    new = {name: _expert(made, name, source)}
    return _finish(given, bench, made, Change(_gate(made), new, backups={name: source}))


def finetune(given: argparse.Namespace) -> int:
    """Train the gate or experts."""
    if given.steps < 1:
        raise Refused("--steps is 0; nothing would be trained")
    bench = Bench.of(given)
    texts = [bench.text, *([bench.familiar] if bench.familiar else [])]
    recipe, say = _recipe(given), _say("finetune")
    made = changes.finetune(bench.model, bench.parts, given.parts, texts, recipe, say).rounded()
    experts = tuple(name for name in given.parts if name != GATE)
    new = {name: _expert(made, name, name) for name in experts}
    gate = _gate(made) if GATE in given.parts else None
    change = Change(gate, new, together=experts if gate else ())
    return _finish(given, bench, made, change)


def dense(given: argparse.Namespace) -> int:
    """Distil a dense expert, and measure what it is worth when another is out."""
    bench, say = Bench.of(given), _say("dense")
    name, width = _dense_id(given, bench.folder), given.intermediate
    metadata = replace(
        bench.parts.expert_metadata,
        intermediate_size=width or bench.parts.expert_metadata.intermediate_size,
    )
    fitted = distill(bench.model, bench.text, metadata.intermediate_size, _recipe(given), say)
    tensors = to_arrays(fitted, metadata)
    served = {n: torch.from_numpy(array.astype(np.float32)) for n, array in tensors.items()}
    costs = outages(bench.model, bench.parts.ids, served, bench.heldout, say)
    expert = NewExpert(metadata, tensors, like=name, role=Role.DENSE)
    target = Target(given.out, given.uri_prefix, given.version)
    written = write_change(bench.folder, Change(None, {name: expert}), target)
    print_outages(bench.before, costs, "byte" if given.bytes else "token")
    _print_written(given, written)
    return 0


def _dense_id(given: argparse.Namespace, folder: Folder) -> str:
    """Return the id of the folder's dense expert, of which there is one at most, or a new one."""
    there = [e.name for e in folder.index.entries if e.role is Role.DENSE]
    name = str(given.id or (there[0] if there else "dense"))
    entry = folder.index.entry(name)
    if there and name not in there:
        raise Refused(f"--id is {name!r}; a layer has one dense expert, and {there[0]} is there")
    if name == "mixture" or (entry is not None and entry.role is not Role.DENSE):
        raise Refused(f"--id is {name!r}; {folder.path} has a part of that name already")
    return name


def _finish(given: argparse.Namespace, bench: Bench, made: Parts, change: Change) -> int:
    """Write the change, measure what it serves, and say both."""
    bench.model.install(made)
    after = bits_per_token(bench.model, bench.heldout)
    target = Target(given.out, given.uri_prefix, given.version)
    written = write_change(bench.folder, change, target)
    print_bits(bench.before, after, "byte" if given.bytes else "token")
    _print_written(given, written)
    return 0


def _print_written(given: argparse.Namespace, written: Written) -> None:
    for entry in written.new:
        kind = "Gate" if entry.role is None else entry.role.value
        print(f"{entry.name:<8} {kind:<7} {entry.version:<8} {entry.sha256[:10]}  written")
    for words in written.words:
        print(words)
    count = len(written.new)
    print(f"{count} manifests: kubectl apply -f {given.out / MANIFESTS}")


def _gate(made: Parts) -> tuple[GateMetadata, Tensors]:
    return made.gate_metadata, to_arrays(made.gate, made.gate_metadata)


def _expert(made: Parts, name: str, like: str) -> NewExpert:
    metadata = made.expert_metadata
    return NewExpert(metadata, to_arrays(made.experts[name], metadata), like)


def _backup(folder: Folder, merged: tuple[str, ...]) -> str:
    """Return the backup of the first merged expert, unless it is merged, too."""
    name = f"{folder.index.mixture}-{merged[0]}"
    spec = folder.settings().get(("Expert", name), {}).get("spec", {})
    backup = str(spec.get("backupExpertId", ""))
    return "" if backup in merged else backup


def _next_id(folder: Folder) -> str:
    """Return e8 where e7 is the highest that there is, whoever lists it."""
    numbers = (_NUMBERED.fullmatch(entry.name) for entry in folder.index.entries)
    return f"e{max((int(match[1]) for match in numbers if match), default=-1) + 1}"


def _recipe(given: argparse.Namespace) -> Recipe:
    return Recipe(given.steps, given.rate, given.batch, given.seed)


def _say(verb: str) -> Callable[[str], None]:
    return lambda line: print(f"moe {verb}: {line}", file=sys.stderr, flush=True)
