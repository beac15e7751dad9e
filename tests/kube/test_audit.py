"""Marks in an audit log that somebody is writing."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kube.audit import AuditLog


def line(name: str) -> bytes:
    subject = {"resource": "experts", "namespace": "moe", "name": name}
    event = {"user": {"username": "u"}, "verb": "patch", "objectRef": subject}
    return json.dumps(event).encode() + b"\n"


def test_a_mark_is_at_the_end_of_a_line_however_much_of_the_next_is_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    assert (log.position(), list(log.since())) == (0, [])
    whole, half = line("e0"), line("e1")
    for cut in (0, 1, len(half) - 1):
        path.write_bytes(whole + half[:cut])
        mark = log.position()
        assert mark == len(whole)
        assert [request.name for request in log.since()] == ["e0"]
        path.write_bytes(whole + half)
        assert [request.name for request in log.since(mark)] == ["e1"]
    path.write_bytes(b"{")
    assert log.position() == 0
