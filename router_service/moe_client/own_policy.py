"""Says how the router modules of a model choose, and so which versions of a gate they can apply.

Told from the model's configuration; no tensor is read. Contexts count for nothing here: nobody
names one in Dispatch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from moe_artifacts.families import policy_of
from moe_client.errors import InvalidRequest
from moe_core.document import InvalidDocument, Reader
from moe_core.policy import Policy


@dataclass(frozen=True, slots=True)
class OwnPolicy:
    """`policy` is Mixtral's with the model's top-k where the family is not `known`."""

    policy: Policy
    known: bool

    @classmethod
    def of(cls, model: Any) -> Self:
        """Read a model's configuration. Raises InvalidRequest."""
        config = model.config.get_text_config()
        try:
            found = policy_of(Reader(config.to_dict(), "config"))
        except InvalidDocument as error:
            raise InvalidRequest(str(error)) from None
        return cls(found or Policy(config.num_experts_per_tok), found is not None)

    def equals(self, served: Policy) -> bool:
        """Say whether the model chooses as a version does; of other families top-k alone counts."""
        if not self.known:
            return served.top_k == self.policy.top_k
        return replace(served, contexts=None) == self.policy

    def applies(self, served: Policy) -> bool:
        """Say whether the model's router modules can, with another top-k, choose as a version."""
        return self.equals(replace(served, top_k=self.policy.top_k))
