"""Damages bytes as bad networks and bad peers do; and bytes that are worth keeping."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

Blow = tuple[str, int, int, bytes]

# The largest numbers that a varint, a uint32 and a uint64 can say, and lengths around the bounds.
HUGE = (
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x00\x00\x00\x01",
    b"\x01\x00\x00\x01",
    b"\x00\x00\x00\x40",
    b"\x01\x00\x00\x40",
)

# What has come to ports like these before, or was found by looking for it.
CORPUS = (
    b"",
    b"\x00",
    b"\x00" * 12,
    b"\x00" * 64,
    b"\xff" * 64,
    b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(32),
    bytes.fromhex("1603010200010001") + b"0" * 64,
    b"moe2",
    b"moe2" + bytes(24),
    b"\x0a\xff\xff\xff\xff\x0f",  # a field of 4 GB
    b"\x0b" * 200,  # groups in groups, without an end
    b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # a varint of eleven bytes
)

_DEEDS: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "cut off": lambda whole, at, size, _: whole[:at],
    "left out": lambda whole, at, size, _: whole[:at] + whole[at + size :],
    "flipped": lambda whole, at, size, _: (
        whole[:at] + bytes([whole[at] ^ 1 << size % 8]) + whole[at + 1 :]
    ),
    "put in": lambda whole, at, size, more: whole[:at] + more + whole[at:],
    "written over": lambda whole, at, size, more: whole[:at] + more + whole[at + len(more) :],
    "said twice": lambda whole, at, size, _: whole[: at + size] + whole[at:],
    "swapped": lambda whole, at, size, _: (
        whole[:at]
        + whole[at + size : at + 2 * size]
        + whole[at : at + size]
        + whole[at + 2 * size :]
    ),
}


def struck(whole: bytes, blows: list[Blow]) -> bytes:
    """Return the bytes after these blows."""
    for deed, at, size, more in blows:
        if whole:
            whole = _DEEDS[deed](whole, at % len(whole), size, more)
    return whole


def blows(most: int = 4) -> st.SearchStrategy[list[Blow]]:
    """Draw some blows, none at all among them."""
    places = st.integers(0, 40) | st.integers(0, 10**6)
    more = st.sampled_from(HUGE) | st.sampled_from(CORPUS) | st.binary(max_size=16)
    one = st.tuples(st.sampled_from(sorted(_DEEDS)), places, st.integers(1, 64), more)
    return st.lists(one, max_size=most)


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes into pieces of these sizes, again and again; in one where there are none."""
    found, at, turn = [], 0, 0
    while at < len(whole):
        step = cuts[turn % len(cuts)] if cuts else len(whole)
        found.append(whole[at : at + step])
        at, turn = at + step, turn + 1
    return found
