"""The fleet: is every mixture whole, is it answered, what is being rolled out."""

from __future__ import annotations

from typing import Final

from dashboards.panels import ANY_IS_BAD, Board, Look, Query, Row, panel
from dashboards.queries import (
    DEGRADED,
    OF_MIXTURE,
    RATE,
    TOLD_MIXTURE,
    quantile,
    rate,
    ratio,
    select,
    top,
    total,
)
from dashboards.variables import OF_MIXTURES
from moe_operator import metrics as operator
from moe_router import metrics as router

_ROUTED: Final = "{{namespace}}/{{mixture}}"
_TOLD: Final = "{{mixture_namespace}}/{{mixture}}"


def _not(kind: str) -> str:
    """Return how many objects of a kind are not Ready; 0 where all are."""
    ready = select(operator.READY, f'kind="{kind}"')
    return f"sum (1 - {ready})"


_STATE: Final = Row(
    "Now",
    (
        panel(
            "Mixtures not ready",
            "Mixtures whose condition Ready does not hold.",
            "none",
            (_not("Mixture"), "not ready"),
            steps=ANY_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Experts not ready",
            "Experts whose stable version is not served.",
            "none",
            (_not("Expert"), "not ready"),
            steps=ANY_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Gates not ready",
            "Gates whose stable version is not served.",
            "none",
            (_not("Gate"), "not ready"),
            steps=ANY_IS_BAD,
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Rollouts under way",
            "Experts and Gates with a version on trial, paused ones too.",
            "none",
            (total(operator.ROLLOUTS, where=('outcome=~"Progressing|Paused"',)), "under way"),
            look=Look.NUMBER,
            width=6,
        ),
        panel(
            "Mixtures",
            "Epoch of the stored table, routers that are ready and those wanted, and how many "
            "objects serve with less than was asked for.",
            "none",
            Query(f"max by ({', '.join(TOLD_MIXTURE)}) ({select(operator.EPOCH)})", "Epoch"),
            Query(total(operator.ROUTERS_READY, *TOLD_MIXTURE), "Routers ready"),
            Query(total(operator.ROUTERS_WANTED, *TOLD_MIXTURE), "Routers wanted"),
            Query(total(operator.DEGRADED, *TOLD_MIXTURE), "Degraded objects"),
            look=Look.TABLE,
            width=24,
        ),
    ),
)

_TRAFFIC: Final = Row(
    "Traffic",
    (
        panel(
            "Requests",
            "Requests that reach routers, each the rows of one layer.",
            "reqps",
            (top(20, rate(router.REQUESTS, *OF_MIXTURE)), _ROUTED),
        ),
        panel(
            "Failed share",
            "Share of requests that got no answer.",
            "percentunit",
            (top(20, ratio(router.FAILURES, router.REQUESTS, *OF_MIXTURE)), _ROUTED),
            steps=((0.001, "yellow"), (0.01, "red")),
        ),
        panel(
            "Latency, p99",
            "Time of answered requests in the router.",
            "s",
            (top(20, quantile(0.99, router.ANSWERS, *OF_MIXTURE)), _ROUTED),
            steps=((0.25, "yellow"), (1, "red")),
        ),
        panel(
            "Degraded share",
            "Share of (row, slot) pairs answered by something else than the version that the "
            "session is on: backup, dense expert, the other choices, or nothing.",
            "percentunit",
            (
                top(20, ratio(router.RUNG_ROWS, router.RUNG_ROWS, *OF_MIXTURE, where=(DEGRADED,))),
                _ROUTED,
            ),
            steps=((0.001, "yellow"), (0.05, "red")),
        ),
        panel(
            "Rows under way",
            "Rows that routers work on; beyond --max-rows they refuse.",
            "short",
            (top(20, total(router.ROWS_UNDER_WAY, *OF_MIXTURE)), _ROUTED),
            steps=((50_000, "yellow"), (65_000, "red")),
        ),
        panel(
            "Clients",
            "Streams that clients have open.",
            "short",
            (top(20, total(router.STREAMS, *OF_MIXTURE)), _ROUTED),
        ),
    ),
)

_ROLLOUTS: Final = Row(
    "Rollouts",
    (
        panel(
            "Weight of candidates",
            "Share of new sessions that see a candidate.",
            "percentunit",
            (
                top(
                    20,
                    f"max by ({', '.join(TOLD_MIXTURE)}, kind, name, version) "
                    f"({select(operator.WEIGHT)})",
                ),
                f"{_TOLD} {{{{kind}}}} {{{{name}}}} {{{{version}}}}",
            ),
            width=12,
            empty="while nothing is rolled out",
        ),
        panel(
            "Last rollouts by outcome",
            "Experts and Gates by how their last rollout stands.",
            "none",
            (total(operator.ROLLOUTS, "kind", "outcome"), "{{kind}} {{outcome}}"),
            width=12,
        ),
        panel(
            "Duration, median",
            "From when a version was asked for until its rollout ended, by outcome.",
            "s",
            (
                "histogram_quantile(0.5, sum by (outcome, le) (increase("
                f"{select(operator.DURATION, suffix='_bucket')}[{RATE}])))",
                "{{outcome}}",
            ),
            width=12,
            empty="until a rollout ends while it is looked at",
        ),
    ),
)

_WITH_TENANTS: Final = "where no mixture has tenants"
_TENANT: Final = f"{_ROUTED} {{{{tenant}}}}"

_TENANTS: Final = Row(
    "Tenants",
    (
        panel(
            "Rows by tenant",
            "Rows let in, of the tenants with most.",
            "rowsps",
            (top(20, rate(router.TENANT_ROWS, *OF_MIXTURE, "tenant")), _TENANT),
            empty=_WITH_TENANTS,
        ),
        panel(
            "Requests over a quota",
            "Refused as RESOURCE_EXHAUSTED, with when to try again.",
            "reqps",
            (
                top(20, rate(router.TENANT_REFUSED, *OF_MIXTURE, "tenant", "quota")),
                f"{_TENANT}: {{{{quota}}}}",
            ),
            steps=ANY_IS_BAD,
            empty=_WITH_TENANTS,
        ),
        panel(
            "Wait for a turn, p99",
            "How long requests wait where more is at work than a router takes at once.",
            "s",
            (top(20, quantile(0.99, router.TENANT_DELAY, *OF_MIXTURE, "tenant")), _TENANT),
            steps=((0.05, "yellow"), (0.25, "red")),
            empty=_WITH_TENANTS,
        ),
        panel(
            "Calls without a valid token",
            "Refused as UNAUTHENTICATED, where a mixture has tenants.",
            "reqps",
            (top(20, rate(router.UNAUTHENTICATED, *OF_MIXTURE)), _ROUTED),
            steps=ANY_IS_BAD,
            empty=_WITH_TENANTS,
        ),
    ),
)

MIXTURES: Final = Board(
    "mixtures",
    "Mixtures",
    "All mixtures: whether they are whole, how they answer, what is being rolled out.",
    OF_MIXTURES,
    (_STATE, _TRAFFIC, _TENANTS, _ROLLOUTS),
)
