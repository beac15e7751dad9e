"""What `helm test` runs in the cluster: does the operator answer, does one lead, are our resources
served? Uses the standard library only, and ends with 1 and a sentence for each thing amiss.
"""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("MOE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
WANTED = ("experts", "gates", "mixtures", "overrides", "routingtables")
PATIENCE_S = float(os.environ.get("MOE_PATIENCE_S", "60"))


def amiss() -> list[str]:
    """Return what is wrong now, a sentence each."""
    return [said for said in (health(), resources(), leader()) if said]


def health() -> str:
    """Return what is wrong with the operator's own word."""
    url = os.environ["MOE_HEALTH"] + "/readyz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            answer.read()
    except OSError as error:
        return f"the operator does not answer at {url}: {error}"
    return ""


def resources() -> str:
    """Return which custom resources the API server does not serve."""
    try:
        served = {str(each["name"]) for each in ask("/apis/moeops.dev/v1alpha1")["resources"]}
    except OSError as error:
        return f"the API server does not serve moeops.dev/v1alpha1: {error}"
    lacking = [name for name in WANTED if name not in served]
    return f"the API server does not serve {', '.join(lacking)}" if lacking else ""


def leader() -> str:
    """Return what is wrong with the Lease."""
    namespace, name = os.environ["MOE_LEASE_NAMESPACE"], os.environ["MOE_LEASE"]
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    try:
        holder = ask(path)["spec"].get("holderIdentity")
    except OSError as error:
        return f"the Lease {namespace}/{name} cannot be read: {error}"
    return "" if holder else f"nobody holds the Lease {namespace}/{name}"


def ask(path: str) -> Any:
    """Return what the API server says. Raises OSError."""
    host, port = (os.environ[f"KUBERNETES_SERVICE_{part}"] for part in ("HOST", "PORT"))
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    token = (ACCOUNT / "token").read_text()
    asked = urllib.request.Request(
        f"https://{where}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(asked, context=trust, timeout=5) as answer:
        return json.loads(answer.read())


until = time.monotonic() + PATIENCE_S
while (found := amiss()) and time.monotonic() < until:
    time.sleep(1)
print("\n".join(found) or "the operator answers, one leads, and all custom resources are served")
sys.exit(1 if found else 0)
