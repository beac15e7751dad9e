"""A plain kopf operator, as one writes it first: an index, a timer and an update handler.

It keeps one ConfigMap for each mixture, with a row for each Expert, and does nothing else. It is
run by `kopf run`, in `tests.benchmarks.operators`.
"""

from __future__ import annotations

import json
import os
from typing import Any

import kopf
from kubernetes import client, config

EXPERTS = ("moeops.dev", "v1alpha1", "experts")
LABEL = "moeops.dev/mixture"
EVERY_S = 10.0


@kopf.on.startup()
def connect(memo: kopf.Memo, **_: Any) -> None:
    """Have a client, and remember what was written: shared by the memos of all objects."""
    config.load_kube_config(os.environ["KUBECONFIG"])  # type: ignore[no-untyped-call]
    memo.api, memo.written = client.CoreV1Api(), {}


@kopf.index(*EXPERTS)
def rows(name: str, spec: kopf.Spec, **_: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Know the row of each Expert, by its mixture."""
    row = {"expertId": spec["expertId"], "version": spec["version"], **spec["artifact"]}
    return {spec["mixtureRef"]["name"]: (name, row)}


@kopf.timer(*EXPERTS, interval=EVERY_S)
def look(spec: kopf.Spec, namespace: str | None, memo: kopf.Memo, **known: Any) -> None:
    """Look whether the table is as it should be."""
    keep(spec["mixtureRef"]["name"], str(namespace), memo, known["rows"])


@kopf.on.update(*EXPERTS)
def change(spec: kopf.Spec, namespace: str | None, memo: kopf.Memo, **known: Any) -> None:
    """Do at once what the timer would do."""
    keep(spec["mixtureRef"]["name"], str(namespace), memo, known["rows"])


def keep(mixture: str, namespace: str, memo: kopf.Memo, known: kopf.Index[str, Any]) -> None:
    """Write the table of a mixture, unless it was written so before."""
    table = json.dumps([row for _, row in sorted(known[mixture])])
    if memo.written.get(mixture) == table:
        return
    body = {"metadata": {"name": mixture, "labels": {LABEL: mixture}}, "data": {"table": table}}
    try:
        memo.api.patch_namespaced_config_map(mixture, namespace, body)
    except client.ApiException as error:
        if error.status != 404:
            raise
        memo.api.create_namespaced_config_map(namespace, body)
    memo.written[mixture] = table
