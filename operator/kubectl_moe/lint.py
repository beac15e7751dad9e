"""`kubectl moe lint`: checks manifests before anybody applies them.

Offline by the schemas that come with this command; with --server by the API server as well, which
alone knows the rules between fields, admission policies and what is there.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any

import yaml

from kubectl_moe import references
from kubectl_moe.advice import Step, moe
from kubectl_moe.cluster import ClusterError
from kubectl_moe.health import Exit
from kubectl_moe.manifests import Manifest, Unreadable, read, repeated, sources
from kubectl_moe.names import API_VERSION, GROUP, PLURALS
from kubectl_moe.schema import Field, Schema, check, dotted
from kubectl_moe.session import Session


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and on which line."""

    source: str
    line: int
    severity: Severity
    object: str
    field: str
    text: str

    def __str__(self) -> str:
        said = " ".join(part for part in (self.field, self.text) if part)
        of = f"{self.object}: " if self.object else ""
        return f"{self.source}:{self.line}: {self.severity}: {of}{said}"


def lint(args: Namespace, session: Session) -> Exit:
    """Print what is wrong; end with 1 where anything surely is."""
    manifests: list[Manifest] = []
    findings: list[Finding] = []
    for source, text in sources(args.files):
        try:
            manifests += read(source, text)
        except Unreadable as error:
            findings.append(Finding(source, error.line, Severity.ERROR, "", "", str(error)))
    findings += _offline(manifests)
    if args.server:
        findings += _by_server(manifests, findings, session)
    count = Counter(finding.severity for finding in findings)
    ours = sum(_is_ours(manifest.body) for manifest in manifests)
    if args.output != "text":
        session.show({"objects": ours, "findings": [asdict(f) for f in findings]}, args.output)
    else:
        for finding in findings:
            session.print(str(finding))
        errors, warnings = count[Severity.ERROR], count[Severity.WARNING]
        said = f"{_counted(ours, 'object')}: {_counted(errors, 'error')}, "
        session.say(said + _counted(warnings, "warning"))
    failed = count[Severity.ERROR] or (args.strict and count[Severity.WARNING])
    if not failed:
        session.advise(_steps(args))
    return Exit.ERROR if failed else Exit.HEALTHY


def _steps(args: Namespace) -> Iterator[Step]:
    named = " ".join(args.files)
    if not args.server and args.files != ["-"]:
        yield moe(f"lint {named} --server", "also the rules that only the API server knows")
    yield Step(f"kubectl apply {' '.join(f'-f {name}' for name in args.files)}", "apply it")


def _offline(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    sound: list[Manifest] = []
    schemas = _schemas()
    for manifest in manifests:
        faults = list(_faults(manifest, schemas))
        for field, text in faults:
            yield _finding(manifest, field, text)
        if not faults and _is_ours(manifest.body):
            sound.append(manifest)
    for objection in references.check([manifest.body for manifest in sound]):
        severity = Severity.ERROR if objection.surely else Severity.WARNING
        yield _finding(sound[objection.index], objection.field, objection.text, severity)


def _faults(manifest: Manifest, schemas: Mapping[str, Schema]) -> Iterator[tuple[Field, str]]:
    """Give what is wrong with one object by itself; of other groups only what is no object."""
    body = manifest.body
    if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
        yield (), "is no object of Kubernetes: it has no kind"
        return
    for field in repeated(manifest.node):
        yield field, "is written twice"
    if not _is_ours(body):
        return
    kind, version = body["kind"], body["apiVersion"]
    if version != API_VERSION:
        yield ("apiVersion",), f"is {version!r}; it must be {API_VERSION}"
    if kind == "RoutingTable" or kind not in PLURALS:
        known = ", ".join(known for known in PLURALS if known != "RoutingTable")
        yield ("kind",), f"is {kind!r}; people write {known}"
        return
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        yield ("metadata", "name"), "is missing"
    written = {key: body[key] for key in body.keys() - {"apiVersion", "kind", "metadata", "status"}}
    for fault in check(written, schemas[kind]):
        yield fault.field, fault.text


def _by_server(
    manifests: Sequence[Manifest], findings: Sequence[Finding], session: Session
) -> Iterator[Finding]:
    """Let the API server check what has nothing wrong so far."""
    bad = {(finding.source, finding.object) for finding in findings}
    for manifest in manifests:
        known = _is_ours(manifest.body) and (manifest.source, _object(manifest.body)) not in bad
        if known and manifest.body["metadata"].get("name"):
            try:
                session.cluster.apply(manifest.body, dry_run=True)
            except ClusterError as error:
                yield _finding(manifest, (), str(error))


def _finding(
    manifest: Manifest, field: Field, text: str, severity: Severity = Severity.ERROR
) -> Finding:
    line = manifest.line(field)
    return Finding(manifest.source, line, severity, _object(manifest.body), dotted(field), text)


def _object(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    metadata = body.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return f"{body.get('kind', '')} {name}".strip()


def _is_ours(body: Any) -> bool:
    return isinstance(body, dict) and str(body.get("apiVersion", "")).startswith(f"{GROUP}/")


def _schemas() -> Mapping[str, Schema]:
    """Return the schemas that this command came with, by kind."""
    found = {}
    for file in files("kubectl_moe").joinpath("crds").iterdir():
        spec = yaml.safe_load(file.read_text())["spec"]
        found[spec["names"]["kind"]] = spec["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
