"""Argo CD's health check in Lua says of every status what `kubectl moe` says of it.

Argo CD runs Lua 5.1 without most libraries; so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from hypothesis import given
from hypothesis import strategies as st
from lupa.lua51 import LuaRuntime

from kubectl_moe.health import Health, diagnose
from moe_operator.reason import Reason

FILE: Final = Path(__file__).parents[2] / "deploy" / "argo-cd" / "health.yaml"
NAMED: Final[Mapping[Health, str]] = {
    Health.HEALTHY: "Healthy",
    Health.PROGRESSING: "Progressing",
    Health.PAUSED: "Suspended",
    Health.ROLLED_BACK: "Degraded",
    Health.DEGRADED: "Degraded",
}
_MISSING: Final = (
    "coroutine", "debug", "dofile", "io", "load", "loadfile", "loadstring", "math", "os", "string",
)  # fmt: skip

Body = dict[str, Any]


def scripts() -> Mapping[str, str]:
    """Return the script of each kind."""
    data = yaml.safe_load(FILE.read_text())["data"]
    return {key.removeprefix("resource.customizations.health."): data[key] for key in data}


def health(script: str, body: Body) -> tuple[str, str]:
    """Return what the script says of an object."""
    lua = LuaRuntime(register_eval=False, register_builtins=False)
    for name in _MISSING:
        lua.globals()[name] = None
    said = lua.execute(f"local obj = ...\n{script}", lua.table_from(body, recursive=True))
    return said["status"], said["message"]


def condition(kind: str) -> st.SearchStrategy[Body]:
    return st.fixed_dictionaries(
        {
            "type": st.just(kind),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": st.sampled_from([reason.value for reason in Reason]),
            "message": st.sampled_from(["because", "of that"]),
        }
    )


def bodies() -> st.SearchStrategy[Body]:
    """Objects with whatever status there may be, or none."""
    parts = [st.none() | condition(kind) for kind in ("Ready", "Progressing", "Degraded")]
    conditions = st.tuples(*parts).map(lambda found: [one for one in found if one])
    outcomes = st.sampled_from(["Progressing", "Paused", "Promoted", "RolledBack", "Aborted"])
    rollout = st.fixed_dictionaries({"outcome": outcomes, "message": st.just("so")})
    status = st.fixed_dictionaries(
        {},
        optional={
            "observedGeneration": st.integers(1, 2),
            "conditions": conditions,
            "rollout": rollout,
        },
    )
    return st.fixed_dictionaries(
        {"metadata": st.just({"generation": 2})}, optional={"status": status}
    )


def test_there_is_one_script_for_all_kinds_that_are_applied() -> None:
    kinds = {f"moeops.dev_{kind}" for kind in ("Mixture", "Expert", "Gate")}

    assert scripts().keys() == kinds
    assert len(set(scripts().values())) == 1


@given(bodies())
def test_argo_cd_says_what_kubectl_moe_says(body: Body) -> None:
    said = diagnose(body)

    assert health(scripts()["moeops.dev_Expert"], body) == (NAMED[said.health], said.why)


def test_what_the_operator_has_not_seen_is_under_way() -> None:
    said = health(scripts()["moeops.dev_Gate"], {"metadata": {"generation": 1}})

    assert said == ("Progressing", "the operator has not seen this spec yet")
