"""The command lines of the tools: what may be said, and what is wrong with what was said instead.

Free of torch, so that `moe --help` is quick.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from moe_artifacts.arguments import Command
from moe_artifacts.flags import (
    Add,
    add_naming,
    add_text_rules,
    count,
    directory,
    ids,
    natural,
    part_id,
    positive,
)

_TEXT = """
Text is read as by moe golden: files whose bytes are tokens (--bytes), .jsonl of tokens, or one
golden set; at least 8 sequences. OUT gets what is new: artifacts, manifests/ ready for kubectl
apply, and index.json; nothing is deleted, in BASE or in a cluster. The way back is to apply the
old gate again. Bits per token of the held-out text are printed, as served before and after.
"""


class Verbs(NamedTuple):
    """What each verb runs; it returns the exit code."""

    prune: Command
    merge: Command
    grow: Command
    finetune: Command
    dense: Command
    diff: Command


def add_verbs(subparsers: Any, verbs: Verbs) -> None:
    """Add the tools to the commands of `moe`."""
    _add_prune(subparsers, verbs.prune)
    _add_merge(subparsers, verbs.merge)
    _add_grow(subparsers, verbs.grow)
    _add_finetune(subparsers, verbs.finetune)
    _add_dense(subparsers, verbs.dense)
    _add_diff(subparsers, verbs.diff)


def _add_prune(subparsers: Any, run: Command) -> None:
    add = _tool(
        subparsers,
        run,
        "prune",
        "leave experts out of a gate: those least used on a text",
        "Make a gate without some experts: those named, or those that are least used on the text "
        "by the sum of the gate's weight times the norm of their output; as many of "
        "each group, where the gate has groups.",
        "  moe prune out/ pruned/ --count 1 --bytes --text all.txt --heldout code.txt legal.txt\n",
    )
    add("--experts", type=ids, metavar="ID,...", help="the experts to leave out")
    add("--count", type=count, metavar="N", help="leave out the N least used instead")


def _add_merge(subparsers: Any, run: Command) -> None:
    add = _tool(
        subparsers,
        run,
        "merge",
        "make one expert of several, averaged by their use",
        "Make one new expert of several: their average, in each layer weighted by their use on "
        "the text, and a gate whose row for it gives it the logit of all of them together.",
        "  moe merge out/ merged/ --experts e0,e1 --bytes --text all.txt --heldout code.txt\n",
    )
    add("--experts", type=ids, required=True, metavar="ID,...", help="the experts to merge")
    add("--id", type=part_id, metavar="ID", help="of the new expert (default: theirs, hyphenated)")
    _add_training(add, steps=0)


def _add_grow(subparsers: Any, run: Command) -> None:
    add = _tool(
        subparsers,
        run,
        "grow",
        "add an expert for a new kind of text",
        "Make one more expert: a copy of another, trained on the text, and a gate whose new row is "
        "fitted so that the text finds it and familiar text does not. No other weight changes.",
        "  moe grow out/ grown/ --bytes --text logs.txt --familiar old.txt --heldout new.txt\n",
    )
    _add_familiar(add, required=True)
    add("--from", dest="source", type=part_id, metavar="ID", help="default: most used on --text")
    add("--id", type=part_id, metavar="ID", help="of the new expert (default: the next eN)")
    add(
        "--keep",
        type=positive,
        default=10.0,
        metavar="X",
        help="weight of familiar text, "
        "which is not to find it, against that of the text (default: %(default)s)",
    )
    _add_training(add, steps=100)


def _add_finetune(subparsers: Any, run: Command) -> None:
    add = _tool(
        subparsers,
        run,
        "finetune",
        "train the gate, or some experts, on a text",
        "Train the named parts on the text, and on familiar text as much, so that they stay of "
        "use there; small: the whole model is in memory, on one processor. A bias that only "
        "selects experts stays as it is.",
        "  moe finetune out/ tuned/ --parts gate --bytes --text logs.txt --familiar old.txt \\\n"
        "    --heldout new.txt\n",
    )
    add("--parts", type=ids, required=True, metavar="ID,...", help="such as gate, or gate,e3")
    _add_familiar(add, required=False)
    _add_training(add, steps=100)


def _add_dense(subparsers: Any, run: Command) -> None:
    add = _tool(
        subparsers,
        run,
        "dense",
        "make a dense expert, which stands in for any that is out",
        "Make a dense expert (role Dense), which answers where an expert is out and has no backup "
        "(failover.ladder): in each layer a network, fitted to what the chosen experts answer and "
        "trained so that the model with any one expert out says what the healthy one does. Bits "
        "per token are printed for the healthy model, and with each expert out once: this one in "
        "its place, the token's other experts, nobody. The gate and all experts stay as they are; "
        "a dense expert that BASE has gets a new version. The held-out text is read three times "
        "for each expert (--limit).",
        "  moe dense out/ dense/ --intermediate 4096 --bytes --text all.txt --heldout held.txt\n",
    )
    add("--id", type=part_id, metavar="ID", help="default: that of BASE's, or dense")
    add(
        "--intermediate",
        type=count,
        metavar="N",
        help="neurons in a layer: memory and time of its pods (default: as many as an expert has)",
    )
    _add_training(add, steps=200, rate=2e-3)


def _tool(
    subparsers: Any, run: Command, name: str, help_: str, description: str, example: str
) -> Add:
    """Add a tool with what all of them take; return what adds an argument to it."""
    parser = subparsers.add_parser(
        name,
        help=help_,
        description=description,
        epilog=f"{_TEXT}\nexample:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add: Add = parser.add_argument
    add("base", type=directory, metavar="BASE", help="what moe split or such a tool wrote")
    add("out", type=Path, metavar="OUT", help="directory to write, made if missing")
    _add_texts(add)
    _add_writing(add)
    return add


def _add_texts(add: Add) -> None:
    files = {"type": Path, "nargs": "+", "metavar": "FILE", "required": True}
    add("--text", help="what the change is made with", **files)
    add("--heldout", help="what it is measured on; a slice for each file", **files)
    add_text_rules(add)


def _add_writing(add: Add) -> None:
    add_naming(add, default="the next")
    _add_artifacts(add, "BASE")
    add(
        "--threads",
        type=count,
        default=1,
        metavar="N",
        help="the result's bits depend on it (default: %(default)s)",
    )


def _add_familiar(add: Add, *, required: bool) -> None:
    add(
        "--familiar",
        type=Path,
        nargs="+",
        default=[],
        required=required,
        metavar="FILE",
        help="text of what the model knows, which is to stay as it is",
    )


def _add_training(add: Add, *, steps: int, rate: float = 3e-3) -> None:
    add(
        "--steps",
        type=natural,
        default=steps,
        metavar="N",
        help="steps of training (default: %(default)s)",
    )
    add(
        "--rate",
        type=positive,
        default=rate,
        metavar="X",
        help="peak learning rate (default: %(default)s)",
    )
    add(
        "--batch",
        type=count,
        default=4,
        metavar="N",
        help="sequences of each text in a step (default: %(default)s)",
    )
    add("--seed", type=natural, default=0, metavar="N", help="of the order of the text")


def _add_diff(subparsers: Any, run: Command) -> None:
    parser = subparsers.add_parser(
        "diff",
        help="say what differs between two artifacts or two folders",
        description="Say what differs between two artifacts, or two folders that moe split or "
        "these tools wrote: versions, experts, shapes, and by how much, layer by layer. Ends with "
        "0 where nothing does, 5 where something does, 1 where it cannot be said.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("a", type=Path, metavar="A", help="an artifact, or a folder")
    parser.add_argument("b", type=Path, metavar="B", help="the same kind of thing")
    _add_artifacts(parser.add_argument, "A or B")


def _add_artifacts(add: Add, what: str) -> None:
    add(
        "--artifacts",
        type=directory,
        action="append",
        default=[],
        metavar="DIR",
        help=f"where artifacts lie that {what} took over; repeatable",
    )
