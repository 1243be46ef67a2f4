"""
Messages, and bodies that are hard to frame, for the tests of more than one format.
"""

from base64 import b64decode

from hypothesis import strategies as st

from ..strategies import messages

ID = "1795669529807-5000000000001"

# Bodies that would be lines of their own, or break lines, if they were not escaped.
NASTY = (
    b"a\r\n\r\nid: 1-1\ndata: forged\n\n",
    b"\rid: 1-1\r\revent: gap",
    b"\n\n\n",
    "\ufeff \u2028\x85\x0b\x00: x".encode(),
    b'{"id": "1-1"}\n{"id": "1-2"}',
    b" leading",
    b"",
)


def numbered(count=3):
    """
    Any messages, with ids.
    """
    return st.lists(messages(), max_size=count).map(
        lambda drawn: [m.published(f"1795669529807-{n}") for n, m in enumerate(drawn)]
    )


def body_of(told):
    """
    The body in an envelope.
    """
    return told["body"].encode() if "body" in told else b64decode(told["base64"])
