"""Somebody who reads: sessions that come and go while something else is done to the mixture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

import moe_client
from e2e.stage.tiny import Models, Tiny
from examples.tiny import model as example


class Readers:
    """Sessions that come and go; whatever fails is kept."""

    def __init__(self) -> None:
        self.sessions = 0
        self.failures: list[Exception] = []


@contextmanager
def reading(tiny: Tiny, models: Models) -> Iterator[Readers]:
    """Read text in new sessions, one after another, as long as this lasts.

    The remote model of `models` is attached all the while.
    """
    readers, over = Readers(), threading.Event()
    prompt = torch.tensor([list(example.heldout("scripture")[:32])])

    def read() -> None:
        with moe_client.attach(models.remote, tiny.addresses(), mixture="tiny") as attachment:
            while not over.is_set():
                try:
                    moe_client.generate(models.remote, attachment, prompt, max_new_tokens=4)
                    readers.sessions += 1
                except Exception as error:
                    readers.failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield readers
    finally:
        over.set()
        thread.join()
