"""`make soak`: rollouts of random experts, one after another under load: what fails, what grows.

Each expert has two versions, of which the second answers twice as much: so the bits of every
answer say who gave it, and whether that is what the session's pins say. Both stay warm, so that a
rollout is the operator's and the routers' work and not that of starting pods. Ends with 1 where
anything failed, had other bits than any version gives, or was not by its pins, and where no pin
could be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers.utils import logging

from e2e.soak.pins import FACTORS, Pins, known_answers
from e2e.stage.kube import Body, Kube, wait_for
from e2e.stage.restore import AT_ONCE, restore
from e2e.stage.tiny import NAMESPACE, Models, Tiny
from examples.tiny.publish import MOUNTED_AT, publish
from moe_artifacts.artifact import encode, read_expert
from moe_core.table import Table

ROOT: Final = Path(__file__).resolve().parents[2]
ARTIFACTS: Final = ROOT / ".moe" / "artifacts"
EXPERTS: Final = tuple(f"e{number}" for number in range(8))
WARM: Final = {**AT_ONCE, "scaleDownDelaySeconds": 86_400}
# Runs in a pod.
_RSS: Final = "print(open('/proc/1/status').read().partition('VmRSS:')[2].split()[0])"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: since the begin in seconds, and resident memory of each pod in MiB."""

    at_s: float
    rss: Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line a minute, and sum up."""
    parser = argparse.ArgumentParser(prog="python -m e2e.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (20)")
    parser.add_argument("--seed", type=int, default=0, help="of which expert is next (0)")
    given = parser.parse_args(arguments)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("making artifacts, and bringing the example model up", flush=True)
    publish(ARTIFACTS, lambda line: None)
    tiny = Tiny(Kube(NAMESPACE))
    restore(tiny)
    try:
        return soak(tiny, given.minutes * 60, random.Random(given.seed))
    finally:
        restore(tiny)


def soak(tiny: Tiny, seconds: float, draw: random.Random) -> int:
    """Return 0 where no request failed, and each was answered as its session's pins say."""
    first = {name: spec_of(tiny, name) for name in EXPERTS}
    versions = {name: (spec, doubled(name, spec)) for name, spec in first.items()}
    rollouts = Rollouts(tiny)
    for name in EXPERTS:  # both versions are started once
        tiny.kube.patch("expert", f"tiny-{name}", {"spec": {"rollout": WARM}})
        for version in (1, 0):
            rollouts.change(name, versions[name][version])
    current, done, marks = dict.fromkeys(EXPERTS, 0), 0, [mark(tiny, 0.0)]
    models = Models.load(torch.bfloat16)
    recording = models.recording()
    pins = Pins(known_answers(models.local, recording))
    print(
        f"{'min':>4}{'rollouts':>10}{'requests':>10}{'failed':>8}{'different':>11}  MiB of each pod"
    )
    with tiny.load(recording, judge=pins.differs) as load:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            name = draw.choice(EXPERTS)
            current[name] = 1 - current[name]
            rollouts.change(name, versions[name][current[name]])
            done += 1
            if now - marks[-1].at_s >= min(60.0, seconds / 4):
                marks.append(mark(tiny, now))
                report = load.report()
                held = ", ".join(f"{pod} {rss:.0f}" for pod, rss in marks[-1].rss.items())
                print(
                    f"{now / 60:>4.0f}{done:>10}{report.requests:>10}{report.failed:>8}"
                    f"{report.different:>11}  {held}",
                    flush=True,
                )
        report = load.report()
    print(f"\n{done} rollouts in {seconds / 60:.0f} minutes, each promoted")
    print("\n".join(line for line in report.lines() if not line.startswith("epochs")))
    digests = [[spec["artifact"]["sha256"] for spec in versions[name]] for name in EXPERTS]
    verdict = pins.verdict(rollouts.tables, digests)
    print("\n".join(verdict.lines()))
    for pod, slope in slopes(marks).items():
        print(f"{pod:<40} {slope:+.1f} MiB an hour")
    return int(report.failed + report.different > 0 or not verdict.kept)


def spec_of(tiny: Tiny, name: str) -> Body:
    spec = tiny.expert(f"tiny-{name}")["spec"]
    return {"version": spec["version"], "artifact": spec["artifact"]}


def doubled(name: str, spec: Body) -> Body:
    """Write the other version of an expert; return what an Expert says of it."""
    source = spec["artifact"]["uri"].removeprefix(f"{MOUNTED_AT}/")
    expert = read_expert(ARTIFACTS / source)

    def look_up(tensor: str) -> Any:
        _, layer, projection = tensor.split(".")
        array = getattr(expert.layers[int(layer)], projection)
        factor = FACTORS[1] if projection == "down_proj" else 1.0
        return (array.astype(np.float32) * factor).astype(array.dtype)

    content = b"".join(bytes(piece) for piece in encode(expert.metadata, look_up))
    path = ARTIFACTS / "tiny" / "soak" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    uri = f"{MOUNTED_AT}/tiny/soak/{path.name}"
    digest = hashlib.sha256(content).hexdigest()
    return {"version": "doubled", "artifact": {"uri": uri, "sha256": digest}}


@dataclass(slots=True)
class Rollouts:
    """Changes experts, and keeps the tables that it saw meanwhile, by epoch."""

    tiny: Tiny
    tables: dict[int, Table] = field(default_factory=dict)

    def change(self, name: str, spec: Body) -> None:
        """Have an expert served in another version, and wait until that is promoted."""
        self.tiny.kube.patch("expert", f"tiny-{name}", {"spec": spec})
        sha256 = spec["artifact"]["sha256"]

        def promoted() -> bool:
            row = self._see().expert(name)
            assert row is not None
            return row.candidate is None and [v.sha256 for v in row.named][:1] == [sha256]

        wait_for(f"{spec['version']} of {name} is served", promoted, 120, interval_s=0.1)

    def _see(self) -> Table:
        table = Table.from_object({"spec": self.tiny.kube.table(self.tiny.mixture)})
        return self.tables.setdefault(table.epoch, table)


def mark(tiny: Tiny, at_s: float) -> Mark:
    """Measure the operators and the routers."""
    system = Kube("moeops-system")
    pods = [(tiny.kube, pod) for pod in tiny.pods(component="router")]
    pods += [(system, pod) for pod in system.list("pods", "app.kubernetes.io/component=operator")]
    names = [(kube, pod["metadata"]["name"]) for kube, pod in pods]
    read = {n: kube.run("exec", n, "--", "python3", "-c", _RSS) for kube, n in names}
    return Mark(at_s, {name: int(kib) / 1024 for name, kib in read.items()})


def slopes(marks: Sequence[Mark]) -> dict[str, float]:
    """Return the growth of each pod in MiB an hour, by least squares over the later half."""
    later = marks[len(marks) // 2 :] if len(marks) > 3 else marks
    at_h = [one.at_s / 3600 for one in later]
    names = [name for name in later[-1].rss if all(name in one.rss for one in later)]
    return {n: float(np.polyfit(at_h, [one.rss[n] for one in later], 1)[0]) for n in names}


if __name__ == "__main__":
    sys.exit(main())
