"""What one connection may take of a server: how many there are, how long and large a request is.

uvicorn limits the time between requests alone; its protocol is stretched here by the rest.
"""

import asyncio
import os
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nanochat_jax.config.serve import ChatWeb
from nanochat_jax.serve.server.errors import ApiError

CONNECTIONS = 512  # a process may have 1024 files open, as most systems are set up
HEAD_S, BODY_S = 10.0, 30.0  # from the first byte of a request, and from the end of its head
WRITE_S = 60.0  # until a client takes some of what waits for it
HEAD_BYTES = 2**16
PHRASES = {408: b"Request Timeout", 431: b"Request Header Fields Too Large",
           503: b"Service Unavailable"}  # fmt: skip


def settings(app: FastAPI, cfg: ChatWeb, **more: Any) -> uvicorn.Config:
    """uvicorn's settings for every server of ours.

    An address that a proxy tells is believed only of those that `cfg` or uvicorn's own variable
    names: else everybody chooses the address that is counted.
    """
    proxies = cfg.forwarded_allow_ips or os.environ.get("FORWARDED_ALLOW_IPS", "")
    return uvicorn.Config(
        app, log_level="warning", access_log=False, http=Limited, ws="none",
        proxy_headers=bool(proxies), forwarded_allow_ips=proxies, **more,
    )  # fmt: skip


class Limited(HttpToolsProtocol):
    """One connection of a client that may be slow, endless or deaf."""

    _timer: asyncio.TimerHandle | None = None  # runs while a request is on its way
    _deaf: asyncio.TimerHandle | None = None  # runs while the client takes nothing
    _head = 0  # bytes of the head so far; -1: no head is being read

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            return self._refuse(ApiError(503, "too many connections; try again soon"))
        self._expect(HEAD_S)

    def data_received(self, data: bytes) -> None:
        # Any byte: blank lines before a request stop uvicorn's own clock between requests.
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect(HEAD_S)
        if self._head >= 0:
            self._head += len(data)
        super().data_received(data)
        if self._head > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(ApiError(431, f"the headers are larger than {HEAD_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = -1
        self._expect(BODY_S)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head = 0
        self._expect(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect(None)
        self.resume_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._deaf = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._deaf is not None:
            self._deaf.cancel()

    def _expect(self, seconds: float | None) -> None:
        """From now on the next step of a request has so many seconds; None: there is none."""
        if self._timer is not None:
            self._timer.cancel()
        wait = self.loop.call_later
        self._timer = None if seconds is None else wait(seconds, self._too_slow, seconds)

    def _too_slow(self, seconds: float) -> None:
        self._timer = None
        if self.flow.read_paused:  # it is we who do not read: an earlier request is answered first
            return self._expect(seconds)
        message = f"the request took longer than {seconds:g} seconds to arrive"
        self._refuse(ApiError(408, message, code="timeout") if self._head else None)

    def _refuse(self, error: ApiError | None) -> None:
        """Ends the connection, with `error` where no answer has begun."""
        if error is not None and (self.cycle is None or self.cycle.response_complete
                                  or not self.cycle.response_started):  # fmt: skip
            body = error.body.model_dump_json(exclude_unset=True).encode()
            status = b"%d %s" % (error.status_code, PHRASES[error.status_code])
            head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            head = b"HTTP/1.1 %s\r\n%sconnection: close\r\n\r\n" % (status, head)
            self.transport.write(head + body)
        self.transport.close()
