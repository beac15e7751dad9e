"""The reference of `kubectl moe` names every verb beside Argo's, and help says what it says."""

from __future__ import annotations

import re

import pytest

from kubectl_moe.arguments import parser
from kubectl_moe.grammar import Verb
from kubectl_moe.vocabulary import VERBS, verb_of
from tests.reference.plugin import ARGO, MORE

EVERY = [pytest.param(verb, id=verb.name) for verb in VERBS]


def test_every_verb_stands_beside_what_argo_has_and_each_that_is_named_exists() -> None:
    named = set(re.findall(r"`([a-z]+)\b", " ".join([*ARGO.values(), *(f"`{v}`" for v in MORE)])))
    told = {verb.name for verb in VERBS}
    assert told <= named
    assert {word for word in named if verb_of(word) is None} <= {"kubectl", "moe", "mixture"}
    for command, here in ARGO.items():
        assert here.startswith(("`", "No")), command


@pytest.mark.parametrize("verb", EVERY)
def test_help_says_what_the_page_says(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([verb.name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    flags = [name for a in verb.all_arguments for name in a.names if name.startswith("--")]
    assert all(flag in said for flag in flags)


@pytest.mark.parametrize("verb", EVERY)
def test_a_verb_is_described_in_words_that_fit_a_table(verb: Verb) -> None:
    assert not verb.help.endswith(".")
    for argument in verb.all_arguments:
        assert argument.help
        assert "|" not in argument.help
