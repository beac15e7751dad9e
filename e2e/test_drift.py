"""Traffic that shifts: nothing is said of the same mix, and a shift is, and pauses what rolls out.

Under a gate it goes to other experts; under an expert its answers have another size.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from e2e.stage.kube import Body, condition, wait_for
from e2e.stage.requests import four_times
from e2e.stage.tiny import Tiny
from e2e.stage.watching import Watch
from e2e.test_gates import gate, status, weights
from examples.tiny.publish import SERVE
from moe_client.recording import Recording

# Slow enough to be still under way when it is looked at; nothing but the drift is waited for.
SLOW = {
    "steps": [{"weightPercent": 5, "pauseSeconds": 600}],
    "minRequests": 0,
    "shadowPercent": 0,
    "scaleDownDelaySeconds": 1,
}


def recorded(tiny: Tiny) -> dict[str, Any]:
    """Return how the gate spreads rows in the next seconds, as a person would record it."""
    done = tiny.kube.moe("baseline", "tiny-gate", "--window", "8s", "-o", "json")
    assert done.returncode == 0, done.stderr
    drift: dict[str, Any] = json.loads(done.stdout)["spec"]["drift"]
    return drift


def attended() -> Body:
    """Return expert e3 with limits on its health."""
    body: Body = yaml.safe_load((SERVE / "e3.yaml").read_text())
    limits = {"maxErrorPercent": 20, "maxNormChangePercent": 100}
    body["spec"]["health"] = {"windowAttempts": 256, **limits, "onAlarm": "Pause"}
    return body


def said(tiny: Tiny, kind: str) -> tuple[str, str]:
    return verdict({"status": status(tiny)}, kind)


def verdict(body: Body, kind: str) -> tuple[str, str]:
    found = condition(body, kind)
    return str(found.get("status")), str(found.get("reason"))


def test_a_shift_of_the_text_is_told_and_pauses_what_is_rolling_out(
    tiny: Tiny, recording: Recording, scripture: Recording, watch: Watch | None
) -> None:
    sharper = {layer: (w * 1.125).astype(w.dtype) for layer, w in weights().items()}
    body = gate("v2-drift", sharper)
    with tiny.load(recording, rows=64) as load:
        drift = {**recorded(tiny), "windowRows": 4096, "onDrift": "Pause"}
        body["spec"] |= {"drift": drift, "rollout": SLOW}
        tiny.kube.apply(body)
        wait_for("it goes on", lambda: status(tiny).get("weight") == "5%", 60)
        assert said(tiny, "Drifting") == ("False", "WithinLimits")
        assert load.report().failed == 0, load.report().failures
    with tiny.load(scripture, rows=64):
        wait_for("the shift is told", lambda: said(tiny, "Drifting")[0] == "True", 60)
        wait_for("it pauses", lambda: said(tiny, "Progressing") == ("False", "Drifting"), 20)
        if watch is not None:  # the whole suite runs, and Prometheus looks on
            wait_for("it is alerted", lambda: "MoeRoutingDrift" in watch.fired(), 60, 1)
    found = status(tiny)
    assert found["rollout"]["outcome"] == "Paused"
    assert found["weight"] == "5%"
    assert "is at PSI" in condition({"status": found}, "Drifting")["message"]


def test_an_expert_whose_answers_change_in_size_is_told_and_pauses_what_is_rolling_out(
    tiny: Tiny, scripture: Recording
) -> None:
    sharper = {layer: (w * 1.125).astype(w.dtype) for layer, w in weights().items()}
    body = gate("v2-sharper", sharper)
    body["spec"]["rollout"] = SLOW
    with tiny.load(scripture, rows=64) as load:
        tiny.kube.apply(attended())
        within = ("False", "WithinLimits")
        wait_for("it is well", lambda: verdict(tiny.expert(), "NormShifted") == within, 60)
        norm = tiny.expert()["status"]["health"]["meanNorm"]
        assert verdict(tiny.expert(), "Failing") == within
        tiny.kube.apply(body)
        wait_for("it goes on", lambda: status(tiny).get("weight") == "5%", 60)
        assert load.report().failed == 0, load.report().failures
    with tiny.load(four_times(scripture), rows=64):
        shifted = ("True", "AnswersChanged")
        wait_for("it is told", lambda: verdict(tiny.expert(), "NormShifted") == shifted, 60)
        wait_for("it pauses", lambda: said(tiny, "Progressing") == ("False", "Unhealthy"), 20)
        told = tiny.kube.moe("status", "ex/tiny-e3").stdout
    assert status(tiny)["rollout"]["outcome"] == "Paused"
    assert tiny.expert()["status"]["health"]["meanNorm"] == norm
    assert "NormShifted" in told
    assert "maxNormChangePercent is 100" in told
    events = tiny.kube.list("events.events.k8s.io")
    reasons = {e["reason"] for e in events if e["regarding"]["name"] == "tiny-e3"}
    assert "AnswersChanged" in reasons
