"""What a program reads of its folder of certificates, and what it says where that is wrong."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from moe_client import InvalidRequest, Tls
from moe_core import identity
from moe_core.tls import BadTls, Folder, Material, client_context, server_context
from tests.support.certificates import CLIENT, ROUTER, Authority, write


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _with(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        pytest.param(
            _without("tls.crt"),
            "{}/tls.crt cannot be read: No such file or directory; the folder must hold "
            "tls.crt, tls.key and ca.crt",
            id="no certificate",
        ),
        pytest.param(
            _with("tls.key", Authority().leaf(ROUTER).key),
            "{}/tls.key is not the key of tls.crt",
            id="the key of another certificate",
        ),
        pytest.param(
            _with("ca.crt", b"none"),
            "{}/ca.crt holds no authority; it must be certificates in PEM",
            id="no authority",
        ),
        pytest.param(
            _with("tls.crt", b"none"),
            "{}/tls.crt or tls.key cannot be used; they must be PEM, the key without a password",
            id="no PEM",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_by_name(
    authority: Authority, tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    folder = authority.folder(tmp_path / "own", ROUTER)
    spoil(folder)
    with pytest.raises(BadTls) as refused:
        Folder(folder)
    assert str(refused.value) == sentence.format(folder)


def test_a_client_may_prove_nothing_but_not_half(authority: Authority, tmp_path: Path) -> None:
    folder = authority.folder(tmp_path / "own", CLIENT)
    (folder / "tls.key").unlink()
    with pytest.raises(InvalidRequest, match=r"tls: .*tls\.key cannot be read"):
        Tls(folder)
    (folder / "tls.crt").unlink()
    assert Material.read(folder, anonymous=True).certificate == b""
    assert Tls(folder, "name").credentials() is not None


def test_what_is_new_is_taken_when_it_is_whole(authority: Authority, tmp_path: Path) -> None:
    told: list[str] = []
    folder = authority.folder(tmp_path / "own", ROUTER)
    seen = Folder(folder, told.append)
    first = seen.newest()
    assert seen.newest() is first
    (folder / "tls.key").write_bytes(authority.leaf(ROUTER).key)
    assert seen.newest() is first
    assert seen.newest() is first
    assert told == [f"{folder / 'tls.key'} is not the key of tls.crt"]
    second = authority.leaf(ROUTER)
    write(folder, second, authority.pair.certificate)
    assert seen.newest() == Material(second.certificate, second.key, authority.pair.certificate)


def test_the_kubelet_swaps_a_link_to_all_files_at_once(
    authority: Authority, tmp_path: Path
) -> None:
    for number in ("..1", "..2"):
        authority.folder(tmp_path / number, ROUTER)
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    folder = Folder(tmp_path)
    assert folder.newest().certificate == (tmp_path / "..1" / "tls.crt").read_bytes()
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert folder.newest().certificate == (tmp_path / "..2" / "tls.crt").read_bytes()


def test_contexts_ask_for_certificates_and_names_by_tls_1_3(
    authority: Authority, tmp_path: Path
) -> None:
    material = Material.read(authority.folder(tmp_path / "own", ROUTER))
    server, client = server_context(material), client_context(material)
    assert server.verify_mode is client.verify_mode is ssl.CERT_REQUIRED
    assert client.check_hostname
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        pytest.param(["b", ROUTER], "", id="one of its names is right"),
        pytest.param(
            ["other-router.default.svc"],
            f"the certificate is of other-router.default.svc; it must be of {ROUTER}",
            id="the routers of another mixture",
        ),
        pytest.param(
            [], f"the certificate is of no DNS name; it must be of {ROUTER}", id="without a name"
        ),
    ],
)
def test_a_certificate_of_another_is_refused_with_both_names(
    names: list[str], sentence: str
) -> None:
    assert identity.refusal(names, {identity.routers("tiny", "default")}) == sentence
