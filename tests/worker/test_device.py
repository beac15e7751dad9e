"""What experts compute on, and what is said where it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moe_core.dtypes import BFLOAT16
from moe_core.kernel import Rule
from moe_worker.__main__ import main
from moe_worker.device import NoDevice, find, told
from moe_worker.expert import Rules
from moe_worker.failure import Code
from moe_worker.phases import Phase
from tests.support.artifacts import write_expert
from tests.support.devices import DEVICES
from tests.worker.test_loader import HIDDEN, Bench

THERE = len(DEVICES) > 1


def test_a_gpu_that_is_there_is_taken_unless_the_processor_is_asked_for() -> None:
    assert find("auto").type == DEVICES[-1].type
    assert find("cpu").type == "cpu"
    assert told(find("cpu")) == "cpu"


@pytest.mark.skipif(THERE, reason="there is a GPU")
def test_a_gpu_that_is_not_there_ends_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoDevice, match="has no GPU"):
        find("cuda")
    assert main(["--hidden-size", "8", "--device", "cuda"]) == 1
    assert f"--device is cuda, but torch {torch.__version__} has no GPU" in capsys.readouterr().err


def test_another_device_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--hidden-size", "8", "--device", "tpu"])
    assert "--device is 'tpu': it must be one of auto, cpu, cuda" in capsys.readouterr().err


class Full(Rules):
    """A GPU on which others still are."""

    full = True

    def rule(self, hidden: int, intermediate: int) -> Rule:
        if self.full:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")
        return super().rule(hidden, intermediate)


def test_an_expert_waits_until_there_is_room_for_it(tmp_path: Path) -> None:
    rules = Full(BFLOAT16, exact=True)
    bench = Bench(rules)
    assigned = bench.holds(write_expert(tmp_path, hidden_size=HIDDEN))
    try:
        bench.loader.assign((assigned,))
        said = bench.wait_for_line("not_loaded")
        assert said["reason"] == "CUDA out of memory. Tried to allocate 2.00 GiB."
        ((_, state),) = bench.loader.states()
        assert state.failure is not None
        assert state.failure.code == Code.RESOURCE_EXHAUSTED.value
        rules.full = False
        bench.move_on(60, (assigned,))
        bench.wait_for(assigned, Phase.SERVING)
    finally:
        bench.loader.stop()
