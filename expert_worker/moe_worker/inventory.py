"""What routers are told of this worker: who it is, what it can serve now, that it drains. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moe_core.dtypes import ElementType
from moe_core.frames import PROTOCOL
from moe_worker.assignment import Assigned
from moe_worker.loader import State
from moe_worker.phases import Phase
from moeops.v1.link_pb2 import Inventory, Servable
from moeops.v1.worker_pb2 import AssignedState


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is; `incarnation` is new with each start of the process."""

    worker: str
    node: str
    incarnation: str


def make_inventory(
    identity: Identity,
    states: Iterable[tuple[Assigned, State]],
    element: ElementType,
    fingerprint: str,
    *,
    draining: bool,
) -> Inventory:
    """Return the inventory: the experts that are SERVING, in the order of the assignment."""
    return Inventory(
        protocol=PROTOCOL,
        worker=identity.worker,
        node=identity.node,
        incarnation=identity.incarnation,
        fingerprint=fingerprint,
        draining=draining,
        servable=[
            Servable(
                expert_id=assigned.expert_id,
                sha256=assigned.sha256,
                layers=state.layers,
                dtype=element.wire,
            )
            for assigned, state in states
            if state.phase is Phase.SERVING
        ],
    )


def ready(states: Iterable[tuple[Assigned, State]], *, draining: bool) -> bool:
    """Tell whether everything assigned is served and more is welcome."""
    return not draining and all(state.phase is Phase.SERVING for _, state in states)


def assigned_state(assigned: Assigned, state: State) -> AssignedState:
    """Return how far an expert is, for Describe."""
    phase = AssignedState.Phase.ValueType(state.phase.value)
    message = AssignedState(expert=assigned.to_proto(), phase=phase)
    if state.failure is not None:
        message.failure.CopyFrom(state.failure)
    return message
