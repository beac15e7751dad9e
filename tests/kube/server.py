"""Starts a real etcd and kube-apiserver on loopback, without nodes and without controllers.

Objects are stored, validated, watched and audited as in any cluster. Nothing makes pods out of
Deployments, collects garbage or finishes the deletion of a namespace: a test that needs that does
it by hand, or starts the server with controllers.
"""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import yaml

from tests.kube.audit import AuditLog

ADMIN_TOKEN = "admin-on-loopback"
_READY_WITHIN_S = 60.0
_AUDIT_MIB = 10_000  # else the log would be rotated at 100 MiB, and marks in it lose their meaning
_POLICY = Path(__file__).with_name("audit-policy.yaml")


class KubeServer:
    """An API server of its own, in a folder of its own; a context manager.

    `binaries` is the folder that holds etcd and kube-apiserver.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._port = 0
        self._stack = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.audit = AuditLog(folder / "audit.log")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def certificate(self) -> Path:
        """What the server's certificate is checked with."""
        return self._folder / "certificates" / "apiserver.crt"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            etcd_port, peer_port, self._port = _free_ports(3)
            self._start(stack, "etcd", self._etcd(etcd_port, peer_port))
            self._start(stack, "kube-apiserver", self._apiserver(etcd_port))
            self._await_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Have the API server answer nobody in the block: connections open, and nothing comes."""
        process = self._processes["kube-apiserver"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def kubeconfig(self, namespace: str = "default", account: str = "") -> Path:
        """Write and return a kubeconfig file, for the administrator or for a service account."""
        path = self._folder / f"kubeconfig-{namespace}-{account}"
        token = self._token(namespace, account) if account else ADMIN_TOKEN
        context = {"cluster": "test", "user": "test", "namespace": namespace}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": context}],
                    "clusters": [
                        {
                            "name": "test",
                            "cluster": {
                                "server": self.url,
                                "certificate-authority": str(self.certificate),
                            },
                        }
                    ],
                    "users": [{"name": "test", "user": {"token": token}}],
                }
            )
        )
        return path

    def request(self, method: str, path: str, body: object = None, user: str = "") -> Any:
        """Ask the server as administrator, or as another user, and return the JSON of its answer.

        Raises urllib.error.HTTPError when it refuses.
        """
        return json.loads(self._ask(method, path, body, user))

    def install_crds(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        """Create custom resource definitions and wait until they are served."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        names = [self.request("POST", path, crd)["metadata"]["name"] for crd in manifests]
        until = time.monotonic() + _READY_WITHIN_S
        for name in names:
            while not _is_established(self.request("GET", f"{path}/{name}")):
                if time.monotonic() > until:
                    raise TimeoutError(f"{name} is not established after {_READY_WITHIN_S} s")
                time.sleep(0.05)

    def create_namespace(self, name: str) -> None:
        """Create a namespace in which pods need no service account."""
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def _ask(self, method: str, path: str, body: object = None, user: str = "") -> bytes:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        if user:
            headers["Impersonate-User"] = user
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context(cafile=self.certificate)
        with urllib.request.urlopen(asked, context=context, timeout=30) as answer:
            return bytes(answer.read())

    def _token(self, namespace: str, account: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.request("POST", path, {"spec": {}})["status"]["token"])

    def _start(self, stack: ExitStack, program: str, arguments: Sequence[str]) -> None:
        log = stack.enter_context((self._folder / f"{program}.log").open("wb"))
        process = subprocess.Popen(
            [str(self._binaries / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self._folder,
        )
        self._processes[program] = process
        stack.callback(_stop, process)

    def _etcd(self, port: int, peer_port: int) -> list[str]:
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        return [
            f"--data-dir={self._folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _apiserver(self, etcd_port: int) -> list[str]:
        key = self._folder / "service-accounts.key"
        make = ["openssl", "genpkey", "-algorithm", "RSA", "-out", str(key)]
        subprocess.run(make, check=True, capture_output=True)
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder / 'certificates'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={tokens}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount",
            f"--audit-log-path={self._folder / 'audit.log'}",
            f"--audit-policy-file={_POLICY}",
            f"--audit-log-maxsize={_AUDIT_MIB}",
        ]

    def _await_ready(self) -> None:
        until = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < until:
            with suppress(OSError):  # refused, reset, no certificate yet, or not yet ready
                self._ask("GET", "/readyz")
                return
            time.sleep(0.05)
        tail = (self._folder / "kube-apiserver.log").read_text(errors="replace")[-2000:]
        raise TimeoutError(f"kube-apiserver is not ready after {_READY_WITHIN_S} s:\n{tail}")


def _is_established(crd: Mapping[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or ()  # null at first
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
