"""How a server leaves: first it says so, then running replies end, then it is gone."""

import asyncio
import signal
import time
from types import FrameType

import uvicorn

from nanochat_jax.serve.server.service import Service


class DrainingServer(uvicorn.Server):
    """A server that nobody behind a balancer sees leave.

    After SIGTERM `/health` answers 503 for `--notice` seconds, in which requests are taken as ever;
    then the socket closes, and replies have `--drain` seconds to end. Ctrl-C waits for no balancer,
    and a second signal for no reply.
    """

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service, self._hurried = service, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._hurried = self.should_exit or sig == signal.SIGINT
        if self.should_exit:
            self._service.scheduler.hurry()
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Serves until a signal, and then until who sends requests may know of it."""
        await super().main_loop()
        # While the model loads no balancer sends any.
        notice = self._service.cfg.notice if self._service.ready else 0
        self._service.leaving = True
        deadline = time.monotonic() + notice
        while time.monotonic() < deadline and not self._hurried:
            await asyncio.sleep(0.1)

    async def shutdown(self, sockets=None) -> None:
        """Ends the engine beside the server: replies that take too long get an honest end."""
        closing = asyncio.to_thread(self._service.scheduler.close, self._service.cfg.drain)
        await asyncio.gather(super().shutdown(sockets), closing)
