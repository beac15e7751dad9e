"""Makes PromQL of the metrics that programs describe, so that names and labels cannot be wrong.

Every selector keeps to the variables of the dashboard. Routers and workers are found by the
`namespace` that Prometheus sets, which is their Mixture's; the operator tells of each Mixture's as
`mixture_namespace`.
"""

from __future__ import annotations

from moe_core.metrics import Family, Kind

RATE = "$__rate_interval"
OF_MIXTURE = ("namespace", "mixture")
TOLD_MIXTURE = ("mixture_namespace", "mixture")
DEGRADED = 'rung!~"Replica|Stable"'


def select(family: Family, *matchers: str, suffix: str = "") -> str:
    """Return a selector of a family; `suffix` is for histograms: `_bucket`, `_sum`, `_count`."""
    name = family.name + (suffix or ("" if family.kind is Kind.HISTOGRAM else _suffix(family)))
    if name not in family.names:
        raise ValueError(f"{name} is no name of {family.name}; it has {', '.join(family.names)}")
    return f"{name}{{{','.join((*_places(family), *matchers))}}}"


def _suffix(family: Family) -> str:
    return family.names[0].removeprefix(family.name)


def _places(family: Family) -> tuple[str, ...]:
    own = ('job=~"$job"', 'instance=~"$instance"')
    if "mixture" not in family.labels:
        return own
    place = "mixture_namespace" if "mixture_namespace" in family.labels else "namespace"
    return (*own, f'{place}=~"$namespace"', 'mixture=~"$mixture"')


def total(family: Family, *by: str, where: tuple[str, ...] = ()) -> str:
    """Return the sum of a gauge."""
    return f"sum{_by(by)} ({select(family, *where)})"


def rate(family: Family, *by: str, where: tuple[str, ...] = ()) -> str:
    """Return the sum of a counter's rates, a second."""
    return f"sum{_by(by)} (rate({select(family, *where)}[{RATE}]))"


def ratio(part: Family, whole: Family, *by: str, where: tuple[str, ...] = ()) -> str:
    """Return one counter's rate as a share of another's; `where` holds of the part alone."""
    return f"{rate(part, *by, where=where)} / {rate(whole, *by)}"


def quantile(q: float, family: Family, *by: str, where: tuple[str, ...] = ()) -> str:
    """Return a quantile of a histogram, in seconds."""
    buckets = f"rate({select(family, *where, suffix='_bucket')}[{RATE}])"
    return f"histogram_quantile({q:g}, sum{_by((*by, 'le'))} ({buckets}))"


def mean(family: Family, *by: str) -> str:
    """Return the mean of a histogram, in seconds."""
    parts = (
        f"sum{_by(by)} (rate({select(family, suffix=suffix)}[{RATE}]))"
        for suffix in ("_sum", "_count")
    )
    return " / ".join(parts)


def top(count: int, query: str) -> str:
    """Return the largest few: a mixture may have thousands of experts."""
    return f"topk({count}, {query})"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
