"""Who is let in, and how much a request may send: decided before a request is read."""

import asyncio
import hmac
import time
from collections import deque
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixelwise.serve.answers import answer_to
from pixelwise.serve.refusals import Refusal, busy, too_large
from pixelwise.serve.service import Service

OPEN = ("/", "/static/", "/v2/health/", "/docs", "/openapi.json")
"""Addresses without a token: the page, which asks for it; whether the server is there; and what it can do."""
COMPUTED = ("/segment", "/v2/models/")
"""Addresses whose requests wait for a network."""
DRAINED, DRAIN_SECONDS = 256 << 20, 10.0
"""Of a request that is refused, so much is read and thrown away: else its client never hears why."""
MISSES = 20
"""Wrong tokens of one client in a minute, after which it waits."""


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self._asked, self._missed = _PerMinute(), _PerMinute()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        body = _Body(self.service, scope, receive)
        answer = _Answer(scope, body, send)
        self.service.metrics.open_requests.inc()
        try:
            self._check(scope)
            body.check_length()
            await self.app(scope, body.receive, answer.send)
        except Refusal as problem:
            if not answer.started:
                await answer_to(problem, scope, self.service.names)(scope, receive, answer.send)
        finally:
            self.service.metrics.open_requests.dec()
            self.service.metrics.answered(scope, answer.status, time.monotonic() - started)

    def _check(self, scope: Scope) -> None:
        headers, options, path = Headers(scope=scope), self.service.options, scope["path"]
        client = (scope.get("client") or ("", 0))[0]
        host = urlsplit(f"//{headers.get('host', '')}").hostname
        if options.hosts is not None and host not in options.hosts:
            fix = "Use one of its own, or start it with --allowed-host."
            raise Refusal(403, "wrong_host", "The server is not addressed by this name.", fix)
        origin = headers.get("origin")
        if origin not in (None, "null") and scope["method"] != "GET" and urlsplit(origin).hostname != host:
            # A page of another site, in the browser of somebody who may reach this server.
            raise Refusal(
                403, "wrong_origin", "The request comes from a page of another site.", "Use the server's own."
            )
        rate = options.limits.rate
        if rate is not None and (wait := self._asked.wait(client, rate)):
            fix = f"Try again in {wait} s."
            raise Refusal(429, "too_many", f"More than {rate} requests came in a minute.", fix, again=wait)
        if options.token is not None and not is_open(path):
            self._check_token(headers, options.token, client)
        if path.startswith(COMPUTED) and scope["method"] == "POST" and self.service.workers.full:
            raise busy(self.service.workers.seconds_left)

    def _check_token(self, headers: Headers, token: str, client: str) -> None:
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode()):
            return
        if wait := self._missed.wait(client, MISSES):
            fix = f"Try again in {wait} s."
            raise Refusal(429, "too_many", "Too many wrong tokens came.", fix, again=wait)
        fix = "Send it as 'Authorization: Bearer TOKEN'."
        raise Refusal(401, "no_token", "The server's token is missing or wrong.", fix)


def is_open(path: str) -> bool:
    """Return whether an address needs no token."""
    return any(path == each or (len(each) > 1 and each.endswith("/") and path.startswith(each)) for each in OPEN)


class _Body:
    """A request's body: counted, and refused where it is too long or too slow."""

    def __init__(self, service: Service, scope: Scope, receive: Receive) -> None:
        limits, self._receive = service.options.limits, receive
        scene = scope["path"] == "/jobs"
        self.most, self.idle = limits.scene if scene else limits.body, limits.idle
        # A large scene over a slow line takes its time, as long as something comes.
        self.end = None if scene else time.monotonic() + limits.seconds
        self.length = Headers(scope=scope).get("content-length")
        self.read, self.complete = 0, False

    def check_length(self) -> None:
        if self.length is not None and self.length.isdecimal() and int(self.length) > self.most:
            raise self._too_large(int(self.length))

    async def receive(self) -> Message:
        if self.complete:
            # All that can come is that the client leaves.
            return await self._receive()
        left = self.idle if self.end is None else min(self.idle, self.end - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except TimeoutError:
            raise Refusal(408, "too_slow", "The rest of the request did not come.", "Send it again.") from None
        self._count(message)
        if self.read > self.most:
            raise self._too_large(self.read)
        return message

    async def drain(self) -> None:
        """Read what else the client sends, up to a limit; not of a body that is announced beyond it."""
        if self.length is not None and self.length.isdecimal() and int(self.length) > DRAINED:
            return
        end = time.monotonic() + min(DRAIN_SECONDS, self.idle)
        while not self.complete and self.read < DRAINED and (left := end - time.monotonic()) > 0:
            try:
                self._count(await asyncio.wait_for(self._receive(), left))
            except TimeoutError:
                return

    def _count(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.complete = True
            return
        self.read += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)

    def _too_large(self, size: int) -> Refusal:
        megabytes = f"{self.most >> 20:,} MB" if self.most >> 20 else f"{self.most:,} bytes"
        return too_large(f"The request has {size:,} bytes or more", megabytes, "Send a smaller image, or a job.")


class _Answer:
    """What is sent: its status, headers that all have, and a client that does not take it."""

    def __init__(self, scope: Scope, body: _Body, send: Send) -> None:
        self._body, self._send = body, send
        self._static = scope["path"].startswith("/static/")
        self.started, self.status = False, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            if self.status >= 400 and self.status != 408:
                await self._body.drain()
            headers = MutableHeaders(raw=message["headers"])
            # The page's own files are asked for again, and sent only if they changed.
            headers.setdefault("Cache-Control", "no-cache" if self._static else "no-store")
            headers.setdefault("X-Content-Type-Options", "nosniff")
        await asyncio.wait_for(self._send(message), self._body.idle)


class _PerMinute:
    """How often each client came within the last minute."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def wait(self, client: str, most: int) -> int:
        """Count a client that comes; return 0, or the seconds that it has to wait."""
        now = time.monotonic()
        if len(self._times) > 10_000:
            self._times = {name: times for name, times in self._times.items() if times and now - times[-1] < 60}
        times = self._times.setdefault(client, deque())
        while times and now - times[0] >= 60:
            times.popleft()
        if len(times) >= most:
            return max(1, round(60 - (now - times[0])))
        times.append(now)
        return 0
