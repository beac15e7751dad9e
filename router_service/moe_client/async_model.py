"""A transformers model with remote experts, for programs that have an event loop.

transformers itself blocks, so each call of the model runs in a thread; the transport and all else
is the attachment's. Sessions named with `attachment.sessions` hold in the thread too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from moe_client.attachment import Attachment


class AsyncModel:
    """An attached model whose calls are awaited. An async context manager: leaving it detaches."""

    def __init__(self, model: Any, attach: Callable[[], Attachment]) -> None:
        self._model = model
        self._attach = attach
        self._attachment: Attachment | None = None

    @property
    def attachment(self) -> Attachment:
        """The attachment, from entering on. Raises RuntimeError before."""
        if self._attachment is None:
            raise RuntimeError("the model is attached by `async with`")
        return self._attachment

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's forward. Raises MoeError."""
        return await asyncio.to_thread(self._model, *args, **kwargs)

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's generate. Raises MoeError."""
        return await asyncio.to_thread(self._model.generate, *args, **kwargs)

    async def __aenter__(self) -> Self:
        self._attachment = await asyncio.to_thread(self._attach)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.attachment.detach)
