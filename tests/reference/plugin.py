"""The reference of the plugin, `docs/kubectl-moe.md`, made of its vocabulary.

After a wanted change: `python -m tests.reference` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from kubectl_moe.arguments import DESCRIPTION
from kubectl_moe.completer import LIMIT_NAME
from kubectl_moe.grammar import Argument, Verb
from kubectl_moe.vocabulary import CONNECTION, VERBS

PAGE: Final = Path(__file__).parents[2] / "docs" / "kubectl-moe.md"

# Each command of `kubectl argo rollouts`, and what there is here: a verb in backticks, or why not.
ARGO: Final[Mapping[str, str]] = {
    "get rollout": "`status`: the tree, with evidence and Overrides, and `-o json`",
    "get experiment": "No: an experiment is a rollout here, and `status` shows its evidence",
    "list rollouts": "`get` (or `list`), of all kinds; `-A`, `-w`",
    "list experiments": "No, as there are none beside rollouts; `get` lists what is on trial",
    "status": "`status --wait`: ends with 0, 2, 3 or 4, where Argo's has 0 and 1",
    "promote": "`promote`: at once and to the end, as with Argo's `--full`",
    "abort": "`abort`",
    "retry rollout": "`retry`",
    "retry experiment": "No: `retry` tries a rollout again, with its evaluation",
    "undo": "`rollback`: at once and without steps, and no write to the spec, which a GitOps tool "
    "would fight; `mixture/NAME` takes a whole epoch back",
    "pause": "`pause`; `resume` lets it go on",
    "restart": "No: pods of one version are all alike; `kubectl delete pod` replaces one, while "
    "its sibling, or the failover ladder, answers",
    "set image": "`set version`: what changes is an artifact, not an image; a known version needs "
    "no digest",
    "lint": "`lint`: with lines, references between objects, and `--server`",
    "create": "No: `kubectl apply`; `moe split` writes the manifests",
    "terminate": "No: evidence is not an object, and ends with its rollout: `abort`",
    "dashboard": "No page of its own: `top -w` and `status -w` in a terminal, Grafana's dashboards "
    "and alerts by the chart",
    "notifications": "No: Events, and alerts in Prometheus, which already know whom to tell",
    "completion": "`completion`: `--install` for `kubectl moe`, bash, zsh and fish for the program",
    "version": "`version`: also of the operators in the cluster",
}
# Verbs that it has nothing for.
MORE: Final[Mapping[str, str]] = {
    "top": "the load of each version of each expert, live",
    "routing": "what gates choose",
    "baseline": "how a gate spreads rows now, to tell drift by",
    "history": "revisions and epochs, how they ended, why, and who decided",
    "diff": "what differs between two of them",
    "resume": "the end of a Pause or of a rollback",
}

_HEAD: Final = f"""\
# kubectl moe

Made by `python -m tests.reference` of the plugin's vocabulary; do not edit it by hand.

{DESCRIPTION}

## Install
No release is published yet. From a checkout, with Python 3.11 or newer and without torch or the \
operator's packages:
```
pipx install '.[cli]'
kubectl moe version
```
This puts `kubectl-moe` and `kubectl_complete-moe` in PATH; by the second kubectl 1.26 or newer \
completes `kubectl moe` in every shell, with names, versions and revisions from the cluster. A \
cluster that does not answer within two seconds offers none (`{LIMIT_NAME}=5s` waits longer).

For krew, `make krew RELEASE=https://…` packs an archive for the machine and the version of Python \
that it runs with, and writes a manifest with its digest into `dist/`; `kubectl krew install \
--manifest=dist/moe.yaml --archive=dist/…` installs it. The address is where you will publish the \
archive: nothing is there before. krew links one program only, so then say \
`kubectl moe completion --install`.

## For people and for programs
What is asked for goes to stdout; what was done, progress, warnings and the command that may come \
next (`-q` leaves that out) go to stderr. `-o json` and `-o yaml` have all that is known, \
`-o name` is for `xargs kubectl`, `-o wide` adds columns. There is colour on a terminal only, and \
none with `NO_COLOR` or `TERM=dumb`. A gate is `gate/NAME` everywhere; a bare name is an expert, \
for `status` a mixture or else an expert.

| exit code | |
|---|---|
| 0 | healthy, or done |
| 1 | error, also of the command line; `lint` found one |
| 2 | degraded or rolled back |
| 3 | timed out |
| 4 | paused |
| 5 | `diff`: they differ |
"""


def page() -> str:
    """Return the page as it is to be."""
    return "".join([_HEAD, *_verbs(), *_beside(), *_reference()])


def _verbs() -> Iterator[str]:
    yield "\n## Verbs\n| verb | | output |\n|---|---|---|\n"
    for verb in VERBS:
        forms = ", ".join(verb.forms)
        yield f"| [`{verb.name}`](#{verb.name}) | {verb.help} | {forms} |\n"


def _beside() -> Iterator[str]:
    yield (
        "\n## Beside `kubectl argo rollouts`\nWhat users of Argo Rollouts know, and what it is "
        "here.\n\n| kubectl argo rollouts | kubectl moe |\n|---|---|\n"
    )
    for command, here in ARGO.items():
        yield f"| `{command}` | {here} |\n"
    for verb, what in MORE.items():
        yield f"| | `{verb}`: {what} |\n"


def _reference() -> Iterator[str]:
    yield "\n## Everywhere\nThese may stand before the verb or behind it.\n\n"
    yield from _arguments(CONNECTION)
    for verb in VERBS:
        yield f"\n## {verb.name}\n{verb.help[0].upper()}{verb.help[1:]}.\n"
        if verb.aliases:
            yield f"Also: {', '.join(f'`{alias}`' for alias in verb.aliases)}.\n"
        yield f"```text\n{_usage(verb)}\n```\n"
        yield from _arguments(verb.all_arguments)
        if verb.example:
            yield f"\n```\n{verb.example}\n```\n"


def _usage(verb: Verb) -> str:
    said = ["kubectl moe", verb.name, *map(_short, verb.all_arguments)]
    lines = [""]
    for part in said:
        if len(lines[-1]) + len(part) > 95:
            lines.append(" " * 6)
        lines[-1] += f"{part} "
    return "\n".join(line.rstrip() for line in lines)


def _short(argument: Argument) -> str:
    if argument.is_switch:
        return f"[{argument.names[0]}]"
    value = argument.shown + (" ..." if argument.most is None else "")
    if argument.is_flag:
        value = f"[{value}]" if argument.least == 0 else value
        return f"[{argument.names[0]} {value}]"
    return value if argument.least else f"[{value}]"


def _arguments(arguments: tuple[Argument, ...]) -> Iterator[str]:
    yield "| argument | |\n|---|---|\n"
    for argument in arguments:
        name = ", ".join(argument.names) if argument.is_flag else argument.shown
        value = f" {argument.shown}" if argument.is_flag and not argument.is_switch else ""
        choices = (
            f" ({', '.join(argument.choices)})" if argument.metavar and argument.choices else ""
        )
        yield f"| `{_escaped(name + value)}` | {argument.help}{choices} |\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
