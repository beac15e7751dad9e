"""What the routing core decides, for all inputs: plan, ladder, replicas, budget, pulse, gate."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.rows import Role
from moe_core.table import Failover, Rung, Table
from moe_router.budget import Allowance, Bucket
from moe_router.ladder import Ask, Cause, GiveUp, History, Leave, Lost, Surroundings, next_step
from moe_router.plan import plan
from moe_router.pulse import DEAD_TICKS, LOST_TICKS, SILENT_TICKS, Pulse, widespread
from moe_router.refusal import Code, Refused
from moe_router.replica import Offer, Routable, pick, turned
from moe_router.request import parse_dispatch
from moe_router.sessions import Pins, Start, Tokens, read_token
from moe_router.view import View
from moeops.v1.router_pb2 import SequenceRows
from tests.support.dispatching import dispatch_request
from tests.support.tables import UID, expert, gate, table, version

NAMES = [f"e{n}" for n in range(5)]
VERSIONS = {name: version(f"{name}-v1") for name in NAMES}
CANDIDATES = {name: version(f"{name}-v2") for name in NAMES}
DENSE = version("dense-v1")


def mixture(**options: Any) -> Table:
    rows = [expert(name, VERSIONS[name], backup="e4") for name in NAMES]
    rows.append(expert("dense", DENSE, role=Role.DENSE))
    return table(rows, [gate(NAMES)], hidden_size=4, **options)


choices = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=1, max_size=12)


@given(choices, st.data())
def test_a_plan_covers_each_pair_once_with_the_pin_of_its_session(
    chosen: list[list[int]], data: st.DataObject
) -> None:
    content = mixture()
    cuts = data.draw(st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
    sizes, pins = [0], []
    for cut in cuts:
        if cut and sizes[-1]:
            sizes.append(0)
        sizes[-1] += 1
    for _ in sizes:
        moved = data.draw(st.sets(st.sampled_from(NAMES)))
        pins.append(Pins({name: CANDIDATES[name] for name in moved}))
    sessions = [SequenceRows(session=f"s{n}", rows=rows) for n, rows in enumerate(sizes)]
    request = parse_dispatch(dispatch_request(content, chosen, sessions=sessions), View.of(content))

    batches = plan(request, pins, View.of(content))

    seen = np.sort(np.concatenate([batch.pairs for batch in batches]))
    assert seen.tolist() == list(range(2 * len(chosen)))
    assert len({(b.expert_id, b.version) for b in batches}) == len(batches)
    pin_of_row = np.repeat(np.arange(len(sizes)), sizes)
    for batch in batches:
        assert (np.diff(batch.pairs) > 0).all()
        for pair in batch.pairs:
            name = NAMES[chosen[pair // 2][pair % 2]]
            assert name == batch.expert_id
            assert batch.version == pins[pin_of_row[pair // 2]].moved.get(name, VERSIONS[name])


def test_an_expert_that_the_table_does_not_know_has_no_version() -> None:
    content = table([expert("e0", VERSIONS["e0"])], [gate(["e0", "e9"])], hidden_size=4)
    request = parse_dispatch(dispatch_request(content, [[0, 1]]), View.of(content))

    batches = plan(request, [Pins({})], View.of(content))

    assert {b.expert_id: b.version for b in batches} == {"e0": VERSIONS["e0"], "e9": None}


digests = [v.sha256 for v in (*VERSIONS.values(), *CANDIDATES.values(), DENSE)]
offers = st.dictionaries(
    st.sampled_from(["w1", "w2", "w3"]), st.sets(st.sampled_from(digests)), max_size=3
)


@given(
    offers,
    st.lists(st.sampled_from(list(Rung)), unique=True),
    st.sampled_from([None, VERSIONS["e0"], CANDIDATES["e0"]]),
    st.sets(st.sampled_from(digests)),
    st.sampled_from(list(Cause)),
)
def test_climbing_ends_and_never_meets_what_failed_or_is_revoked(
    held: dict[str, set[str]], ladder: list[Rung], pinned: Any, revoked: set[str], cause: Cause
) -> None:
    content = mixture(failover=Failover(tuple(ladder), 100))
    rows = [replace(row, revoked=tuple(revoked)) for row in content.experts]
    newest = View.of(replace(content, epoch=2, experts=tuple(rows)))
    offered = [Offer(w, dict.fromkeys(d, frozenset({0}))) for w, d in held.items()]
    around = Surroundings(View.of(content), newest, Routable.of(offered), 0)
    lost, asked = Lost("e0", pinned), []
    for _ in range(40):
        match next_step(lost, around):
            case Ask() as ask:
                assert ask.sha256 not in revoked
                taken_back = pinned is not None and pinned.sha256 in revoked
                assert ask.rung in (None, *ladder, *((Rung.STABLE,) if taken_back else ()))
                assert all(ask.sha256 in held[worker] for worker in ask.workers)
                attempt = (ask.workers[0], ask.sha256)
                assert attempt not in asked
                asked.append(attempt)
                history = lost.history
                bad = {ask.sha256} if cause is Cause.NON_FINITE else set()
                after = History(
                    history.failed | {attempt}, history.barred | bad, False, cause, len(asked)
                )
                lost = replace(lost, history=after)
            case Leave(rung):
                assert rung in ladder
                assert (
                    rung is Rung.RENORMALISE
                    or Rung.RENORMALISE not in ladder
                    or (ladder.index(Rung.RESIDUAL) < ladder.index(Rung.RENORMALISE))
                )
                return
            case GiveUp():
                assert not {Rung.RENORMALISE, Rung.RESIDUAL} & set(ladder)
                return
    pytest.fail("climbing does not end")


def test_a_version_with_answers_that_are_not_finite_is_not_asked_elsewhere() -> None:
    content = mixture()
    digest = CANDIDATES["e0"].sha256
    workers = Routable.of([Offer("w2", {digest: frozenset({0})})])
    around = Surroundings(View.of(content), View.of(content), workers, 0)
    broken = History(frozenset({("w1", digest)}), frozenset({digest}), False, None, 1)

    assert next_step(Lost("e0", CANDIDATES["e0"], broken), around) == Leave(Rung.RENORMALISE)


@pytest.mark.parametrize(
    ("accepted", "revoked", "rung"),
    [
        pytest.param({}, False, Rung.STABLE, id="a gate that accepts all versions"),
        pytest.param({"g1": "v1", "g2": "v2"}, False, Rung.BACKUP, id="one that knows only v2"),
        pytest.param({"g1": "v1", "g2": "v1 v2"}, False, Rung.STABLE, id="one that knows both"),
        pytest.param({"g1": "v1", "g2": "v2"}, True, Rung.STABLE, id="what is taken back"),
    ],
)
def test_stable_answers_for_a_version_only_where_the_gate_of_its_sessions_knows_it(
    accepted: dict[str, str], revoked: bool, rung: Rung
) -> None:
    content, old, new = mixture(), VERSIONS["e0"], CANDIDATES["e0"]
    names = {"v1": old.version, "v2": new.version}
    row = content.gates[0]
    variants = [
        replace(row.stable, accepts={"e0": tuple(names[v] for v in versions.split())})
        for versions in accepted.values()
    ]
    if variants:
        row = replace(row, stable=variants[0], candidate=replace(variants[1], version="g2"))
    content = replace(content, gates=(row,))
    own = replace(content.experts[0], revoked=(new.sha256,) if revoked else ())
    newest = replace(content, experts=(own, *content.experts[1:]))
    held = (old.sha256, VERSIONS["e4"].sha256)
    workers = Routable.of([Offer("w1", dict.fromkeys(held, frozenset({0})))])
    around = Surroundings(View.of(content), View.of(newest), workers, 0)
    step = next_step(Lost("e0", new), around)
    assert isinstance(step, Ask)
    assert step.rung is rung


@pytest.mark.parametrize(
    ("load", "late", "given_rows", "turn", "expected"),
    [
        pytest.param({}, {}, {}, 0, "a", id="idle ones take turns, first"),
        pytest.param({}, {}, {}, 1, "b", id="idle ones take turns, second"),
        pytest.param({"a": 50}, {}, {}, 0, "b", id="fewest rows waiting"),
        pytest.param({"b": 50}, {"a": 900}, {}, 0, "b", id="one that waits rather than a late one"),
        pytest.param({"b": 950}, {"a": 900}, {}, 0, "a", id="until that would be later"),
        pytest.param({}, {}, {"b": 2}, 0, "b", id="rather a larger message than another one"),
        pytest.param({}, {}, {"b": 200}, 0, "a", id="until that one is much larger"),
    ],
)
def test_the_replica_that_is_picked(
    load: dict[str, int], late: dict[str, int], given_rows: dict[str, int], turn: int, expected: str
) -> None:
    assert pick(turned(["a", "b"], turn), load, late, given_rows) == expected


@given(st.integers(0, 100), st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1))))
def test_the_budget_bounds_lost_mass(percent: int, requests: list[tuple[float, float]]) -> None:
    allowance = Allowance(percent, burst=16)
    bucket, served, lost = Bucket(allowance.full), 0.0, 0.0
    for mass, share in requests:
        after = bucket.spend(allowance, mass, mass * share)
        if after is None:
            assert percent < 100
            assert share > 0
            continue
        bucket, served, lost = after, served + mass, lost + mass * share
        assert 0 <= bucket.left <= allowance.full
    assert lost <= (served * percent / 100 + allowance.full) * (1 + 1e-5)


@given(st.lists(st.floats(0, 0.25), min_size=1))
def test_the_budget_never_refuses_a_share_below_its_bound(shares: list[float]) -> None:
    allowance = Allowance(25, burst=16)
    bucket: Bucket | None = Bucket(0)
    for share in shares:
        assert bucket is not None
        bucket = bucket.spend(allowance, 3.0, 3.0 * share)
    assert bucket is not None


def test_a_link_is_silent_after_ten_ticks_and_dead_much_later() -> None:
    pulse = Pulse()

    assert [pulse.tick() for _ in range(SILENT_TICKS)] == [False] * (SILENT_TICKS - 1) + [True]
    assert pulse.silent
    assert not pulse.dead
    assert not pulse.overdue
    for _ in range(LOST_TICKS - SILENT_TICKS):
        pulse.tick()
    assert pulse.overdue
    assert pulse.beat(), "it was silent until now"
    assert not pulse.silent
    for _ in range(DEAD_TICKS):
        pulse.tick()
    assert pulse.dead


@pytest.mark.parametrize(
    ("silent", "links", "expected"),
    [
        pytest.param(1, 1, False, id="the only worker"),
        pytest.param(3, 3, False, id="too few to say"),
        pytest.param(2, 4, False, id="one node of two"),
        pytest.param(3, 4, True, id="most of them"),
        pytest.param(18, 18, True, id="all of many"),
    ],
)
def test_silence_that_is_not_for_the_workers_sake(silent: int, links: int, expected: bool) -> None:
    assert widespread(silent, links) is expected


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        pytest.param(set(), ("live",), id="live ones first"),
        pytest.param({"live"}, ("doubted",), id="a doubted one rather than none"),
        pytest.param({"live", "doubted"}, (), id="nobody twice"),
    ],
)
def test_who_may_be_asked_for_an_artifact(failed: set[str], expected: tuple[str, ...]) -> None:
    layers = {"d": frozenset({0})}
    routable = Routable.of([Offer("live", layers), Offer("doubted", layers, doubted=True)])

    assert routable.for_artifact("d", 0, {(worker, "d") for worker in failed}) == expected


@given(st.text(alphabet="abc:-0", max_size=40), st.integers(0, 10**17))
def test_a_token_survives_the_way_to_the_client_and_back(uid: str, epoch: int) -> None:
    start = Start(uid, epoch)

    assert read_token(start.to_token("s"), "s", "start_token") == start


@given(st.integers(0, 200), st.binary(min_size=1, max_size=1), st.integers(0, 10**6))
def test_a_token_with_one_byte_changed_is_no_token(at: int, byte: bytes, epoch: int) -> None:
    token = Start(UID, epoch).to_token("s")
    at %= len(token)
    forged = token[:at] + byte + token[at + 1 :]
    if forged == token:
        return

    with pytest.raises(Refused) as caught:
        read_token(forged, "s", "start_token")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_tokens_that_were_read_are_remembered_for_their_session_alone() -> None:
    tokens, token = Tokens(capacity=2), Start(UID, 3).to_token("s")

    for session in ("s", "t", "u"):
        own = Start(UID, 3).to_token(session)
        assert tokens.read(own, session, "start_token") == Start(UID, 3)
        assert tokens.read(own, session, "start_token") == Start(UID, 3)
    with pytest.raises(Refused, match="not a token of session 't'"):
        tokens.read(token, "t", "sequences[0].start_token")


def test_idle_workers_each_get_their_turn() -> None:
    picked = Counter(pick(turned(["a", "b", "c"], turn), {}, {}, {}) for turn in range(30))

    assert picked == {"a": 10, "b": 10, "c": 10}
