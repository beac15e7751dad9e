"""Certificates over years: who vouches, who is believed, what is renewed and when."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from moe_operator import tls
from moe_operator.authority import (
    ANNOUNCED,
    AUTHORITY_LIFETIME,
    LEAF_LIFETIME,
    Leaf,
    Step,
    Trust,
    authority_step,
    stale,
)
from moe_operator.authority_secret import ROTATE, read_given, read_trust
from moe_operator.cache import Cache, Key
from moe_operator.certificates import BadCertificate, Pair, facts, fits, make_authority, make_leaf
from moe_operator.certify import Certify
from moe_operator.cluster import Exists, Unavailable
from moe_operator.fence import Fence, NotLeading
from moe_operator.kinds import MIXTURE, SECRET
from moe_operator.tls import Part
from tests.fakes.kube_api import KubeApi

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = ("tiny-router.default.svc",)


@cache
def authority(number: int) -> Pair:
    return make_authority(f"authority {number}", NOW, AUTHORITY_LIFETIME)


def trust(*, following: bool = False, previous: bool = False, asked: bool = False) -> Trust:
    pair = authority(0)
    return Trust(
        pair,
        facts(pair.certificate),
        NOW,
        authority(1) if following else None,
        authority(2).certificate if previous else b"",
        asked,
    )


@pytest.mark.parametrize(
    ("kept", "after", "step"),
    [
        pytest.param(trust(), 486 * DAY, Step.KEEP, id="two thirds of its time are not over"),
        pytest.param(trust(), 487 * DAY, Step.ANNOUNCE, id="a third of its time is left"),
        pytest.param(trust(asked=True), 0 * DAY, Step.ANNOUNCE, id="a person asks"),
        pytest.param(
            trust(following=True), ANNOUNCED - timedelta(seconds=1), Step.KEEP, id="not yet known"
        ),
        pytest.param(trust(following=True), ANNOUNCED, Step.PROMOTE, id="known to everybody"),
        pytest.param(trust(following=True, asked=True), 0 * DAY, Step.PROMOTE, id="asked again"),
        pytest.param(trust(previous=True), 29 * DAY, Step.KEEP, id="leaves of the old one may be"),
        pytest.param(trust(previous=True), LEAF_LIFETIME, Step.FORGET, id="none can be left"),
        pytest.param(trust(previous=True, asked=True), 0 * DAY, Step.FORGET, id="asked to forget"),
    ],
)
def test_the_step_that_is_due(kept: Trust, after: timedelta, step: Step) -> None:
    assert authority_step(kept, NOW + after) is step


@pytest.mark.parametrize(
    ("kept", "given", "after", "step"),
    [
        pytest.param(trust(), 0, 0 * DAY, Step.KEEP, id="it is that which vouches"),
        pytest.param(trust(), 0, 700 * DAY, Step.KEEP, id="it is old, which is for who gives it"),
        pytest.param(trust(asked=True), 0, 0 * DAY, Step.KEEP, id="nothing follows it yet"),
        pytest.param(trust(), 3, 0 * DAY, Step.ANNOUNCE, id="it is another one"),
        pytest.param(trust(following=True), 1, ANNOUNCED, Step.PROMOTE, id="it was announced"),
        pytest.param(trust(previous=True), 3, DAY, Step.KEEP, id="the one before is believed"),
    ],
)
def test_an_authority_that_is_given_follows_when_it_is_another_one(
    kept: Trust, given: int, after: timedelta, step: Step
) -> None:
    assert authority_step(kept, NOW + after, authority(given)) is step


def leaf(number: int = 0, names: tuple[str, ...] = NAMES, believed: bytes = b"") -> Leaf:
    made = make_leaf(authority(number), names, NOW, LEAF_LIFETIME)
    return Leaf(facts(made.certificate), believed or authority(0).certificate)


@pytest.mark.parametrize(
    ("known", "after", "reason"),
    [
        pytest.param(leaf(), 19 * DAY, "", id="young"),
        pytest.param(leaf(), 20 * DAY, "soon over", id="a third of its time is left"),
        pytest.param(None, 0 * DAY, "not known", id="nothing is known of it"),
        pytest.param(leaf(1), 0 * DAY, "another authority", id="of another authority"),
        pytest.param(leaf(names=("b",)), 0 * DAY, "other names", id="of another name"),
        pytest.param(
            leaf(believed=authority(1).certificate),
            0 * DAY,
            "other authorities believed",
            id="beside another authority",
        ),
    ],
)
def test_why_a_leaf_is_made_anew(known: Leaf | None, after: timedelta, reason: str) -> None:
    assert stale(known, NAMES, trust(), NOW + after) == reason


def verified(leaf_pem: bytes, believed: bytes, at: datetime) -> None:
    """Raise where who believes these would refuse the certificate."""
    store = Store(x509.load_pem_x509_certificates(believed))
    policy = PolicyBuilder().store(store).time(at)
    policy.build_client_verifier().verify(x509.load_pem_x509_certificate(leaf_pem), [])


@dataclass
class Shop:
    """An operator's certificates on an API server in memory, with its own time."""

    api: KubeApi = field(default_factory=KubeApi)
    at: datetime = NOW
    source: str = ""
    certify: Certify = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Let another operator lead."""
        body = {
            "apiVersion": MIXTURE.api_version,
            "kind": "Mixture",
            "metadata": {
                "name": "tiny",
                "namespace": "default",
                "uid": "u",
                "resourceVersion": "1",
            },
        }
        cache = Cache()
        cache.put(MIXTURE, body)
        own = "operator.system.svc"
        where = "system", "ca", own
        self.certify = Certify(self.api, self.api, cache, *where, lambda: self.at, self.source)

    def give(self, pair: Pair) -> None:
        """Let people put an authority where the operator is to find it."""
        files = {"tls.crt": pair.certificate, "tls.key": pair.key}
        self.api.objects[SECRET, "system", "given"] = {
            "metadata": {"name": "given", "namespace": "system"},
            "data": {file: base64.b64encode(content).decode() for file, content in files.items()},
        }

    def secret(self, name: str, namespace: str = "default") -> dict[str, bytes]:
        data = self.api.objects[SECRET, namespace, name]["data"]
        return {file: base64.b64decode(text) for file, text in data.items()}

    @property
    def parts(self) -> dict[Part, dict[str, bytes]]:
        return {part: self.secret(tls.secret_name("tiny", part)) for part in Part}

    @property
    def trust(self) -> Trust:
        return read_trust(self.api.objects[SECRET, "system", "ca"])


async def test_a_mixture_gets_a_certificate_for_each_part() -> None:
    shop = Shop()
    assert await shop.certify.once()
    for part, files in shop.parts.items():
        verified(files["tls.crt"], files["ca.crt"], NOW)
        assert facts(files["tls.crt"]).names == tls.names("tiny", "default", part)
        assert fits(Pair(files["tls.crt"], files["tls.key"]))
        assert files.keys() == {"tls.crt", "tls.key", "ca.crt"}
    body = shop.api.objects[SECRET, "default", "tiny-router-tls"]
    assert body["type"] == "kubernetes.io/tls"
    assert [owner["uid"] for owner in body["metadata"]["ownerReferences"]] == ["u"]
    own = shop.certify.own()
    assert own is not None
    assert facts(own.certificate).names == ("operator.system.svc",)


async def test_the_authoritys_key_stays_in_its_own_secret() -> None:
    shop = Shop()
    await shop.certify.once()
    key = shop.secret("ca", "system")["tls.key"]
    assert all(key not in files.values() for files in shop.parts.values())


async def test_nothing_is_written_twice_and_only_the_authority_is_read() -> None:
    shop = Shop()
    await shop.certify.once()
    before = len(shop.api.writes)
    shop.at += 19 * DAY
    await shop.certify.once()
    await shop.certify(Key("default", "tiny"))
    assert len(shop.api.writes) == before


async def test_an_operator_that_begins_to_lead_keeps_the_authority() -> None:
    shop = Shop()
    await shop.certify.once()
    first = shop.trust.current
    shop.begin()
    await shop.certify.once()
    assert shop.trust.current == first


async def test_of_two_that_begin_at_once_one_authority_counts() -> None:
    shop = Shop()

    class Slow(KubeApi):
        """Another operator is faster."""

        async def create(self, kind, body):  # type: ignore[no-untyped-def]
            if body["metadata"]["name"] == "ca" and (SECRET, "system", "ca") not in self.objects:
                await other.certify.once()
                raise Exists("Secret ca exists")
            return await super().create(kind, body)

    slow = Slow(shop.api.objects)
    other = Shop(shop.api)
    shop.api = slow
    shop.begin()
    await shop.certify.once()
    assert {files["ca.crt"] for files in shop.parts.values()} == {other.trust.believed}


async def test_who_does_not_lead_writes_nothing() -> None:
    shop = Shop()
    shop.certify.writer = Fence(shop.api, lambda: False)
    assert not await shop.certify.once()
    with pytest.raises(NotLeading):
        await shop.certify(Key("default", "tiny"))
    assert shop.api.objects == {}


async def test_what_was_not_taken_is_tried_again() -> None:
    shop = Shop()
    shop.api.refuse.append(("create", "Secret", Unavailable("busy")))
    assert not await shop.certify.once()
    assert await shop.certify.once()
    assert set(shop.parts) == set(Part)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"tls.crt": "bm9uZQ=="}, id="no certificate"),
        pytest.param(
            {"tls.key": base64.b64encode(authority(3).key).decode()}, id="the key of another"
        ),
    ],
)
async def test_a_broken_authority_is_left_for_people_to_see(spoil: dict[str, str]) -> None:
    shop = Shop()
    await shop.certify.once()
    body = shop.api.objects[SECRET, "system", "ca"]
    shop.api.objects[SECRET, "system", "ca"] = {**body, "data": {**body["data"], **spoil}}
    before = len(shop.api.writes)
    assert not await shop.certify.once()
    assert len(shop.api.writes) == before
    with pytest.raises(BadCertificate, match="Secret ca is no authority"):
        read_trust(shop.api.objects[SECRET, "system", "ca"])


def ask_for_a_step(shop: Shop) -> None:
    body = shop.api.objects[SECRET, "system", "ca"]
    meta = body["metadata"]
    noted = {**meta, "annotations": {**meta["annotations"], ROTATE: ""}}
    shop.api.objects[SECRET, "system", "ca"] = {**body, "metadata": noted}


async def test_a_person_can_have_the_authority_exchanged_step_by_step() -> None:
    shop = Shop()
    await shop.certify.once()
    old = shop.trust
    seen = []
    for _ in range(3):
        ask_for_a_step(shop)
        await shop.certify.once()
        assert not shop.trust.asked
        await shop.certify.once()
        issuer = facts(shop.parts[Part.ROUTER]["tls.crt"]).issuer
        believed = shop.parts[Part.ROUTER]["ca.crt"].count(b"BEGIN CERTIFICATE")
        seen.append((issuer == old.facts.key_id, believed))
    assert seen == [(True, 2), (False, 2), (False, 1)]
    assert old.current.certificate not in shop.parts[Part.CLIENT]["ca.crt"]


@pytest.mark.parametrize("restarts", [False, True])
async def test_while_an_authority_is_exchanged_all_believe_each_other(restarts: bool) -> None:
    """Two pods, of which one reads its Secret a day later than the other, on every day of it."""
    shop = Shop()
    await shop.certify.once()
    shop.at = NOW + 480 * DAY
    await shop.certify.once()
    before, vouching = shop.parts, {shop.trust.current.certificate}
    for day in range(481, 530):
        shop.at = NOW + day * DAY
        if restarts:
            shop.begin()
        assert await shop.certify.once()
        now = shop.parts
        for part in Part:
            verified(before[part]["tls.crt"], now[part]["ca.crt"], shop.at)
            verified(now[part]["tls.crt"], before[part]["ca.crt"], shop.at)
        vouching.add(shop.trust.current.certificate)
        before = now
    assert len(vouching) == 2
    assert shop.trust.believed == shop.trust.current.certificate


async def test_an_authority_that_is_given_vouches_and_is_followed_when_it_changes() -> None:
    shop = Shop(source="given")
    assert not await shop.certify.once()  # nobody gave it yet
    shop.give(Pair(authority(1).certificate + authority(2).certificate, authority(1).key))
    assert await shop.certify.once()
    router = shop.parts[Part.ROUTER]
    assert router["ca.crt"] == authority(1).certificate
    verified(router["tls.crt"], router["ca.crt"], NOW)
    shop.give(authority(3))
    vouching = []
    for day in range(33):
        shop.at = NOW + day * DAY
        assert await shop.certify.once()
        vouching.append(shop.trust.current.certificate)
    assert vouching == [authority(1).certificate] + 32 * [authority(3).certificate]
    assert shop.trust.believed == authority(3).certificate


async def test_an_authority_of_the_operator_gives_way_to_one_that_is_given() -> None:
    shop = Shop()
    await shop.certify.once()
    shop.source = "given"
    shop.give(authority(1))
    shop.begin()
    before = shop.parts[Part.WORKERS]
    for day in (0, 1):
        shop.at = NOW + day * DAY
        await shop.certify.once()
        now = shop.parts[Part.WORKERS]
        verified(before["tls.crt"], now["ca.crt"], shop.at)
        verified(now["tls.crt"], before["ca.crt"], shop.at)
        before = now
    assert shop.trust.current == authority(1)


async def test_while_none_is_given_the_one_that_vouches_goes_on() -> None:
    shop = Shop(source="given")
    shop.give(authority(1))
    await shop.certify.once()
    del shop.api.objects[SECRET, "system", "given"]
    shop.at = NOW + 25 * DAY
    assert await shop.certify.once()
    assert facts(shop.parts[Part.ROUTER]["tls.crt"]).begins > NOW + 24 * DAY
    assert shop.trust.believed == authority(1).certificate


LEAF = make_leaf(authority(1), NAMES, NOW, LEAF_LIFETIME)


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        pytest.param(Pair(b"", authority(1).key), "it has no tls.crt", id="no certificate"),
        pytest.param(Pair(b"", b""), "it has no tls.crt and no tls.key", id="nothing"),
        pytest.param(Pair(b"none", authority(1).key), "not a certificate in PEM", id="no PEM"),
        pytest.param(
            Pair(authority(1).certificate, authority(2).key),
            "tls.key is not of its certificate",
            id="the key of another",
        ),
        pytest.param(LEAF, "its certificate is not of a CA", id="a server's"),
    ],
)
async def test_what_is_given_and_is_no_authority_changes_nothing(pair: Pair, sentence: str) -> None:
    shop = Shop(source="given")
    shop.give(authority(1))
    await shop.certify.once()
    shop.give(pair)
    before, shop.at = len(shop.api.writes), NOW + DAY
    assert await shop.certify.once()
    assert len(shop.api.writes) == before
    with pytest.raises(BadCertificate, match=f"Secret given is no authority: {sentence}"):
        read_given(shop.api.objects[SECRET, "system", "given"])
