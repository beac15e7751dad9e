"""The verbs of `kubectl moe`, and what may be said with each."""

from __future__ import annotations

from typing import Final

from kubectl_moe.grammar import Argument, Verb, Words, duration, switch, whole

PEOPLE: Final = "text"
SORTS: Final = ("load", "util", "delay", "rows", "queued", "ready", "name")

_EVERY: Final = (PEOPLE, "wide", "json", "yaml", "name")
_TREE: Final = (PEOPLE, "json", "yaml", "name")
_PLAIN: Final = (PEOPLE, "json", "yaml")

CONNECTION: Final = (
    Argument(
        ("-n", "--namespace"),
        "namespace (default: that of the context)",
        words=Words.NAMESPACE,
    ),
    Argument(("--context",), "context of the kubeconfig", words=Words.CONTEXT),
    Argument(
        ("--kubeconfig",), "kubeconfig (default: KUBECONFIG, ~/.kube/config)", words=Words.FILE
    ),
    Argument(("--request-timeout",), "per request (10s)", "D", duration, default=10.0),
    switch("-q", "--quiet", help="do not say which command may come next"),
)

_WAITING: Final = (
    switch("--wait", help="until settled; sets the exit code"),
    Argument(("--timeout",), "of --wait (10m)", "D", duration, default=600.0),
)
_REASON: Final = Argument(("--reason",), "why, for those who read it later", default="")
_WATCH: Final = switch("-w", "--watch", help="show changes until interrupted")
_REVISIONS: Final = "revision, version or epoch"
_TRIED: Final = "expert: NAME; gate: gate/NAME"


def _target(*, mixtures: bool) -> Argument:
    text = f"{_TRIED}; mixture: mixture/NAME" if mixtures else _TRIED
    return Argument(("target",), text, words=Words.SHOWN if mixtures else Words.TRIED)


def _decision(name: str, text: str, *own: Argument, mixtures: bool = False) -> Verb:
    return Verb(name, text, (_target(mixtures=mixtures), *own, _REASON, *_WAITING), _TREE)


GET: Final = Verb(
    "get",
    "list mixtures, gates, experts and overrides",
    (
        Argument(
            ("kind",), "mixtures, gates, … (default: all)", default="all", least=0, words=Words.KIND
        ),
        Argument(("name",), "only this one", least=0, words=Words.NAME),
        switch("-A", "--all-namespaces", help="in all namespaces"),
        _WATCH,
    ),
    _EVERY,
    ("list",),
    "kubectl moe get experts -o wide",
)
STATUS: Final = Verb(
    "status",
    "show a mixture, a gate or an expert as a tree, down to its pods",
    (
        Argument(("target",), "mixture or expert: NAME; gate: gate/NAME", words=Words.SHOWN),
        _WATCH,
        *_WAITING,
    ),
    _TREE,
    example="kubectl moe status mixtral --wait",
)
TOP: Final = Verb(
    "top",
    "show the load of experts by version: replicas, utilization, queue delay, rows",
    (
        Argument(
            ("mixture",), "NAME of the mixture (default: all)", least=0, words=Words.MIXTURE
        ),
        _WATCH,
        Argument(
            ("--sort-by",),
            "what comes first: the most of this (default: load)",
            "KEY",
            choices=SORTS,
            default="load",
        ),
        Argument(("--window",), "average over this time (2s; with -w the last 10s)", "D", duration),
        Argument(("--limit",), "at most this many lines (default: all)", "N", whole(1)),
    ),
    _EVERY,
    example="kubectl moe top mixtral -w --sort-by delay",
)  # fmt: skip
HISTORY: Final = Verb(
    "history",
    "list the revisions of an expert or a gate, or the epochs of a mixture",
    (
        _target(mixtures=True),
        Argument(("--revision",), "show this revision or epoch whole", "N", words=Words.PAST),
    ),
    (PEOPLE, "wide", "json", "yaml"),
)
DIFF: Final = Verb(
    "diff",
    "show what differs between two revisions; ends with 5 if anything does",
    (
        _target(mixtures=True),
        Argument(
            ("a",), f"{_REVISIONS} (default: one before B)", least=0, words=Words.PAST
        ),
        Argument(("b",), "the other one (default: the newest)", least=0, words=Words.PAST),
    ),
    _PLAIN,
)  # fmt: skip
ROUTING: Final = Verb(
    "routing",
    "show how the gates of a mixture spread rows over experts",
    (
        Argument(("mixture",), "NAME of the mixture", words=Words.MIXTURE),
        Argument(("--gate",), "only this gate", "NAME", words=Words.GATE),
        Argument(("--layer",), "the experts of this layer (default: all layers)", "N", whole(0)),
        Argument(("--top",), "how many layers or experts (20)", "N", whole(1), default=20),
        Argument(
            ("--window",),
            "what comes in the next D (default: since routers started; with -w the last 10s)",
            "D",
            duration,
        ),
        switch("-w", "--watch", help="again and again"),
    ),
    _PLAIN,
)
BASELINE: Final = Verb(
    "baseline",
    "print how a gate spreads rows now, for spec.drift of its Gate",
    (
        Argument(("gate",), "NAME of the gate", words=Words.GATE),
        Argument(
            ("--window",),
            "what comes in the next D (default: since routers started)",
            "D",
            duration,
        ),
    ),
    _PLAIN,
    example="kubectl moe baseline mixtral-gate --window 10m > baseline.yaml",
)
SET: Final = Verb(
    "set",
    "ask for another version of an expert or a gate: changes its spec, which begins a rollout",
    (
        Argument(("what",), "version", choices=("version",)),
        _target(mixtures=False),
        Argument(("version",), "name of the version", words=Words.PAST),
        Argument(("--uri",), "where its artifact is (default: where it was before)"),
        Argument(("--sha256",), "digest of the artifact (default: what it was before)"),
        switch("--dry-run", help="let the API server check it, and change nothing"),
        *_WAITING,
    ),
    _TREE,
    example="kubectl moe set version ex/mixtral-e3 v2 --uri file:///models/e3-v2.safetensors "
    '--sha256 "$(head -c 64 e3-v2.safetensors.sha256)"',
)
LINT: Final = Verb(
    "lint",
    "check manifests: what their schemas say, and what they say of each other",
    (
        Argument(("files",), "files or folders; - is stdin", "FILE", most=None, words=Words.FILE),
        switch("--server", help="let the API server check them too, as if they were applied"),
        switch("--strict", help="warnings count as errors"),
    ),
    _PLAIN,
    example="kubectl moe lint manifests/ --strict",
)
VERSION: Final = Verb(
    "version",
    "show the version of this command and of the operator in the cluster",
    (switch("--client", help="of this command only"),),
    _PLAIN,
)
COMPLETION: Final = Verb(
    "completion",
    "make the shell complete verbs, flags and names",
    (
        Argument(
            ("shell",),
            "print what this shell is to read, for the command kubectl-moe",
            choices=("bash", "zsh", "fish"),
            least=0,
        ),
        Argument(
            ("--install",),
            "install kubectl_complete-moe, by which kubectl 1.26 or newer completes "
            "`kubectl moe` in all shells (default: beside kubectl-moe)",
            "FOLDER",
            default=None,
            least=0,
            words=Words.FOLDER,
        ),
    ),
    (PEOPLE,),
    example="kubectl moe completion --install",
)
DECISIONS: Final = (
    _decision(
        "rollback",
        "serve an earlier version or epoch, whatever the spec says",
        Argument(
            ("--to",),
            "version or revision, of a mixture the epoch (default: the one before)",
            "WHICH",
            words=Words.PAST,
        ),
        mixtures=True,
    ),
    _decision("promote", "make the candidate stable now"),
    _decision("abort", "take the candidate back"),
    _decision("retry", "try a rollout that was taken back again"),
    _decision("pause", "hold a rollout where it is"),
    _decision("resume", "follow the spec again: remove Pause and Serve overrides", mixtures=True),
)
VERBS: Final = (
    *(GET, STATUS, TOP, HISTORY, DIFF, ROUTING, BASELINE),
    *DECISIONS,
    *(SET, LINT, VERSION, COMPLETION),
)


def verb_of(word: str) -> Verb | None:
    """Return the verb of that name or alias."""
    return next((verb for verb in VERBS if word in (verb.name, *verb.aliases)), None)
