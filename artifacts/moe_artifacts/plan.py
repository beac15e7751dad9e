"""What a split will do: the parts to look at, and all that can be checked without reading tensors.

It opens files and reads headers; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_artifacts.checkpoint import Checkpoint, open_checkpoint, read_json
from moe_artifacts.encoding import Array
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.index import FILE, Entry, Index, load
from moe_artifacts.manifests import Key, Manifest, read_settings
from moe_artifacts.metadata import ID, ExpertMetadata
from moe_artifacts.names import Slice
from moe_artifacts.parts import GATE, Part, make_expert, make_gate, read_slices
from moe_core.document import InvalidDocument, Reader
from moe_core.policy import Policy
from moe_core.rows import Role

MANIFESTS = "manifests"


@dataclass(frozen=True, slots=True)
class Replacement:
    """A file whose one expert takes the place of `name`; or, without it, of those it names."""

    path: Path
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What to split, and how. `only` limits which parts are looked at; the rest is as in `base`."""

    checkpoint: Path
    out: Path
    mixture: str
    uri_prefix: str = "file:///moe/artifacts"
    version: str | None = None
    base: Path | None = None
    replicas: int | None = None
    dtype: str | None = None
    policy: Path | None = None
    settings: tuple[Path, ...] = ()
    replaced: tuple[Replacement, ...] = ()
    dense: Replacement | None = None
    only: frozenset[str] = frozenset()

    @property
    def in_place(self) -> bool:
        """Whether OUT is its own base."""
        return self.base is not None and self.base.resolve() == self.out.resolve()


@dataclass(frozen=True, slots=True)
class Plan:
    """All parts of the model in order, those to look at, and what earlier runs left."""

    request: Request
    checkpoint: Checkpoint
    parts: tuple[Part, ...]
    chosen: tuple[Part, ...]
    carried: tuple[Entry, ...]
    base: Index | None
    earlier: Index | None
    settings: Mapping[Key, Manifest]

    @property
    def dtype(self) -> str:
        return self.parts[0].metadata.dtype

    @property
    def trunk_bytes(self) -> int:
        return sum(memoryview(raw).nbytes for _, raw, _, _ in self.checkpoint.trunk())

    @property
    def bytes_to_read(self) -> int:
        """Everything is read for its digest, and again for its file."""
        return 2 * (self.trunk_bytes + sum(part.size for part in self.chosen))


def make_plan(request: Request) -> Plan:
    """Open everything and check what can be checked. Raises BadCheckpoint, BadArtifact, Refused."""
    base, earlier = _load_base(request), load(request.out)
    for index in (base, earlier):
        if index is not None and index.mixture != request.mixture:
            right = f"{index.mixture!r}, as in its {FILE}; or take another directory"
            raise BadCheckpoint(f"--mixture is {request.mixture!r}; it must be {right}")
    checkpoint = open_checkpoint(request.checkpoint)
    parts = tuple(_parts(request, checkpoint))
    unknown = sorted(request.only - {part.name for part in parts})
    if unknown:
        raise BadCheckpoint(f"--only names {unknown[0]!r}; there are {[p.name for p in parts]}")
    chosen = tuple(p for p in parts if not request.only or p.name in request.only)
    carried = tuple(_carried(request, base, parts, chosen))
    _check_same_mixture(base, checkpoint, parts[0].metadata.dtype)
    names = {entry.name for entry in carried} | {part.name for part in parts}
    settings = _read_settings(request, names)
    return Plan(request, checkpoint, parts, chosen, carried, base, earlier, settings)


def _load_base(request: Request) -> Index | None:
    base = None if request.base is None else load(request.base)
    if request.base is not None and base is None:
        raise BadCheckpoint(f"--base {request.base} has no {FILE}; it must be an earlier OUT")
    if request.only and base is None:
        raise BadCheckpoint("--only needs --base, where all other parts come from")
    return base


def _carried(
    request: Request, base: Index | None, parts: tuple[Part, ...], chosen: tuple[Part, ...]
) -> Iterator[Entry]:
    """Give the base's entries that stay without being looked at."""
    looked_at = {part.name for part in chosen}
    known = {part.name for part in parts}
    entries = base.entries if base is not None else ()
    for entry in entries:
        if entry.name in looked_at or not (entry.name in known or entry.role is Role.DENSE):
            continue
        yield entry if request.in_place else entry.elsewhere()
    lacking = sorted(known - looked_at - {entry.name for entry in entries})
    if lacking:
        raise BadCheckpoint(f"--base {request.base} has no {lacking[0]}; name it in --only too")


def _check_same_mixture(base: Index | None, checkpoint: Checkpoint, dtype: str) -> None:
    if base is None:
        return
    architecture = checkpoint.architecture
    now = (architecture.hidden_size, architecture.layers, dtype)
    then = (base.hidden_size, base.layers, base.dtype)
    if now != then:
        raise BadCheckpoint(
            f"hidden size, layers and dtype are {now}; those of --base are {then}, and a mixture "
            "keeps them: split without --base, under another --mixture"
        )


def _parts(request: Request, checkpoint: Checkpoint) -> Iterator[Part]:
    names = tuple(f"e{number}" for number in range(checkpoint.architecture.experts))
    replaced = _replaced(request, names)
    experts = []
    for number, name in enumerate(names):
        slices = dict(checkpoint.expert(number))
        for part, array in checkpoint.counted(replaced.get(name, {}), name).items():
            slices[part._replace(expert=number)] = array
        experts.append(make_expert(name, Role.ROUTED, slices, request.dtype))
    if request.dense is not None:
        experts.append(_dense(request.dense, request.dtype, names, checkpoint))
    for expert in experts:
        _check_fits(expert, checkpoint, experts[0].metadata.dtype)
    yield from experts
    yield make_gate(checkpoint, names, request.dtype, _policy(request, checkpoint, names))


def _policy(request: Request, checkpoint: Checkpoint, names: tuple[str, ...]) -> Policy:
    """Return the checkpoint's policy with what was given over it."""
    policy = checkpoint.architecture.policy
    if request.policy is None:
        return policy
    try:
        given = Reader(read_json(request.policy), str(request.policy))
        fields = {**policy.to_dict(), **given.value}
        kept = {name: value for name, value in fields.items() if value is not None}
        policy = Policy.read(Reader(kept, str(request.policy)))
        policy.check(names, str(request.policy))
    except InvalidDocument as error:
        raise BadCheckpoint(f"--policy {error}") from None
    return policy


def _dense(
    replacement: Replacement, dtype: str | None, taken: tuple[str, ...], checkpoint: Checkpoint
) -> Part:
    ((name, slices),) = _named_slices(replacement, "dense").items()
    if name in (*taken, GATE, "mixture") or not ID.fullmatch(name):
        right = "lower-case letters, digits and hyphens, not another part's"
        raise BadCheckpoint(
            f"--dense {replacement.path}: the id is {name!r:.60}; it must be {right}"
        )
    return make_expert(name, Role.DENSE, checkpoint.counted(slices, name), dtype)


def _replaced(request: Request, names: tuple[str, ...]) -> Mapping[str, Mapping[Slice, Array]]:
    replaced: dict[str, Mapping[Slice, Array]] = {}
    for replacement in request.replaced:
        for name, slices in _named_slices(replacement, None).items():
            if name not in names or name in replaced:
                right = f"one of {names[0]} to {names[-1]}, and each once"
                raise BadCheckpoint(f"--replace {replacement.path}: {name!r} must be {right}")
            replaced[name] = slices
    return replaced


def _named_slices(
    replacement: Replacement, default: str | None
) -> Mapping[str, Mapping[Slice, Array]]:
    experts = read_slices(replacement.path)
    name = replacement.name or default
    if name is None:
        return {f"e{number}": slices for number, slices in experts.items()}
    if len(experts) != 1:
        raise BadCheckpoint(f"{replacement.path} holds {len(experts)} experts; {name} is one")
    return dict.fromkeys((name,), *experts.values())


def _check_fits(part: Part, checkpoint: Checkpoint, dtype: str) -> None:
    """Refuse an expert that no worker of this mixture could serve."""
    architecture, metadata = checkpoint.architecture, part.metadata
    layers = list(range(architecture.layers))
    if metadata.dtype != dtype:
        right = f"{dtype}, as the others: choose one with --dtype"
        raise BadCheckpoint(f"expert {part.name} is stored in {metadata.dtype}; it must be {right}")
    if metadata.hidden_size != architecture.hidden_size:
        seen, right = metadata.hidden_size, f"{architecture.hidden_size}, the model's"
        raise BadCheckpoint(f"expert {part.name} has hidden size {seen}; it must be {right}")
    if isinstance(metadata, ExpertMetadata) and list(metadata.layers) != layers:
        raise BadCheckpoint(
            f"expert {part.name} has layers {list(metadata.layers)}; the model has {layers}"
        )


def _read_settings(request: Request, names: set[str]) -> Mapping[Key, Manifest]:
    """Read the base's manifests, and over them those given, which must fit this mixture."""
    settings: dict[Key, Manifest] = {}
    if request.base is not None:
        for path in sorted((request.base / MANIFESTS).glob("*.yaml")):
            settings |= read_settings(_read_text(path), str(path))
    known = {request.mixture} | {f"{request.mixture}-{name}" for name in names}
    for path in request.settings:
        given = read_settings(_read_text(path), str(path))
        for kind, name in given:
            if name not in known:
                raise BadCheckpoint(f"{path} is about {kind} {name}; there are {sorted(known)}")
        settings |= given
    return settings


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path} cannot be read: {error}") from None
