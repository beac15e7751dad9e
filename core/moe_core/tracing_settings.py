"""Whether a program is traced, and where its spans go: OpenTelemetry's own variables. Pure.

Read once, at the edge, so that what is wrong ends a program at its start; the SDK would only warn.
What is not here (headers, certificates, time-outs, sizes of batches) the SDK reads itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PARENT_BASED: Final = "parentbased_"
_RATIO: Final = "traceidratio"
_SAMPLERS: Final = tuple(
    parent + root for parent in (PARENT_BASED, "") for root in ("always_on", "always_off", _RATIO)
)

# variable, default, what: as the reference shows them
VARIABLES: Final = (
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "", "where spans are sent by OTLP over gRPC: http://HOST:4317 "
     "or https://HOST:4317; without it nothing is traced and OpenTelemetry is not loaded"),
    ("OTEL_TRACES_SAMPLER", "parentbased_always_on", f"one of {', '.join(_SAMPLERS)}; of "
     "`parentbased_` the caller's `traceparent` decides where there is one"),
    ("OTEL_TRACES_SAMPLER_ARG", "1", "the share that `traceidratio` samples, from 0 to 1"),
    ("OTEL_SERVICE_NAME", "", "the service's name; default: moe-router or moe-worker"),
    ("OTEL_RESOURCE_ATTRIBUTES", "", "what all spans say: key=value, with commas between"),
    ("OTEL_TRACES_EXPORTER", "otlp", "otlp, or none for no traces"),
    ("OTEL_SDK_DISABLED", "false", "true for no traces"),
)  # fmt: skip


class BadTracing(ValueError):
    """A variable is wrong; the message names it, its value and what would be right."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans go to `endpoint`; of requests whose caller has not decided, the share `ratio`.

    Where it is not `parent_based` the caller's decision counts for nothing. `resource` is what
    all spans say.
    """

    endpoint: str
    parent_based: bool = True
    ratio: float = 1.0
    resource: Mapping[str, str] = field(default_factory=dict)


def read_tracing(environment: Mapping[str, str]) -> Tracing | None:
    """Read the variables; None where nothing is to be traced. Raises BadTracing."""
    given = {name: text for name, value in environment.items() if (text := value.strip())}
    disabled = given.get("OTEL_SDK_DISABLED", "false").lower()
    _one_of("OTEL_SDK_DISABLED", disabled, ("true", "false"))
    exporter = given.get("OTEL_TRACES_EXPORTER", "otlp")
    _one_of("OTEL_TRACES_EXPORTER", exporter, ("otlp", "none"))
    where = next((name for name in ENDPOINTS if name in given), None)
    if where is None or disabled == "true" or exporter == "none":
        return None
    for name in PROTOCOLS:
        _one_of(name, given.get(name, "grpc"), ("grpc",))
    sampler = given.get("OTEL_TRACES_SAMPLER", f"{PARENT_BASED}always_on")
    _one_of("OTEL_TRACES_SAMPLER", sampler, _SAMPLERS)
    root = sampler.removeprefix(PARENT_BASED)
    share = given.get("OTEL_TRACES_SAMPLER_ARG", "1")
    ratio = _ratio(share) if root == _RATIO else float(root == "always_on")
    resource = _resource(given.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if "OTEL_SERVICE_NAME" in given:
        resource["service.name"] = given["OTEL_SERVICE_NAME"]
    return Tracing(_endpoint(where, given[where]), sampler != root, ratio, resource)


def _one_of(name: str, value: str, right: tuple[str, ...]) -> None:
    if value not in right:
        text = right[0] if len(right) == 1 else f"one of {', '.join(right)}"
        raise BadTracing(f"{name} is {value!r:.80}; it must be {text}")


def _endpoint(name: str, text: str) -> str:
    parts = urlsplit(text)
    try:
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:  # a port that is none
        whole = None
    if not whole or parts.path.strip("/"):
        right = "http://HOST:PORT, or https://HOST:PORT, of a collector's gRPC (its port 4317)"
        raise BadTracing(f"{name} is {text!r:.80}; it must be {right}")
    return text


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        right = "a number from 0 to 1"
        raise BadTracing(f"OTEL_TRACES_SAMPLER_ARG is {text!r:.80}; it must be {right}")
    return ratio


def _resource(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = pair.partition("=")
        if not (key.strip() and equals):
            right = "key=value, with commas between"
            raise BadTracing(f"OTEL_RESOURCE_ATTRIBUTES has {pair!r:.80}; it must be {right}")
        found[key.strip()] = unquote(value.strip())
    return found
