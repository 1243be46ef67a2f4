"""
HTTP by Twisted: one request to a bus, and the beginning of its response, each in a limited
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from .endpoint import BusEndpoint
from .errors import Unreachable
from .failures import explained
from .responses import SENTENCE_BYTES
from .url import BusURL

__all__ = ["BusAgent", "headers_of"]

T = TypeVar("T")


class BusAgent:
    """
    Sends requests to one bus.  What fails, fails with a `BusError`.

    Args:
        timeout: Seconds that each response may take.
        pool: Keeps connections for further requests; without it, each request has a
            connection of its own.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: BusEndpoint,
        timeout: float,
        pool: HTTPConnectionPool | None = None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._timeout = timeout
        self._agent = Agent.usingEndpointFactory(reactor, endpoint, pool)

    def get(self, url: BusURL, headers: dict[str, str]) -> Deferred[IResponse]:
        """
        Ask for a stream; the Deferred fires when the head of the response has come.
        """
        return self._request(b"GET", url, headers, None)

    def post(
        self, url: BusURL, headers: dict[str, str], body: bytes
    ) -> Deferred[IResponse]:
        """
        Send a message; the Deferred fires when the head of the response has come.
        """
        return self._request(b"POST", url, headers, _RequestBody(body))

    def delete(self, url: BusURL, headers: dict[str, str]) -> Deferred[IResponse]:
        """
        Have a channel forgotten; the Deferred fires when the head of the response has come.
        """
        return self._request(b"DELETE", url, headers, None)

    def text(self, response: IResponse, limit: int = SENTENCE_BYTES) -> Deferred[bytes]:
        """
        The first bytes of the body of a response, or as much of it as comes.

        Args:
            limit: How many bytes.
        """
        reader = _TextReader(self.abort, limit)
        response.deliverBody(reader)
        return self._in_time(reader.text)

    def abort(self) -> None:
        """
        Close the connection at once.
        """
        self._endpoint.abort()

    def _request(
        self,
        method: bytes,
        url: BusURL,
        headers: dict[str, str],
        body: IBodyProducer | None,
    ) -> Deferred[IResponse]:
        # Not `str(url)`, which for a Unix socket has a scheme that `Agent` does not know.
        target = f"{url.scheme}://{url.authority}{url.target}"
        requested = self._agent.request(
            method,
            target.encode("ascii"),
            Headers({name: [value] for name, value in headers.items()}),
            body,
        )
        return self._in_time(requested)

    def _in_time(self, answer: Deferred[T]) -> Deferred[T]:
        """
        A Deferred that fires as this one does, or fails with `Unreachable` after the
        timeout.  Failures become errors of ours.

        When it is cancelled, it always fails with `CancelledError`, while the other may
        report what its cancellation did to a connection.
        """
        cancelled = False

        def late(_: object, seconds: float) -> T:
            raise Unreachable(f"There was no answer for {seconds:g} seconds.")

        def cancel(_: object) -> None:
            nonlocal cancelled
            cancelled = True
            answer.cancel()

        def fire(result: T | Failure) -> None:
            if not cancelled:
                outer.callback(result)

        def failed(failure: Failure) -> Failure:
            return Failure(explained(failure))

        outer: Deferred[T] = Deferred(cancel)
        answer.addTimeout(self._timeout, self._reactor, late)
        answer.addErrback(failed).addBoth(fire)
        return outer


def headers_of(response: IResponse) -> dict[str, str]:
    """
    The headers of a response, with names in lower case; values of the same name are joined
    by commas (RFC 9110, section 5.3).
    """
    return {
        name.decode("latin-1").lower(): ",".join(
            value.decode("utf-8", "replace") for value in values
        )
        for name, values in response.headers.getAllRawHeaders()
    }


@implementer(IBodyProducer)
class _RequestBody:
    """
    The body of a request, written at once.
    """

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class _TextReader(Protocol):
    """
    Reads the beginning of a body.

    Args:
        abort: Closes the connection.
        limit: How many bytes are read.

    Attributes:
        text: A Deferred of those bytes.  It fires when the body has ended or
            is longer.
    """

    def __init__(self, abort: Callable[[], None], limit: int) -> None:
        self._abort = abort
        self._limit = limit
        self._read = bytearray()
        self.text: Deferred[bytes] = Deferred(lambda _: abort())

    def dataReceived(self, data: bytes) -> None:
        self._read += data
        if len(self._read) > self._limit:
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.text.called:
            self.text.callback(bytes(self._read[: self._limit]))
