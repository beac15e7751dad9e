"""How an assigned expert comes to be served: a literal table, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum, auto

from moeops.v1.worker_pb2 import AssignedState


class Phase(IntEnum):
    """How far an assigned expert is; numbers as in AssignedState."""

    FETCHING = AssignedState.FETCHING
    VERIFYING = AssignedState.VERIFYING
    LOADING = AssignedState.LOADING
    WARMING = AssignedState.WARMING
    SERVING = AssignedState.SERVING
    REFUSED = AssignedState.REFUSED


class Event(Enum):
    """What happened to it."""

    FETCHED = auto()
    VERIFIED = auto()
    LOADED = auto()
    WARMED = auto()
    UNAVAILABLE = auto()  # worth another try
    REFUSED = auto()  # the same again would end the same


TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.FETCHING: {
        Event.FETCHED: Phase.VERIFYING,
        Event.UNAVAILABLE: Phase.FETCHING,
        Event.REFUSED: Phase.REFUSED,
    },
    Phase.VERIFYING: {
        Event.VERIFIED: Phase.LOADING,
        Event.UNAVAILABLE: Phase.FETCHING,
        Event.REFUSED: Phase.REFUSED,
    },
    Phase.LOADING: {
        Event.LOADED: Phase.WARMING,
        Event.UNAVAILABLE: Phase.FETCHING,
        Event.REFUSED: Phase.REFUSED,
    },
    Phase.WARMING: {
        Event.WARMED: Phase.SERVING,
        Event.UNAVAILABLE: Phase.FETCHING,
        Event.REFUSED: Phase.REFUSED,
    },
    Phase.SERVING: {},
    Phase.REFUSED: {},
}
