"""The variables of dashboards: each is asked within those before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dashboards.panels import Variable
from moe_operator import metrics as operator
from moe_router import metrics as router
from moe_worker import metrics as worker

_NAMES: Final = (router.REQUESTS.names[0], worker.ROWS.names[0], operator.LEADS.name)
_TELLS: Final = '__name__=~"{}"'.format("|".join(_NAMES))
_MIXTURE: Final = 'mixture_namespace=~"$namespace",mixture=~"$mixture"'
_LAYER: Final = 'namespace=~"$namespace",mixture=~"$mixture",gate=~"$gate"'

JOB: Final = Variable("job", f"label_values({{{_TELLS}}}, job)")
INSTANCE: Final = Variable("instance", f'label_values({{{_TELLS},job=~"$job"}}, instance)')
NAMESPACE: Final = Variable("namespace", f"label_values({operator.READY.name}, mixture_namespace)")
MIXTURE: Final = Variable(
    "mixture", f'label_values({operator.READY.name}{{mixture_namespace=~"$namespace"}}, mixture)'
)
EXPERT: Final = Variable(
    "expert", f"label_values({operator.EXPERT_WANTED.name}{{{_MIXTURE}}}, expert)", several=False
)
GATE: Final = Variable(
    "gate",
    f'label_values({router.GATES_READY.name}{{namespace=~"$namespace",mixture=~"$mixture"}}, gate)',
)
LAYER: Final = Variable("layer", f"label_values({router.LAYER_ROWS.names[0]}{{{_LAYER}}}, layer)")
EXPERTS: Final = Variable(
    "expert", f"label_values({router.EXPERT_PAIRS.names[0]}{{{_LAYER}}}, expert)"
)

ALL_PROGRAMS: Final = (JOB, INSTANCE)
OF_MIXTURES: Final = (*ALL_PROGRAMS, NAMESPACE, MIXTURE)
OF_ONE_MIXTURE: Final = (*ALL_PROGRAMS, NAMESPACE, replace(MIXTURE, several=False))
