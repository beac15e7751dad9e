"""Tells the story of the demo on the cluster that KUBECONFIG names, and keeps the cluster."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from transformers.utils import logging

from e2e.demo import acts
from e2e.demo.promises import summary
from e2e.demo.telling import Teller
from e2e.stage.kube import Kube
from e2e.stage.tiny import NAMESPACE, Models, Tiny
from examples.tiny.publish import compare, publish

ROOT = Path(__file__).resolve().parents[2]

# Of 8 rows each: what two cores carry beside a cluster, its pods and the client.
RATE = 50

NEXT = f"""\
The cluster stays up. To go on by hand:
  . .moe/env
  kubectl moe status tiny -n {NAMESPACE}
  kubectl moe history tiny-e3 -n {NAMESPACE}
  kubectl apply -n {NAMESPACE} -f examples/tiny/rollouts/e3-v2-worse.yaml
  kubectl moe status ex/tiny-e3 -n {NAMESPACE} -w
  python -m moe_client.load --help
To take everything away: make clean"""


def main() -> int:
    """Return 0 where every promise was kept, 1 where one was not."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tell = Teller()
    tell.chapter("The example model: one artifact for each expert and gate")
    compare(publish(ROOT / ".moe" / "artifacts", tell.line))
    tiny = Tiny(Kube(NAMESPACE))
    if tiny.kube.get("mixture", tiny.mixture):
        tell.chapter("Taking the mixture of an earlier run away, to begin from nothing")
        tiny.delete()
    stage = acts.Stage(tiny, Models.load(torch.bfloat16), tell)
    tell.chapter("kubectl apply -f examples/tiny/serve")
    acts.apply(stage)
    tell.chapter("Held-out text through the model, its experts on the cluster")
    acts.read(stage)
    tell.chapter(f"{RATE} requests/s from now on; a worse version of expert e3")
    with tiny.load(acts.recordings(stage), requests_per_s=RATE) as load:
        acts.worsen(stage, load)
        tell.chapter("A better version of expert e3")
        acts.improve(stage, load)
        tell.chapter("A broken version of expert e2: it answers NaN")
        acts.break_it(stage, load)
        tell.chapter(
            "kubectl moe rollback tiny-e3 --to v1: the promoted version is not wanted after all"
        )
        acts.roll_back(stage, load)
        tell.chapter("A worker is killed")
        acts.kill_worker(stage, load)
        tell.chapter("A node is switched off")
        acts.lose_node(stage, load)
    tell.chapter("Promises")
    text, code = summary(stage.measured)
    print(text)
    print(f"\n{NEXT}")
    return code


if __name__ == "__main__":
    sys.exit(main())
