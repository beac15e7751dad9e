"""Real routers over real workers: what sessions were promised, evaluation, outcomes, shadows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow
from moe_core.table import Table
from moe_router.sessions import Start
from moeops.v1.router_pb2 import (
    DescribeResponse,
    ForcedVersion,
    OutcomeSums,
    ReportOutcomeRequest,
    RowsResponse,
    SequenceRows,
    SessionOutcome,
    VersionCounters,
)
from moeops.v1.router_pb2_grpc import RouterStub
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import write_expert
from tests.support.dispatching import Caller, dispatch_request
from tests.support.tables import UID, TableFile, expert, gate, table, version
from tests.worker import process as workers

HIDDEN = 32
SESSIONS = [f"s{n}" for n in range(24)]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
UNMET = grpc.StatusCode.FAILED_PRECONDITION.value[0]


@dataclass(frozen=True)
class Held:
    """Two versions of expert a and one of b, and the links of the workers that hold them."""

    v1: Version
    v2: Version
    other: Version
    links: str

    def mixture(self, row: ExpertRow) -> Table:
        return table([row, expert("b", self.other)], [gate(["a", "b"])], hidden_size=HIDDEN)

    def trial(self, *weights: tuple[int, int], shadow_percent: int = 0) -> ExpertRow:
        steps = tuple(WeightSince(*pair) for pair in weights)
        rollout = Rollout(
            2, self.v2, 1, "2026-01-01T00:00:00Z", Outcome.PROGRESSING, "", "salt", steps,
            shadow_percent,
        )  # fmt: skip
        return replace(expert("a", self.v1), candidate=self.v2, rollout=rollout)

    def ended(self, row: ExpertRow, epoch: int, percent: int, outcome: Outcome) -> ExpertRow:
        assert row.rollout is not None
        weights = (*row.rollout.weights, WeightSince(epoch, percent))
        row = replace(row, candidate=None, rollout=replace(row.rollout, outcome=outcome))
        assert row.rollout is not None
        row = replace(row, rollout=replace(row.rollout, weights=weights))
        if outcome is Outcome.PROMOTED:
            return replace(row, stable=self.v2, previous=self.v1)
        return replace(row, stable=self.v1, previous=None, revoked=(self.v2.sha256,))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    directory = tmp_path_factory.mktemp("artifacts")
    written = [write_expert(directory, hidden_size=HIDDEN, seed=n) for n in range(3)]
    v1, v2, other = (version(f"v{n}", e.sha256, e.uri) for n, e in enumerate(written))
    old = [written[0].assigned("a"), written[2].assigned("b")]
    with (
        workers.spawn(old, HIDDEN, name="old") as first,
        workers.spawn([written[1].assigned("a")], HIDDEN, name="new") as second,
    ):
        yield Held(v1, v2, other, f"{first.link},{second.link}")


@contextmanager
def router(file: TableFile, held: Held) -> Iterator[RouterProcess]:
    with routers.spawn(mixture="tiny", table_file=str(file.path), workers=held.links) as it:
        it.wait_until_routable([held.v1.sha256, held.v2.sha256, held.other.sha256])
        yield it


def ask(it: RouterProcess, content: Table, sequences: Sequence[SequenceRows]) -> list[RowsResponse]:
    """Ask for the same token of expert a, once for each of the sequences."""
    requests = [
        dispatch_request(content, [[0, 1]], weights=[[1.0, 0.0]], sessions=[one], seed=7)
        for one in sequences
    ]
    with Caller(it.address) as caller:
        return caller.dispatch(*requests)


def begun(answers: Sequence[RowsResponse]) -> list[SequenceRows]:
    """Return the sessions' next sequences."""
    tokens = [answer.sequences[0].start_token for answer in answers]
    return [
        SequenceRows(session=session, rows=1, start_token=token)
        for session, token in zip(SESSIONS, tokens, strict=True)
    ]


def forced(session: str, of: Version) -> SequenceRows:
    versions = [ForcedVersion(expert_id="a", sha256=of.sha256)]
    return SequenceRows(session=session, rows=1, forced=versions)


def bits(answers: Sequence[RowsResponse]) -> list[bytes]:
    assert not [a.failure.message for a in answers if a.HasField("failure")]
    return [answer.hidden for answer in answers]


def counters(seen: DescribeResponse, of: Version) -> VersionCounters:
    found = [v for v in seen.versions if v.sha256 == of.sha256]
    return found[0] if found else VersionCounters()


def test_sessions_keep_their_versions_over_routers_restarts_and_a_promotion(
    tmp_path: Path, held: Held
) -> None:
    row = held.trial((1, 50))
    file = TableFile(tmp_path / "table.yaml", held.mixture(row))
    fresh = [SequenceRows(session=session, rows=1) for session in SESSIONS]
    with router(file, held) as steady:
        with router(file, held) as mortal:
            first = ask(mortal, file.table, fresh)
            sessions = begun(first)
            assert len(set(bits(first))) == 2, "some sessions on each version"
            assert bits(ask(steady, file.table, sessions)) == bits(first)
            mortal.kill()
        file.write(held.mixture(held.ended(row, 2, 100, Outcome.PROMOTED)))
        steady.wait_for_epoch(2)
        with router(file, held) as reborn:
            assert bits(ask(reborn, file.table, sessions)) == bits(first)
            assert bits(ask(steady, file.table, sessions)) == bits(first)
            assert len(set(bits(ask(reborn, file.table, fresh)))) == 1, "new ones see the new one"


def test_after_a_rollback_no_session_and_no_evaluation_gets_the_revoked_version(
    tmp_path: Path, held: Held
) -> None:
    row = held.trial((1, 50))
    file = TableFile(tmp_path / "table.yaml", held.mixture(row))
    with router(file, held) as it:
        first = ask(it, file.table, [SequenceRows(session=s, rows=1) for s in SESSIONS])
        old, new = bits(ask(it, file.table, [forced("x", held.v1), forced("x", held.v2)]))
        file.write(held.mixture(held.ended(row, 2, 0, Outcome.ROLLED_BACK)))
        it.wait_for_epoch(2)
        used_ms = counters(it.describe(), held.v2).last_used_ms

        again = ask(it, file.table, begun(first))
        (refused,) = ask(it, file.table, [forced("x", held.v2)])

        assert set(bits(again)) == {old}
        told = [bool(a.sequences[0].repinned_experts) for a in again]
        assert told == [hidden == new for hidden in bits(first)]
        assert refused.failure.code == UNMET
        assert "was taken back" in refused.failure.message
        assert counters(it.describe(), held.v2).last_used_ms == used_ms


def test_tokens_that_are_not_the_sessions_own_are_refused(tmp_path: Path, held: Held) -> None:
    file = TableFile(tmp_path / "table.yaml", held.mixture(expert("a", held.v1)))
    foreign = Start("00000000-another-mixture", 1).to_token("s")
    with router(file, held) as it:
        lent, altered, other = ask(
            it,
            file.table,
            [
                SequenceRows(session="s", rows=1, start_token=Start(UID, 1).to_token("t")),
                SequenceRows(session="s", rows=1, start_token=Start(UID, 1).to_token("s") + b"0"),
                SequenceRows(session="s", rows=1, start_token=foreign),
            ],
        )

    assert [a.failure.code for a in (lent, altered, other)] == [INVALID, INVALID, UNMET]
    assert "not a token of session 's'" in lent.failure.message


def test_a_dark_candidate_is_evaluated_and_shadowed(tmp_path: Path, held: Held) -> None:
    file = TableFile(tmp_path / "table.yaml", held.mixture(held.trial(shadow_percent=100)))
    with router(file, held) as it:
        old, new, plain = bits(
            ask(
                it,
                file.table,
                [
                    forced("x", held.v1),
                    forced("x", held.v2),
                    SequenceRows(session="x", rows=1),
                ],
            )
        )
        assert plain == old != new

        until = time.monotonic() + 20
        while not (seen := counters(it.describe(), held.v2)).shadow_rows:
            assert time.monotonic() < until, f"no copy was answered: {seen}"
            assert bits(ask(it, file.table, [SequenceRows(session="y", rows=1)])) == [old]
        assert (seen.shadow_errors, seen.shadow_nonfinite_rows) == (0, 0)
        assert seen.shadow_norm_sum > 0
        assert seen.rows == 1, "the forced row alone"


def test_outcomes_are_summed_for_each_arm(tmp_path: Path, held: Held) -> None:
    file = TableFile(tmp_path / "table.yaml", held.mixture(held.trial((1, 50))))
    with router(file, held) as it, grpc.insecure_channel(it.address) as channel:
        stub = RouterStub(channel)
        first = ask(it, file.table, [SequenceRows(session=s, rows=1) for s in SESSIONS])
        (new,) = bits(ask(it, file.table, [forced("x", held.v2)]))
        outcomes = [
            SessionOutcome(
                session=one.session,
                start_token=one.start_token,
                report=1,
                tokens=10,
                loss_bits=25.0,
                scores=1,
                score_sum=-1.0,
            )
            for one in begun(first)
        ]
        message = ReportOutcomeRequest(mixture="tiny", outcomes=outcomes)

        assert stub.ReportOutcome(message).accepted == len(SESSIONS)
        assert stub.ReportOutcome(message).accepted == 0, "the same reports again"
        sums = {(s.sha256, s.measure): s for s in it.describe().outcomes}

        on_new = bits(first).count(new)
        loss = sums[held.v2.sha256, OutcomeSums.LOSS]
        assert loss == OutcomeSums(
            expert_id="a", sha256=held.v2.sha256, since_epoch=1, measure=OutcomeSums.LOSS,
            sessions=on_new, w=10 * on_new, x=25 * on_new,
            ww=100 * on_new, xx=625 * on_new, wx=250 * on_new,
        )  # fmt: skip
        assert sums[held.v1.sha256, OutcomeSums.SCORE].x == on_new - len(SESSIONS)
        bad = SessionOutcome(session="s", start_token=b"forged", report=1)
        more = SessionOutcome(
            session=outcomes[0].session, start_token=outcomes[0].start_token, report=2, tokens=1
        )
        mixed = ReportOutcomeRequest(mixture="tiny", outcomes=[*[bad] * 20, more])
        said = stub.ReportOutcome(mixed)
        assert said.accepted == 1
        assert [one.index for one in said.refused] == [*range(20)]
        assert {one.failure.code for one in said.refused} == {3}
        assert "outcomes[0].start_token is b'forged'" in said.refused[0].failure.message
        assert [bool(one.failure.message) for one in said.refused] == [True] * 16 + [False] * 4
