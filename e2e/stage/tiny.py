"""The example model on the cluster: applied, reached, compared with itself in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import MixtralForCausalLM

import moe_client
from e2e.stage import nodes
from e2e.stage.kube import Body, Kube, condition, wait_for
from examples.tiny import model as example
from examples.tiny.domains import DOMAINS
from examples.tiny.publish import ROLLOUTS, SERVE
from moe_client.recorder import record
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad

NAMESPACE = "moe"
READY_S = 240.0


@dataclass(frozen=True, slots=True)
class Tiny:
    """A mixture that serves the example model's experts in one namespace."""

    kube: Kube
    mixture: str = "tiny"

    def apply(self) -> float:
        """Apply the manifests and wait until all is ready; return how long that took, in s."""
        began = time.monotonic()
        self.kube.apply(SERVE)
        self.wait_ready()
        return time.monotonic() - began

    def delete(self) -> None:
        """Take the mixture away with all that was made for it, if it is there."""
        kube, anyway = self.kube, "moeops.dev/delete-anyway"
        about = {self.mixture}
        for kind in ("expert", "gate"):
            for body in self._mine(kind):
                name = body["metadata"]["name"]
                about.add(name)
                kube.run("annotate", kind, name, f"{anyway}=true", "--overwrite")
                kube.delete(kind, name, wait=False)
        for body in kube.list("overrides"):  # they would hold again, should the names come back
            if body["spec"]["targetRef"]["name"] in about:
                kube.delete("override", body["metadata"]["name"])
        kube.delete("mixture", self.mixture)
        kube.delete("routingtable", self.mixture)
        label = f"moeops.dev/mixture={self.mixture}"
        wait_for("its pods are gone", lambda: not kube.list("pods", label), 120, interval_s=0.5)

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until mixture, gates and experts are Ready, with all the pods they want."""

        def ready() -> bool:
            bodies = [b for kind in ("mixtures", "gates", "experts") for b in self._mine(kind)]
            return all(_is_ready(body) for body in bodies)

        wait_for(f"{self.mixture} is ready", ready, timeout_s, interval_s=0.5)

    def places(self) -> dict[str, set[str]]:
        """Return the nodes that carry pods of each Expert object, and of the routers."""
        found: dict[str, set[str]] = {}
        for pod in (*self.pods(), *self.pods(component="router")):
            if "deletionTimestamp" not in pod["metadata"]:
                expert = pod["metadata"]["labels"].get("moeops.dev/expert", "routers")
                found.setdefault(expert, set()).add(pod["spec"].get("nodeName", ""))
        return found

    def wait_spread(self, timeout_s: float = 300) -> None:
        """Wait until the replicas of everything are on two nodes, all of them ready."""

        def spread() -> bool:
            return all(len(nodes) > 1 for nodes in self.places().values())

        wait_for("replicas are on two nodes", spread, timeout_s, interval_s=0.5)
        self.wait_ready()

    def roll_out(self, version: str, expert: str = "e3") -> None:
        """Apply a new version of an expert."""
        self.kube.apply(ROLLOUTS / f"{expert}-{version}.yaml")

    def expert(self, name: str = "tiny-e3") -> Body:
        body = self.kube.get("expert", name)
        assert body is not None, f"there is no Expert {name}"
        return body

    def rollout(self, name: str = "tiny-e3") -> Body:
        """Return what an Expert says of its last rollout; nothing while that is of an old spec."""
        return _rollout(self.expert(name))

    def outcome(self, name: str = "tiny-e3") -> str:
        """Return how far the last rollout of an expert has come, as its status says."""
        return str(self.rollout(name).get("outcome", ""))

    def wait_outcome(
        self, version: str, outcome: str, name: str = "tiny-e3", timeout_s: float = 180.0
    ) -> Body:
        """Wait until the rollout of a version has ended so; return the Expert."""

        def ended() -> Body | None:
            body = self.expert(name)
            rollout = _rollout(body)
            arrived = (rollout.get("version"), rollout.get("outcome")) == (version, outcome)
            return body if arrived else None

        return wait_for(f"the rollout of {version} is {outcome}", ended, timeout_s)

    def weights(self, name: str = "tiny-e3") -> list[int]:
        """Return the shares that the last rollout of an expert went through, each once."""
        weights = self.kube.table_row(self.mixture, name)["rollout"]["weights"]
        return list(dict.fromkeys(weight["percent"] for weight in weights))

    def addresses(self) -> list[str]:
        """Return where clients outside the cluster reach the routers: one address per node."""
        return list(self.address_by_node().values())

    def address_by_node(self) -> dict[str, str]:
        """Return where the router on each node is reached: a node hands on only to its own."""
        service = self.kube.get("service", f"{self.mixture}-router")
        assert service is not None, "the operator made no Service of routers"
        port = service["spec"]["ports"][0]["nodePort"]
        return {
            node["metadata"]["name"]: f"{nodes.address(node)}:{port}"
            for node in nodes.workers(self.kube)
        }

    def pods(self, expert: str = "", component: str = "worker", digest: str = "") -> list[Body]:
        """Return the pods of an Expert object, of one version of it, or all of a component."""
        selector = f"moeops.dev/mixture={self.mixture},moeops.dev/component={component}"
        if expert:
            selector += f",moeops.dev/expert={expert}"
        if digest:
            selector += f",moeops.dev/digest={digest}"
        return list(self.kube.list("pods", selector))

    @contextmanager
    def load(self, recording: Recording, **options: Any) -> Iterator[SteadyLoad]:
        """Steady load on the routers, up to speed when the block is entered."""
        settings = {"sessions": 4, "rows": 8, "timeout_s": 10.0, **options}
        with SteadyLoad(self.addresses(), recording, mixture=self.mixture, **settings) as load:
            wait_for("the load is answered", lambda: load.requests >= 20, 30)
            yield load

    def _mine(self, kind: str) -> Iterator[Body]:
        for body in self.kube.list(kind):
            ref = body["spec"].get("mixtureRef", {}).get("name", body["metadata"]["name"])
            if ref == self.mixture:
                yield body


def _rollout(body: Body) -> Body:
    """Return what a status says of a rollout, if it is about the spec as it is now."""
    status = body.get("status", {})
    current = status.get("observedGeneration") == body["metadata"]["generation"]
    rollout: Body = status.get("rollout", {}) if current else {}
    return rollout


def _is_ready(body: Body) -> bool:
    status = body.get("status", {})
    return (
        status.get("observedGeneration") == body["metadata"]["generation"]
        and condition(body, "Ready").get("status") == "True"
        and condition(body, "Degraded").get("status") != "True"
    )


@dataclass(frozen=True, slots=True)
class Models:
    """The model twice: one whose experts will run elsewhere, and the reference beside it."""

    remote: MixtralForCausalLM
    local: MixtralForCausalLM

    @classmethod
    def load(cls, dtype: torch.dtype, checkpoint: Path = example.CHECKPOINT) -> Models:
        local = example.load(dtype, checkpoint)
        moe_client.use_local(local)
        return cls(example.load(dtype, checkpoint), local)

    @torch.inference_mode()
    def max_difference(self, text: bytes) -> float:
        """Return max |Δlogit| between the two over a text, as it is served now."""
        tokens = torch.tensor([list(text)])
        remote = self.remote(input_ids=tokens, use_cache=False).logits
        local = self.local(input_ids=tokens, use_cache=False).logits
        return float((remote - local).abs().max())

    def recording(self, domains: Sequence[str] = DOMAINS, length: int = 64) -> Recording:
        """Return requests made from held-out text, with the answers that are right."""
        texts = (example.heldout(domain)[:length] for domain in domains)
        return record(self.local, [torch.tensor(list(text)) for text in texts])
