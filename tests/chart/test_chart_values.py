"""Every value is bounded by the schema, said in the README, and a wrong one is refused.

After a wanted change: `python -m tests.chart.test_chart_values` writes the README's table anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.chart import charts
from tests.chart.charts import CHART, Values

README = CHART / "README.md"
_TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- /values -->)", re.DOTALL)
SCHEMA: Mapping[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def documented() -> Iterator[tuple[str, str]]:
    """Give path and description of each value that values.yaml has a `# --` comment on."""
    path: list[tuple[int, str]] = []
    words: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# --"):
            words = [text.removeprefix("# --").strip()]
        elif text.startswith("#"):
            words += [text.removeprefix("#").strip()] if words else []
        elif found := re.match(r"( *)([A-Za-z]\w*):", line):
            indent = len(found[1])
            path = [*(step for step in path if step[0] < indent), (indent, found[2])]
            if words:
                yield ".".join(name for _, name in path), " ".join(words)
            words = []


def table() -> str:
    """Return the README's table of values."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = ["| value | default | |", "|---|---|---|"]
    for path, said in documented():
        value = defaults
        for step in path.split("."):
            value = value[step]
        rows.append(f"| `{path}` | `{json.dumps(value)}` | {said.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def leaves(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Give the path of each value whose own fields the schema does not name one by one."""
    for name, value in values.items():
        below = schema["properties"][name]
        inside = isinstance(value, dict) and "properties" in below and value
        if inside and "requests" not in value:
            yield from leaves(value, below, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_every_value_is_said_once_and_has_a_schema() -> None:
    said = [path for path, _ in documented()]
    assert len(said) == len(set(said))
    assert set(said) == set(leaves(yaml.safe_load((CHART / "values.yaml").read_text()), SCHEMA))


def test_the_readme_has_the_values_as_they_are() -> None:
    found = _TABLE.search(README.read_text())
    assert found is not None
    assert found[0] == table(), "run: python -m tests.chart.test_chart_values"


def parts(schema: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give every schema of a value inside this one, with a name for it."""
    yield where, schema
    for name, below in schema.get("properties", {}).items():
        yield from parts(below, f"{where}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key], f"{where}[]")
    for name, below in schema.get("definitions", {}).items():
        yield from parts(below, name)


def bounded(schema: Mapping[str, Any]) -> bool:
    """Return whether a value of this schema cannot be of any size."""
    if schema.keys() & {"$ref", "enum", "allOf"} or schema.get("type") == "boolean":
        return True
    kinds = schema.get("type", "none")
    wanted = {
        "string": schema.keys() >= {"maxLength"},
        "integer": schema.keys() >= {"minimum", "maximum"},
        "array": schema.keys() >= {"maxItems", "items"},
        "object": schema.get("additionalProperties") is False or "maxProperties" in schema,
    }
    return all(wanted[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))


def test_every_value_is_bounded() -> None:
    known = {"notOurs"}  # adds to `labels`, which is bounded
    seen = list(parts(SCHEMA, "values"))
    assert [name for name, schema in seen if name not in known and not bounded(schema)] == []
    assert len(seen) > 60, "the walk through the schema ends too early"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"operator": {"replica": 2}}, "additional properties 'replica' not allowed"),
        ({"operator": {"replicas": 0}}, "'/operator/replicas': minimum: got 0, want 1"),
        ({"operator": {"replicas": "2"}}, "'/operator/replicas': got string, want integer"),
        ({"operator": {"logLevel": "debug"}}, "value must be one of 'DEBUG', 'INFO', 'WARNING'"),
        ({"scope": {"kind": "Namespaces"}}, "'/scope/namespaces': minItems: got 0, want 1"),
        ({"scope": {"namespaces": ["a"]}}, "'/scope/namespaces': maxItems: got 1, want 0"),
        ({"scope": {"kind": "Namespaces", "namespaces": ["A"]}}, "'A' does not match pattern"),
        (
            {"images": {"prefix": "registry.example.com/me"}},
            "'/images/prefix': 'registry.example.com/me' does not match",
        ),
        ({"images": {"operator": "moeops"}}, "'/images/operator': 'moeops' does not match"),
        ({"serviceAccount": {"create": False}}, "'/serviceAccount/name': minLength"),
        ({"operator": {"resources": {"limits": {"cpu": "lots"}}}}, "'lots' does not match"),
        ({"operator": {"podLabels": {"app.kubernetes.io/name": "a"}}}, "/operator/podLabels"),
        ({"commonLabels": {"helm.sh/chart": "a"}}, "/commonLabels"),
        ({"networkPolicy": {"apiServerPorts": [0]}}, "minimum: got 0, want 1"),
        ({"admissionPolicies": {"mutating": True}}, "one of 'Auto', 'Always', 'Never'"),
        ({"tls": {"certManager": True}}, "one of 'Auto', 'Always', 'Never'"),
        ({"tls": {"issuerRef": {"kind": "Issuer"}}}, "/tls/issuerRef"),
        ({"extraObjects": [3]}, "'/extraObjects/0': got number, want"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_wrong_value_is_refused_by_name(values: Values, words: str) -> None:
    assert words in charts.refused(values)


if __name__ == "__main__":
    README.write_text(_TABLE.sub(lambda _: table(), README.read_text()))
