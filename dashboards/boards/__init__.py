"""All dashboards, one a module."""

from __future__ import annotations

from typing import Final

from dashboards.boards.data_plane import DATA_PLANE
from dashboards.boards.expert import EXPERT
from dashboards.boards.failover import FAILOVER
from dashboards.boards.mixtures import MIXTURES
from dashboards.boards.operator import OPERATOR
from dashboards.boards.routing import ROUTING

BOARDS: Final = (MIXTURES, EXPERT, ROUTING, DATA_PLANE, FAILOVER, OPERATOR)
