"""Certificates on a real API server, with the rights that the chart gives and no others."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime
from urllib.error import HTTPError

import pytest

from moe_operator import access, tls
from moe_operator.authority_secret import read_trust
from moe_operator.cache import Cache, Key
from moe_operator.certificates import facts
from moe_operator.certify import Certify
from moe_operator.cluster import Refused
from moe_operator.kinds import MIXTURE, SECRET
from moe_operator.rest import ApiServer
from moe_operator.tls import Part
from tests.chart import charts
from tests.kube.server import KubeServer
from tests.operator.engine.bodies import mixture
from tests.operator.kube.stage import ACCOUNT, SYSTEM, Stage, collection

AUTHORITY = f"{ACCOUNT}-ca"


def allow(server: KubeServer) -> None:
    """Give the operator's account what it has with TLS, and not without."""
    bodies = charts.render({"tls": {"mode": "Required"}})
    for kind, name in (("ClusterRole", ACCOUNT), ("Role", f"{SYSTEM}/{ACCOUNT}")):
        role = charts.of(bodies, kind)[name]
        rules = [rule for rule in role["rules"] if "secrets" in rule["resources"]]
        meta = {**role["metadata"], "name": "with-tls"}
        binding = {
            "apiVersion": role["apiVersion"],
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "with-tls"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM}],
        }
        for body in ({**role, "metadata": meta, "rules": rules}, binding):
            with contextlib.suppress(HTTPError):  # of a test before
                server.request("POST", collection(body), body)


async def test_secrets_are_written_and_only_the_authority_is_read(stage: Stage) -> None:
    allow(stage.server)
    await stage.apply(mixture())
    find, cache, key = stage.account(), Cache(), Key(stage.namespace, "tiny")
    cache.put(MIXTURE, await stage.api.get(MIXTURE, stage.namespace, "tiny"))
    async with access.open_session(find, 2) as session:
        api = ApiServer(session, find().server)
        for _ in range(2):  # the second one begins to lead where the first one led
            now = datetime.now(UTC)
            certify = Certify(api, api, cache, SYSTEM, AUTHORITY, "operator", lambda at=now: at)  # type: ignore[misc]
            assert await certify.once()
        with pytest.raises(Refused):
            await api.get(SECRET, stage.namespace, tls.secret_name("tiny", Part.ROUTER))
    trust = read_trust(await stage.api.get(SECRET, SYSTEM, AUTHORITY))
    for part in Part:
        body = await stage.api.get(SECRET, stage.namespace, tls.secret_name("tiny", part))
        seen = facts(base64.b64decode(body["data"]["tls.crt"]))
        assert seen.names == tls.names("tiny", key.namespace, part)
        assert seen.issuer == trust.facts.key_id
        assert base64.b64decode(body["data"]["ca.crt"]) == trust.believed
