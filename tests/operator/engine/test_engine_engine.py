"""The engine: events become looks, and looks that fail are tried again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from moe_operator.cache import Cache, Key
from moe_operator.cluster import ApiError, Conflict, Refused, Unavailable
from moe_operator.engine import Engine
from moe_operator.journal import BrokenTable
from moe_operator.kinds import EXPERT, MIXTURE
from moe_operator.options import Options
from moe_operator.queue import WorkQueue
from moe_operator.sweep import Sweep
from tests.fakes.kube_api import KubeApi
from tests.operator.engine.bodies import expert, mixture

TINY = Key("default", "tiny")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def engine(clock: Clock) -> Engine:
    return Engine(Cache(), lambda: NOW + timedelta(seconds=clock.now), WorkQueue(clock))


async def test_events_of_one_mixture_are_one_look() -> None:
    api, subject = KubeApi(), engine(Clock())
    api.watchers.append(subject.seen)
    api.put(mixture())
    api.put(expert("e0"))
    assert subject.queue.poll() == TINY
    subject.queue.done(TINY, None)
    assert subject.queue.poll() is None
    api.remove(EXPERT, "default", "tiny-e0")
    assert subject.queue.poll() == TINY
    assert subject.cache.of(TINY, EXPERT) == []


async def test_what_the_operator_wrote_itself_is_no_news() -> None:
    """The answer of a write is in the cache when its event comes: no look follows."""
    api, subject = KubeApi(), engine(Clock())
    written = api.put(mixture())
    subject.cache.put(MIXTURE, written)
    subject.seen(MIXTURE, "MODIFIED", written)
    assert subject.queue.poll() is None


async def test_nor_is_it_where_its_event_comes_before_the_answer() -> None:
    api, subject = KubeApi(), engine(Clock())
    api.watchers.append(subject.seen)
    api.put(mixture())
    assert subject.queue.poll() == TINY
    own = await api.merge(MIXTURE, "default", "tiny", {"status": {"phase": "Ready"}}, "status")
    subject.done(TINY, own, False)
    subject.queue.done(TINY, None)
    assert subject.queue.poll() is None


async def test_what_another_wrote_after_it_is_news() -> None:
    api, subject = KubeApi(), engine(Clock())
    api.watchers.append(subject.seen)
    api.put(mixture())
    assert subject.queue.poll() == TINY
    own = await api.merge(MIXTURE, "default", "tiny", {"status": {"phase": "Ready"}}, "status")
    api.put(mixture(hiddenSize=128))
    subject.done(TINY, own, False)
    subject.queue.done(TINY, None)
    assert subject.queue.poll() == TINY


async def test_a_look_comes_again_when_it_said_so() -> None:
    clock = Clock()
    subject = engine(clock)
    looks: list[float] = []

    async def look(key: Key) -> datetime | None:
        looks.append(clock.now)
        return NOW + timedelta(seconds=7) if len(looks) == 1 else None

    subject.add([TINY])
    key = subject.queue.poll()
    assert key == TINY
    await subject.step(key, look)
    clock.now = 6.9
    assert subject.queue.poll() is None
    clock.now = 7.0
    assert subject.queue.poll() == TINY
    await subject.step(TINY, look)
    clock.now = 1e6
    assert subject.queue.poll() is None


@pytest.mark.parametrize(
    ("error", "at_s"),
    [
        pytest.param(Conflict("seen another"), 0.1, id="conflict"),
        pytest.param(Unavailable("busy", retry_after_s=5.0), 5.0, id="told when to come again"),
        pytest.param(Refused("not valid"), 0.1, id="refused"),
        pytest.param(BrokenTable("spec.epoch"), 0.1, id="unreadable table"),
        pytest.param(ZeroDivisionError("a bug"), 0.1, id="a bug stops one mixture only"),
    ],
)
async def test_a_look_that_fails_comes_again(error: Exception, at_s: float) -> None:
    clock = Clock()
    subject = engine(clock)

    async def look(key: Key) -> datetime | None:
        raise error

    subject.add([TINY])
    key = subject.queue.poll()
    assert key == TINY
    await subject.step(key, look)
    clock.now = at_s - 0.01
    assert subject.queue.poll() is None
    clock.now = at_s + 0.01
    assert subject.queue.poll() == TINY


def test_errors_of_the_api_server_are_told_apart() -> None:
    from moe_operator.rest import refusal

    def kind(status: int, **said: object) -> type[ApiError]:
        return type(refusal("GET /x", status, said))

    assert kind(404).__name__ == "NotFound"
    assert kind(409, reason="AlreadyExists").__name__ == "Exists"
    assert kind(409, reason="Conflict") is Conflict
    assert kind(422) is Refused
    assert kind(403) is Refused
    assert kind(500) is Unavailable
    busy = refusal("GET /x", 429, {"message": "slow", "details": {"retryAfterSeconds": 3}})
    assert (type(busy), busy.retry_after_s, str(busy)) == (Unavailable, 3.0, "GET /x: slow")


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        pytest.param([], {}, "--worker-image is missing", id="no worker image"),
        pytest.param(
            ["--worker-image", "w"], {}, "MOE_ROUTER_IMAGE is not set", id="no router image"
        ),
        pytest.param(
            ["--health-port", "x"], {}, "--health-port: it is 'x'; it must be a port", id="port"
        ),
        pytest.param(
            ["--metrics-port", "65536"], {}, "--metrics-port: it is '65536'; it must", id="metrics"
        ),
        pytest.param(["--log-level", "LOUD"], {}, "invalid choice: 'LOUD'", id="level"),
        pytest.param(["--namespaces", "a"], {}, "unrecognized arguments", id="unknown flag"),
    ],
)
def test_wrong_flags_end_with_a_sentence(
    arguments: list[str],
    environ: dict[str, str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        Options.read(arguments, environ)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_flags_win_over_the_environment() -> None:
    environ = {
        "MOE_WORKER_IMAGE": "w",
        "MOE_ROUTER_IMAGE": "r",
        "MOE_NAMESPACES": "b, a,",
        "POD_NAME": "operator-0",
        "POD_NAMESPACE": "system",
    }
    options = Options.read([], environ)
    assert options.namespaces == ("a", "b")
    assert (options.identity, options.lease_namespace) == ("operator-0", "system")
    assert (options.health_port, options.metrics_port) == (8080, 8081)
    assert Options.read([], {**environ, "MOE_METRICS_PORT": "0"}).metrics_port == 0
    options = Options.read(["--namespace", "c", "--worker-image", "w2"], environ)
    assert options.namespaces == ("c",)
    assert (options.settings.worker_image, options.settings.router_image) == ("w2", "r")


async def test_a_look_that_is_cut_short_is_not_lost() -> None:
    clock = Clock()
    subject = engine(clock)
    began = asyncio.Event()

    async def look(key: Key) -> datetime | None:
        began.set()
        await asyncio.Event().wait()
        return None

    subject.add([TINY])
    working = asyncio.create_task(subject.work(look, workers=1))
    await began.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    subject.add([TINY])
    assert subject.queue.poll() == TINY


async def test_a_watch_that_begins_anew_has_its_deletions_looked_for() -> None:
    api, subject = KubeApi(), engine(Clock())
    sweep = Sweep(api, subject.cache, (None,), subject.add)
    for body in (mixture(), expert("e0")):
        api.put(body)
    await subject.fill(sweep)
    sweeping = asyncio.create_task(subject.sweep(sweep, every_s=3600, settle_s=0))
    api.remove(EXPERT, "default", "tiny-e0")
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(subject.cache.of(TINY, EXPERT)) == 1
    subject.seen(MIXTURE, None, await api.get(MIXTURE, "default", "tiny"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert subject.cache.of(TINY, EXPERT) == []
    sweeping.cancel()
