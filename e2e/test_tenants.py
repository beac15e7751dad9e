"""Two tenants share a mixture: one over its quota, one unharmed; a stranger gets nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import pytest

import moe_client
from e2e.stage.kube import wait_for
from e2e.stage.tiny import Tiny
from e2e.stage.watching import Watch
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad

TOKENS = {"small": "e2e-small", "greedy": "e2e-greedy"}
PANELS = (
    "Rows by tenant",
    "Requests over a quota",
    "Wait for a turn, p99",
    "Calls without a valid token",
)
TENANTS = [{"name": "small"}, {"name": "greedy", "rowsPerSecond": 1}]


@contextmanager
def shared(tiny: Tiny) -> Iterator[None]:
    """The mixture has tenants; afterwards it is open to all again."""
    kube, name = tiny.kube, f"{tiny.mixture}-tenants"
    digests = [f"--from-literal={t}={sha256(s.encode()).hexdigest()}" for t, s in TOKENS.items()]
    kube.run("create", "secret", "generic", name, *digests)
    kube.patch("mixture", tiny.mixture, {"spec": {"tenants": TENANTS}})
    try:
        yield
    finally:
        kube.patch("mixture", tiny.mixture, {"spec": {"tenants": None}})
        wait_for("all may ask again", lambda: routers_with(tiny, tenants=False), 120)
        kube.run("delete", "secret", name)


def routers_with(tiny: Tiny, *, tenants: bool) -> bool:
    """Return whether all routers are ready, and all with tenants or all without."""
    pods = tiny.pods(component="router")
    return bool(pods) and all(
        pod["status"].get("containerStatuses", [{}])[0].get("ready")
        and ("MOE_TENANTS" in json.dumps(pod["spec"])) == tenants
        for pod in pods
    )


def told(watch: Watch) -> bool:
    """Return whether dashboards had data of tenants: in no other scenario there are any."""
    return all(watch.shown("mixtures", panel) for panel in PANELS)


def test_one_over_its_quota_harms_nobody(
    tiny: Tiny, scripture: Recording, watch: Watch | None
) -> None:
    with shared(tiny):
        wait_for("routers know tenants", lambda: routers_with(tiny, tenants=True), 120)
        stranger = moe_client.RouterClient(tiny.addresses(), token="e2e-nobody")
        with stranger, pytest.raises(moe_client.Unauthenticated, match="authorization"):
            stranger.describe()
        options = {"mixture": tiny.mixture, "sessions": 2, "rows": 8, "timeout_s": 2.0}
        with (
            SteadyLoad(tiny.addresses(), scripture, token=TOKENS["greedy"], **options) as greedy,  # type: ignore[arg-type]
            SteadyLoad(tiny.addresses(), scripture, token=TOKENS["small"], **options) as small,  # type: ignore[arg-type]
        ):
            wait_for("the small one is served", lambda: small.requests >= 200, 60)
            wait_for("the greedy one is refused", lambda: greedy.report().failed > 0, 30)
            wait_for("dashboards show them", lambda: watch is None or told(watch), 60, interval_s=1)
            seen, refused = small.report(), greedy.report()
    assert seen.failed == 0, seen.failures
    assert "quota rowsPerSecond of tenant greedy is 1" in json.dumps(refused.to_dict())
