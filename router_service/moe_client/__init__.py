"""Lets a model run its experts through the routers of a mixture.

`RouterClient` speaks numpy and needs neither torch nor transformers; `attach`, `generate`,
`use_local` and `load_trunk` bring a transformers model to it, and load torch only when they are
asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moe_client.channel import Tls
from moe_client.client import RouterClient
from moe_client.errors import (
    Closed,
    DeadlineExceeded,
    InvalidRequest,
    MalformedAnswer,
    Mismatch,
    MoeError,
    NotFound,
    Overloaded,
    Repinned,
    Unauthenticated,
    Unavailable,
)
from moe_client.messages import Answer, Choice, Outcome, Rows, Sequence
from moe_client.mixture import Gate, Mixture
from moe_client.repin import OnRepin
from moe_client.worth import Worth

if TYPE_CHECKING:
    from moe_client.attachment import Attachment, attach
    from moe_client.generation import Generated, generate
    from moe_client.local import use_local
    from moe_client.trunk import load_trunk

__all__ = [
    "Answer",
    "Attachment",
    "Choice",
    "Closed",
    "DeadlineExceeded",
    "Gate",
    "Generated",
    "InvalidRequest",
    "MalformedAnswer",
    "Mismatch",
    "Mixture",
    "MoeError",
    "NotFound",
    "OnRepin",
    "Outcome",
    "Overloaded",
    "Repinned",
    "RouterClient",
    "Rows",
    "Sequence",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Worth",
    "attach",
    "generate",
    "load_trunk",
    "use_local",
]

_WITH_TORCH = {
    "Attachment": "attachment",
    "Generated": "generation",
    "attach": "attachment",
    "generate": "generation",
    "load_trunk": "trunk",
    "use_local": "local",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'moe_client' has no attribute {name!r}")
    return getattr(import_module(f"moe_client.{_WITH_TORCH[name]}"), name)
