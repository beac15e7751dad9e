"""What the commands do, in the order in which they do it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cluster import (
    daemon,
    golang,
    helm,
    images,
    install,
    kind,
    kube_binaries,
    loading,
    node_image,
    prometheus,
    record,
    tools,
)
from cluster.helm import Helm
from cluster.install import Kubectl
from cluster.locks import held
from cluster.places import Places
from cluster.prerequisites import find
from cluster.progress import Progress, StepFailed

# It installs what `make krew` packs, in a test.
KREW, KREW_VERSION = "sigs.k8s.io/krew/cmd/krew", "v0.4.3"


def up(places: Places, progress: Progress) -> None:
    """Have a cluster that can be used, and say how."""
    theirs = Kubectl(places, progress)
    if not theirs.is_local:
        if not theirs.succeeds("get", "--raw", "/readyz", "--request-timeout=20s"):
            raise StepFailed(f"the cluster that KUBECONFIG names ({theirs.config}) does not answer")
        tools.write_env(places, theirs.config)
        progress.say(f"using the cluster that KUBECONFIG names ({theirs.config})")
        return
    with held(daemon.in_use(places), shared=True):
        daemon.ensure(places, progress)
        program = node_image.kind(places, progress)
        for orphan in record.orphans(places.cache):
            progress.say(f"deleting the cluster {orphan}, whose checkout is gone")
            kind.delete_named(orphan, program, progress)
        image = node_image.ensure(places, progress)
        tools.link(places, {"kind": program, **kube_binaries.ensure(places, image, progress)})
        with held(_cluster_lock(places)):
            kind.ensure(places, image, program, progress)
    file = tools.write_env(places, str(places.kubeconfig))
    progress.say(f"the cluster {places.cluster} is up; to use it: . {file}")


def build_images(places: Places, progress: Progress) -> None:
    """Build the images of the programs and bring them to where the cluster finds them.

    A local cluster gets them from Docker. For any other, REGISTRY names where they are pushed to.
    """
    registry = os.environ.get("REGISTRY", "")
    if not registry and not Kubectl(places, progress).is_local:
        raise StepFailed(
            "the cluster that KUBECONFIG names needs a registry to pull from; "
            "say which one, for example: make images REGISTRY=registry.example.com/me"
        )
    with held(daemon.in_use(places), shared=True):
        daemon.ensure(places, progress)
        if registry:
            built = images.build(places, f"{registry}/moeops-", progress, torch=True)
            images.push(built, progress)
            return
        built = images.build(places, "moeops/", progress, torch=False)
        workers = [n for n in kind.node_states(places, progress) if "control-plane" not in n]
        loading.load(workers, built.values(), places.state, progress)


def install_all(places: Places, progress: Progress) -> None:
    """Install moeops into the cluster, and have the namespace that the examples are applied to."""
    kubectl = Kubectl(places, progress)
    program = helm.ensure(places, progress)
    release = (install.RELEASE, install.SYSTEM_NAMESPACE)
    install.install(places, kubectl, Helm(program, kubectl.config, *release, progress), progress)
    namespace(places, os.environ.get("MOE_LOCAL_NAMESPACE") or "moe", progress)


def namespace(places: Places, name: str, progress: Progress) -> None:
    """Make a namespace that mixtures can live in."""
    install.namespace(places, name, Kubectl(places, progress), progress)


def during(places: Places, progress: Progress, command: list[str]) -> int:
    """Run a command and return its status; take away afterwards what was not there before."""
    keep = record.Record.read(places) is not None and not os.environ.get("CI")
    child = subprocess.Popen(command)
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    finally:
        if not keep:
            down(places, progress)


def down(places: Places, progress: Progress) -> None:
    """Take this checkout's cluster away, and the Docker daemon if it was started for it."""
    _delete_cluster(places, progress)
    daemon.stop_if_idle(places, progress)


def _delete_cluster(places: Places, progress: Progress) -> None:
    made = record.Record.read(places)
    if made:
        daemon.ensure(places, progress)
    elif not daemon.answers(progress):
        return
    with held(daemon.in_use(places), shared=True), held(_cluster_lock(places)):
        if made or kind.node_states(places, progress):
            kind.delete(places, node_image.kind(places, progress), progress)
        progress.succeeds(["docker", "network", "rm", "kind"])  # refused while it is used


def purge(places: Places, progress: Progress) -> None:
    """Take away everything: also the environment, and the cache that all checkouts share.

    Raises StepFailed while another checkout has a cluster.
    """
    _delete_cluster(places, progress)
    others = sorted(path.name for path in (places.cache / "clusters").glob("*"))
    if others:
        raise StepFailed(f"other checkouts use the shared cache: {', '.join(others)}")
    if daemon.answers(progress):
        ours = ["docker", "image", "ls", "--quiet", "--filter", "reference=moeops/*"]
        found = sorted(set(progress.run(ours).split()))
        if found:
            progress.run(["docker", "image", "rm", "--force", *found])
        daemon.stop_if_idle(places, progress)
    with progress.step(f"removing {places.venv}, {places.cache} and {places.state}"):
        for folder in (places.venv, places.cache, places.state):
            shutil.rmtree(folder, ignore_errors=True)


def status(places: Places, progress: Progress) -> None:
    """Say what there is of this checkout's cluster."""
    print(f"cluster     {places.cluster}")
    print(f"kubeconfig  {places.kubeconfig}")
    print(f"cache       {places.cache}")
    made = record.Record.read(places)
    print(f"node image  {made.image if made else '-'}")
    docker = daemon.answers(progress)
    print(f"docker      {'answers' if docker else 'does not answer'}")
    for name, state in sorted(kind.node_states(places, progress).items() if docker else ()):
        print(f"node        {name}  {state}")


def binaries(places: Places, progress: Progress) -> None:
    """Have the programs in `.moe/bin` that tests without a cluster start."""
    if not tools.has(places, kube_binaries.NAMES):
        with held(daemon.in_use(places), shared=True):
            daemon.ensure(places, progress)
            image = node_image.ensure(places, progress)
            tools.link(places, kube_binaries.ensure(places, image, progress))
    if not tools.has(places, prometheus.PROGRAMS):
        tools.link(places, prometheus.ensure(places, find, progress))
    if not tools.has(places, (helm.NAME,)):
        helm.ensure(places, progress)
    if not tools.has(places, ("krew",)):
        program = golang.program(places, KREW, KREW_VERSION, progress, takes=" (a minute, once)")
        tools.link(places, {"krew": program})


def _cluster_lock(places: Places) -> Path:
    """The lock that is held while this checkout's cluster is made or deleted."""
    return places.state / "cluster.lock"
