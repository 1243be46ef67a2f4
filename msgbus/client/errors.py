"""
The errors of both clients.

Each error says by its class whether another try may succeed, and by its text, one sentence
that is safe to print, what went wrong.
"""

from __future__ import annotations

__all__ = [
    "NOTHING_LISTENS",
    "BusError",
    "Closed",
    "Refused",
    "Unreachable",
    "Untrusted",
    "printable",
    "silent",
]

_MAX_CHARACTERS = 300

NOTHING_LISTENS = "Connection refused; does a bus run there?"


class BusError(Exception):
    """
    The bus, or the way to it, failed a request.  The text is one sentence that may be
    shown to a user: what it quotes from the server has no control characters.
    """


class Refused(BusError):
    """
    The server said no, and the same request would be refused again.

    Attributes:
        status: The status code of its response.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Untrusted(BusError):
    """
    TLS failed: the server, or this client, did not prove its identity.
    """


class Unreachable(BusError):
    """
    There was no response, or one that may be different at the next try.

    Attributes:
        seconds: How long the server has asked to wait before that; 0 if it has not.
    """

    def __init__(self, sentence: str, seconds: float = 0) -> None:
        super().__init__(sentence)
        self.seconds = seconds


class Closed(Exception):
    """
    The client, or the stream, was closed.
    """


def printable(text: str) -> str:
    """
    Text from the server, fit for an error: at most 300 characters on one line, with a
    replacement character for each one that is not printable.
    """
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean[:_MAX_CHARACTERS].strip()


def silent(seconds: float) -> str:
    """
    The sentence for a server that sent nothing for so long.
    """
    return f"The server was silent for {seconds:g} seconds."
