"""Bearer tokens: whose they are, what else comes in a header, and a Secret that changes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.callers import BadTokens, Callers, presented, read_digests, tenant_of
from moe_router.refusal import Code, Refused

TENANTS = ("team-a", "team-b")


def digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def write(folder: Path, tenant: str, *tokens: str) -> None:
    fresh = folder / f".{tenant}"
    fresh.write_text("".join(f"{digest(token)}\n" for token in tokens))
    fresh.rename(folder / tenant)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        pytest.param([], "there is no metadata authorization", id="none"),
        pytest.param([("authorization", "Basic eA==")], "not of this form", id="another scheme"),
        pytest.param([("authorization", b"Bearer x")], "not of this form", id="bytes"),
        pytest.param([("authorization", "Bearer x")] * 2, "not of this form", id="twice"),
        pytest.param([("authorization", "Bearer ")], "a token of no tenant", id="empty"),
        pytest.param([("authorization", "Bearer secret")], "a token of no tenant", id="wrong"),
    ],
)
def test_what_is_no_token_is_refused_by_the_headers_name(
    metadata: list[tuple[str, str | bytes]], text: str
) -> None:
    with pytest.raises(Refused, match=text) as caught:
        tenant_of(presented(metadata), {digest("right"): "team-a"})
    assert caught.value.code is Code.UNAUTHENTICATED
    assert "it must be 'Bearer TOKEN'" in caught.value.message
    assert "secret" not in caught.value.message


@given(st.one_of(st.text(), st.binary(), st.text(alphabet=st.characters(categories=["Cs"]))))
def test_whatever_a_header_holds_is_refused(value: str | bytes) -> None:
    forms: list[str | bytes] = [value]
    if isinstance(value, str):
        forms.append(f"Bearer {value}")
    for form in forms:
        with pytest.raises(Refused) as caught:
            tenant_of(presented([("authorization", form)]), {digest("right token"): "team-a"})
        assert caught.value.code is Code.UNAUTHENTICATED


def test_two_tokens_of_one_tenant_are_valid_until_one_is_taken_out(tmp_path: Path) -> None:
    write(tmp_path, "team-a", "old", "new")
    callers = Callers(tmp_path, TENANTS, pytest.fail)
    entered = [callers.admit([("authorization", f"bearer {token}")]) for token in ("old", "new")]
    assert {tenant for tenant, _ in entered} == {"team-a"}

    write(tmp_path, "team-a", "new")
    callers.refresh()
    (_, old), (_, new) = entered
    callers.check(new)
    with pytest.raises(Refused, match="is not valid any more"):
        callers.check(old)


def test_a_folder_that_went_wrong_leaves_what_was_there(tmp_path: Path) -> None:
    told = list[str]()
    write(tmp_path, "team-a", "good")
    callers = Callers(tmp_path, TENANTS, told.append)
    (tmp_path / "team-b").write_text("the token itself, by mistake")
    for _ in range(2):
        callers.refresh()

    assert callers.admit([("authorization", "Bearer good")])[0] == "team-a"
    (reason,) = told
    assert "team-b, line 1 is not what it must be: the sha256 of a token" in reason
    assert "by mistake" not in reason


def test_a_token_of_two_tenants_is_refused(tmp_path: Path) -> None:
    for tenant in TENANTS:
        write(tmp_path, tenant, "same")
    with pytest.raises(BadTokens, match="team-b, line 1 is of a token that tenant team-a has, too"):
        read_digests(tmp_path, TENANTS)


def test_a_tenant_without_a_file_has_no_token(tmp_path: Path) -> None:
    assert read_digests(tmp_path, TENANTS) == {}


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_is_digests_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("tenants")
    (folder / "team-a").write_bytes(content)
    wrong = ""
    try:
        found = read_digests(folder, TENANTS)
    except BadTokens as error:
        found, wrong = {}, str(error)
    assert all(len(each) == 64 for each in found)
    assert not wrong or wrong.startswith(str(folder / "team-a"))
