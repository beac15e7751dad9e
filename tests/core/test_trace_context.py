"""W3C trace contexts, and what the variables of OpenTelemetry say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.tracing import Context
from moe_core.tracing_settings import BadTracing, Tracing, read_tracing

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HERE = {ENDPOINT: "http://c:4317"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(HEADER, Context(TRACE, SPAN), id="sampled"),
        pytest.param(f"{HEADER[:-2]}00", Context(TRACE, SPAN, False), id="not sampled"),
        pytest.param(f"{HEADER[:-2]}03", Context(TRACE, SPAN), id="with other flags"),
        pytest.param(f"01{HEADER[2:]}-more", Context(TRACE, SPAN), id="of a later version"),
        pytest.param(f"{HEADER}-more", None, id="more than version 00 has"),
        pytest.param(f"ff{HEADER[2:]}", None, id="the version that there is not"),
        pytest.param(HEADER.upper(), None, id="upper case"),
        pytest.param(f"00-{'0' * 32}-00f067aa0ba902b7-01", None, id="no trace"),
        pytest.param(f"00-{TRACE:032x}-{'0' * 16}-01", None, id="no span"),
        pytest.param("", None, id="empty"),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(header: str, expected: Context | None) -> None:
    assert Context.parse(header) == expected


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_context_is_what_its_header_says(trace: int, span: int, sampled: bool) -> None:
    context = Context(trace, span, sampled)
    assert Context.parse(context.traceparent) == context
    assert context.ids == {
        "trace_id": context.traceparent[3:35],
        "span_id": context.traceparent[36:52],
    }


@given(st.text())
def test_nonsense_is_as_if_nothing_were_said(text: str) -> None:
    assert Context.parse(text) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param({}, None, id="nothing said"),
        pytest.param({ENDPOINT: ""}, None, id="an empty endpoint"),
        pytest.param(HERE | {"OTEL_SDK_DISABLED": "true"}, None, id="disabled"),
        pytest.param(HERE | {"OTEL_TRACES_EXPORTER": "none"}, None, id="no exporter"),
        pytest.param(HERE, Tracing("http://c:4317"), id="everything, and what parents say"),
        pytest.param(
            HERE | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://d:1"},
            Tracing("https://d:1"),
            id="an endpoint for traces alone",
        ),
        pytest.param(
            HERE
            | {
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.01",
            },
            Tracing("http://c:4317", True, 0.01),
            id="a share",
        ),
        pytest.param(
            HERE | {"OTEL_TRACES_SAMPLER": "always_off"},
            Tracing("http://c:4317", False, 0.0),
            id="nothing, whatever parents say",
        ),
        pytest.param(
            HERE
            | {"OTEL_SERVICE_NAME": "s", "OTEL_RESOURCE_ATTRIBUTES": "a=b%20c, service.name=x"},
            Tracing("http://c:4317", resource={"a": "b c", "service.name": "s"}),
            id="a name and attributes",
        ),
    ],
)
def test_the_variables_say_what_is_traced(
    variables: dict[str, str], expected: Tracing | None
) -> None:
    assert read_tracing(variables) == expected


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({ENDPOINT: "c:4317"}, "it must be http://HOST:PORT"),
        ({ENDPOINT: "http://c"}, "it must be http://HOST:PORT"),
        ({ENDPOINT: "http://c:4318/v1/traces"}, "it must be http://HOST:PORT"),
        ({ENDPOINT: "http://c:99999"}, "it must be http://HOST:PORT"),
        (HERE | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "it must be grpc"),
        (HERE | {"OTEL_TRACES_SAMPLER": "jaeger"}, "it must be one of parentbased_always_on, "),
        (
            HERE | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "5%"},
            "OTEL_TRACES_SAMPLER_ARG is '5%'; it must be a number from 0 to 1",
        ),
        (HERE | {"OTEL_RESOURCE_ATTRIBUTES": "a"}, "has 'a'; it must be key=value"),
        ({"OTEL_SDK_DISABLED": "yes"}, "OTEL_SDK_DISABLED is 'yes'; it must be one of true, false"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "it must be one of otlp, none"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(
    variables: dict[str, str], sentence: str
) -> None:
    with pytest.raises(BadTracing, match=sentence.replace("(", r"\(")):
        read_tracing(variables)
