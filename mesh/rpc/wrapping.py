"""What this server's interceptors have in common: each method's handler is wrapped once, and kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc


class WrappingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """A subclass wraps; it may be told of methods that there are not."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of this method, wrapped; None if there is no such method."""
        method = handler_call_details.method
        try:
            return self._wrapped[method]
        except KeyError:
            handler = await continuation(handler_call_details)
            if handler is None:
                self._no_such_method()  # not kept: a caller may invent as many names as it likes
                return None
            return self._wrapped.setdefault(method, self._wrap(method, handler))

    def _wrap(self, method: str, handler: Any) -> Any:
        raise NotImplementedError

    def _no_such_method(self) -> None:
        """Somebody asks for what is not served."""
