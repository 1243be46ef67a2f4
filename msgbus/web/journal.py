"""
What clients do and what is refused to them: counted, and logged as far as the operator
wants to see it.

Every refusal comes here, wherever it is decided: for a connection, a request, a message in
a stream, or a message from a WebSocket.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from twisted.logger import Logger

from ..message import Message
from .counters import WebCounters
from .peer import Peer
from .responses import reason_of, status_of
from .subscriber import Subscriber
from .verbosity import PUBLICATIONS, SUBSCRIPTIONS, Verbosity

__all__ = ["MAX_TEXT", "Attempt", "Journal", "Observer"]

# How many characters of a text that a client has chosen are logged.
MAX_TEXT = 200


# A value in a sentence, as `repr` writes it.  An apostrophe is behind a letter.
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


class Attempt(NamedTuple):
    """
    What a client wants to do.

    Attributes:
        peer: The client.
        user: The name that it has given; empty for none.
        way: The method of its request; `connection` or `tls`, if it wants to open a
            connection, or fails to; or `websocket` or `stream`, if it is about a message,
            or the rest, of one that is open.
        channel: The channel or folder; empty if there is none, or if it is not known yet.
        path: The path of its request, without the query, if `channel` is empty.
    """

    peer: Peer
    user: str = ""
    way: str = "connection"
    channel: str = ""
    path: str = ""


class Observer(Protocol):
    """
    Somebody else who wants to know what clients do.
    """

    def subscribed(self, subscriber: Subscriber) -> None:
        """
        Learn that somebody has subscribed.
        """

    def left(self, subscriber: Subscriber) -> None:
        """
        Learn that somebody's subscription has ended.
        """

    def refused(self, attempt: Attempt, error: Exception, sentence: str) -> None:
        """
        Learn what is refused, and by which error; see `Journal.refuses`.

        Args:
            sentence: Why, without what the client has sent.
        """


class Journal:
    """
    Counts and logs.

    Args:
        counters: What is refused is counted here.
        prefix: The path of the bus, percent-encoded, with a slash at both ends.

    Attributes:
        counters: As given.
        prefix: As given.
        observer: Is told all but publications; None for nobody.
        logs_publications: Whether the publications of anybody are logged.
    """

    _log = Logger()

    def __init__(
        self,
        counters: WebCounters | None = None,
        prefix: str = "/msgbus/",
        verbosity: Verbosity | None = None,
    ) -> None:
        self.counters = counters or WebCounters()
        self.prefix = prefix
        self.observer: Observer | None = None
        self.verbosity = verbosity or Verbosity()

    @property
    def verbosity(self) -> Verbosity:
        """
        How much is logged; may be replaced at any time.
        """
        return self._verbosity

    @verbosity.setter
    def verbosity(self, verbosity: Verbosity) -> None:
        self._verbosity = verbosity
        # Looked at for each message that is published.
        self.logs_publications = verbosity.most >= PUBLICATIONS

    def publishes(self, user: str, peer: Peer, message: Message, body: bytes) -> None:
        """
        Somebody publishes a message.

        Args:
            user: The name that they have given; empty for none.
            body: Of the message, which may have another one.
        """
        if self._verbosity.of(user, peer) >= PUBLICATIONS:
            self._log.info(
                "{peer} publishes {size} bytes of {type} to {channel!r} as {user!r}",
                event="published",
                peer=str(peer),
                size=len(body),
                type=message.content_type,
                channel=message.channel,
                user=message.sender,
            )

    def forgets(self, user: str, peer: Peer, channel: str) -> None:
        """
        Somebody has the messages of a channel forgotten.

        Args:
            user: The name that they have given; empty for none.
        """
        if self._verbosity.of(user, peer) >= PUBLICATIONS:
            self._log.info(
                "{peer} has {channel!r} forgotten as {user!r}",
                event="forgotten",
                peer=str(peer),
                channel=channel,
                user=user,
            )

    def subscribes(self, subscriber: Subscriber) -> None:
        """
        Somebody has subscribed.
        """
        sentence = "{peer} subscribes to {channel!r}"
        self._log_subscription("subscribed", sentence, subscriber)
        if self.observer is not None:
            self.observer.subscribed(subscriber)

    def leaves(self, subscriber: Subscriber) -> None:
        """
        Somebody's subscription has ended.
        """
        self._log_subscription("left", "{peer} leaves {channel!r}", subscriber)
        if self.observer is not None:
            self.observer.left(subscriber)

    def refuses(self, attempt: Attempt, error: Exception) -> None:
        """
        Something is refused.

        Args:
            error: A `Refusal`, or one of `REFUSALS`, whose text says why.
        """
        reason = reason_of(error)
        self.counters.refused[reason] += 1
        sentence = str(error)
        if reason == "invalid":
            # It quotes what is wrong, which may be of a query, a header or a body.
            sentence = _QUOTED.sub("'...'", sentence)
        if self.observer is not None:
            self.observer.refused(attempt, error, sentence)
        if self._verbosity.most < SUBSCRIPTIONS:
            return
        peer, user, way, channel, path = attempt
        if (level := self._verbosity.of(user, peer)) >= SUBSCRIPTIONS:
            where = "channel" if channel or not path else "path"
            # Who asks for all lines gets each of them.
            like = () if level >= PUBLICATIONS else (peer.network, user, reason)
            fold = {"log_fold": like} if like else {}
            # A connection has no name and no channel yet.
            whose = f" {{{where}!r}} as {{user!r}}" if channel or path else ""
            self._log.info(
                f"{{peer}} is refused {{way}}{whose}: {{status}} {{reason}}: {{sentence}}",
                event="refused",
                peer=str(peer),
                way=way[:MAX_TEXT],
                user=user[:MAX_TEXT],
                status=status_of(error),
                reason=reason,
                sentence=sentence,
                **{where: (channel or path)[:MAX_TEXT]},
                **fold,
            )

    def _log_subscription(self, event: str, sentence: str, subscriber: Subscriber) -> None:
        if self._verbosity.most < SUBSCRIPTIONS:
            return
        user, peer = subscriber.visitor.sender, subscriber.peer
        if self._verbosity.of(user, peer) >= SUBSCRIPTIONS:
            channel = subscriber.name
            self._log.info(
                sentence, event=event, peer=str(peer), channel=channel, user=user
            )
