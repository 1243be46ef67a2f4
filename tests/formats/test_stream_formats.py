"""
Tests for the forms in which a stream comes: `formats`, `eventstream`, `ndjson`, `frames`
and `envelope`.
"""

import contextlib
import json
import re
from base64 import b64decode

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wsproto import events
from wsproto.connection import Connection, ConnectionType

from msgbus.formats.envelope import NotPosted, Posted, envelope, posted, published_at
from msgbus.formats.eventstream import RETRY, EventStreamFraming
from msgbus.formats.framing import ChunkedFraming
from msgbus.formats.ndjson import NdjsonFraming
from msgbus.formats.stream_formats import STREAM_FORMATS, FramingOptions
from msgbus.formats.websocket_frames import WebSocketFraming, close
from msgbus.message import Invalid, Message

from ..memory import unchunked
from ..strategies import messages

ID = "1795669529807-5000000000001"


def numbered(count=3):
    """
    Any messages, with ids.
    """
    return st.lists(messages(), max_size=count).map(
        lambda drawn: [m.published(f"1795669529807-{n}") for n, m in enumerate(drawn)]
    )


# What would be lines of their own, or half of one.
NASTY = (
    b"a\r\n\r\nid: 1-1\ndata: forged\n\n",
    b"\rid: 1-1\r\revent: gap",
    b"\n\n\n",
    "\ufeff \u2028\x85\x0b\x00: x".encode(),
    b'{"id": "1-1"}\n{"id": "1-2"}',
    b" leading",
    b"",
)
TYPES = ("text/plain", "text/html;charset=UTF-8", "application/json", "image/svg+xml")


def events_of(stream):
    """
    The events of a stream as the HTML standard (section 9.2.6) has them read: type, data
    and last id.
    """
    found, kind, data, id = [], "", [], ""
    for line in re.split(r"\r\n|\r|\n", stream.decode("utf-8"))[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                found.append((kind or "message", "\n".join(data), id))
            kind, data = "", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            id = value
    return found, id


def body_of(told):
    """
    The body in an envelope.
    """
    return told["body"].encode() if "body" in told else b64decode(told["base64"])


class FormatTests(SynchronousTestCase):
    """
    What holds for each.
    """

    def test_chunks(self):
        """
        A message, a gap and a heartbeat are a chunk each.
        """
        message = Message("foo", b"x" * 5000, "a/b").published(ID)
        for form in STREAM_FORMATS.values():
            framing = form.framing(FramingOptions("B", "/msgbus/", envelope=False))
            said = [framing.frame(message), framing.gap(3), framing.heartbeat]
            chunked = ChunkedFraming(framing)
            sent = chunked.frame(message) + chunked.gap(3) + chunked.heartbeat
            self.assertEqual(unchunked(sent), said)

    def test_shared(self):
        """
        Equal ones are one group.
        """
        for form in STREAM_FORMATS.values():
            made = {
                form.framing(FramingOptions("B", "/", envelope))
                for envelope in (True, True)
            }
            self.assertEqual(len(made), 1)


class EnvelopeTests(SynchronousTestCase):
    """
    A message as an object, and one that is to be published.
    """

    @given(numbered(1))
    def test_told(self, drawn):
        """
        It has all that the message has, on one line of ASCII without control characters.
        """
        for message in drawn:
            data = envelope(message)
            self.assertRegex(data, rb"\A[\x20-\x7e]+\Z")
            told = json.loads(data)
            self.assertEqual(
                (told["channel"], told["sender"], told["type"], told["size"]),
                (message.channel, message.sender, message.content_type, len(message.body)),
            )
            self.assertEqual(body_of(told), message.body)
            self.assertEqual(told["time"], "2026-11-26T05:05:29.807+00:00")

    def test_time(self):
        """
        An id tells the time, or none.
        """
        for id in ("", "1-", "9" * 16 + "-1", "99999999999999999-1"):
            self.assertIsNone(published_at(id))
            self.assertIsNone(json.loads(envelope(Message("a", b"").published(id)))["time"])

    @given(messages())
    def test_posted(self, message):
        """
        What can be published can be told.
        """
        told = json.loads(envelope(message))
        wish = {name: told[name] for name in ("type", "body", "base64") if name in told}
        self.assertEqual(
            posted(json.dumps(wish).encode()), Posted(message.content_type, message.body)
        )

    def test_wishes(self):
        """
        All that it may have.
        """
        wish = {"type": "a/b", "channel": "c", "keep": False, "require": True, "key": "k"}
        for wrong in ({"body": 1}, {"body": "", "x": 1}, {"base64": "x"}, {}):
            with self.assertRaises(NotPosted) as caught:
                posted(json.dumps({**wish, "ack": 7, **wrong}).encode())
            self.assertEqual(caught.exception.ack, 7)
        self.assertEqual(
            posted(json.dumps({**wish, "ack": 7, "base64": "AA=="}).encode()),
            Posted("a/b", b"\0", "c", keep=False, require=True, key="k", ack=7),
        )

    def test_mistakes(self):
        """
        What is no such object is refused with one sentence.
        """
        for text in (
            b"",
            b"hello",
            b"[]",
            b"[" * 100_000,
            b'{"type": "a/b", "body": "\\ud800"}',
            b'{"type": "a/b", "ack": "\\udc00"}',
            b'{"type": "a/b", "ack": true}',
            b'{"type": "a/b", "ack": 1.5}',
            b'{"type": "a/b", "ack": "%s"}' % (b"x" * 101),
            b'{"type": "a/b", "ack": %s}' % (b"9" * 5000),
            b'{"type": 1}',
            b'{"body": "x"}',
            b'{"type": "a/b"}',
            b'{"type": "a/b", "body": "", "base64": ""}',
            b'{"type": "a/b", "base64": "x"}',
            b'{"type": "a/b", "base64": "\xc3\xa4"}',
            b'{"type": "a/b", "body": null}',
            b'{"type": "a/b", "keep": "no"}',
            b'{"type": "a/b", "sender": "x"}',
            b'{"type": "a/b", "\\ud800": 1}',
            b"\xff\xfe{\0",
        ):
            with self.assertRaises(Invalid, msg=text[:100]) as caught:
                posted(text)
            self.assertRegex(str(caught.exception), r"\A.+\.\Z", text[:100])
            str(caught.exception).encode("utf-8")

    @given(st.binary(max_size=50))
    def test_total(self, text):
        """
        Anything else too.
        """
        with contextlib.suppress(Invalid):
            posted(text)


class EventStreamFramingTests(SynchronousTestCase):
    """
    Server-sent events.
    """

    @given(numbered(), st.booleans())
    def test_messages(self, drawn, enveloped):
        """
        Each is an event with its id, and its data is the text, or the envelope.
        """
        self.check(drawn, enveloped)

    def test_nasty(self):
        """
        No body forges an event, an id or a line.
        """
        for enveloped in (False, True):
            for kind in (*TYPES, "text/plain;charset=utf-16", "a/b"):
                self.check(
                    [
                        Message("foo", body, kind, "x").published(f"1795669529807-{n}")
                        for n, body in enumerate(NASTY)
                    ],
                    enveloped,
                )

    def check(self, drawn, enveloped):
        framing = EventStreamFraming(enveloped)
        found, last = events_of(b"".join(map(framing.frame, drawn)))
        self.assertEqual(len(found), len(drawn))
        for (kind, data, id), message in zip(found, drawn, strict=True):
            self.assertEqual((kind, id), ("message", message.id))
            media = message.content_type.lower()
            if enveloped or (
                not media.startswith(("text/", "application/json"))
                and ("+json" not in media)
            ):
                told = json.loads(data)
                self.assertEqual(told["id"], message.id)
                self.assertEqual(body_of(told), message.body)
                continue
            try:
                text = message.body.decode()
            except UnicodeDecodeError:
                text = None
            if text is None or "utf-16" in media:
                self.assertEqual(body_of(json.loads(data)), message.body)
            else:
                self.assertEqual(data, re.sub("\r\n|\r", "\n", text))
        self.assertEqual(last, drawn[-1].id if drawn else "")

    def test_charsets(self):
        """
        Text is what says that it is, in UTF-8.
        """
        for kind, plain in (
            ("text/plain", True),
            ("TEXT/html; Charset=UTF-8", True),
            ('text/plain; charset="us-ascii"', True),
            ("application/json", True),
            ("application/ld+json; profile=x", True),
            ("application/jsonp", False),
            ("text/plain; charset=latin-1", False),
            ("text/plain;;;charset*=x''y", False),
            ("application/x+jsonx", False),
            ("image/png;x=text/plain", False),
        ):
            frame = EventStreamFraming().frame(Message("foo", b"x", kind).published(ID))
            self.assertEqual(b"data: x\n" in frame, plain, kind)

    def test_opening(self):
        """
        It tells when to come back, not all at once, and behind which id.
        """
        seen = set()
        for _ in range(50):
            match = re.match(rb"retry: (\d+)\n", EventStreamFraming().opening(ID))
            self.assertIn(int(match[1]), RETRY)
            seen.add(match[1])
        self.assertGreater(len(seen), 5)
        opened = [("begin", json.dumps({"since": ID}), ID)]
        self.assertEqual(events_of(EventStreamFraming().opening(ID)), (opened, ID))
        self.assertEqual(events_of(EventStreamFraming().opening(None)), ([], ""))

    def test_between(self):
        """
        A gap is an event without an id; a heartbeat is none.
        """
        framing = EventStreamFraming()
        for count, told in ((12, '{"gap": 12}'), (None, '{"gap": "unknown"}')):
            stream = framing.opening(ID) + framing.heartbeat + framing.gap(count)
            self.assertEqual(events_of(stream)[0][1:], [("gap", told, ID)])


class NdjsonFramingTests(SynchronousTestCase):
    """
    Lines of JSON.
    """

    @given(numbered())
    @example([Message("foo", b, "a/b").published(ID) for b in NASTY])
    def test_messages(self, drawn):
        """
        Each is a line, and so is a gap; a heartbeat is an empty one.
        """
        framing = NdjsonFraming()
        stream = b"".join(framing.frame(m) + framing.heartbeat for m in drawn)
        lines = [line for line in stream.splitlines() if line]
        self.assertEqual(
            [body_of(json.loads(line)) for line in lines], [m.body for m in drawn]
        )
        self.assertEqual(framing.gap(3), b'{"gap": 3}\n')
        self.assertEqual(framing.gap(None), b'{"gap": "unknown"}\n')


class WebSocketFramingTests(SynchronousTestCase):
    """
    WebSocket frames.
    """

    def read(self, data):
        client = Connection(ConnectionType.CLIENT)
        client.receive_data(data)
        return list(client.events())

    @given(numbered(), st.booleans())
    def test_messages(self, drawn, raw):
        """
        Each is a frame: the envelope, or the body.
        """
        framing = WebSocketFraming(raw)
        for message, event in zip(
            drawn, self.read(b"".join(map(framing.frame, drawn))), strict=True
        ):
            self.assertTrue(event.message_finished)
            if not raw:
                self.assertEqual(body_of(json.loads(event.data)), message.body)
            elif isinstance(event, events.TextMessage):
                self.assertEqual(event.data.encode(), message.body)
                self.assertIn("text/", message.content_type.lower())
            else:
                self.assertEqual(bytes(event.data), message.body)

    def test_sizes(self):
        """
        Of any size.
        """
        for size in (0, 125, 126, 65535, 65536, 100_000):
            message = Message("foo", b"\xff" * size, "a/b").published(ID)
            (event,) = self.read(WebSocketFraming(raw=True).frame(message))
            self.assertEqual(bytes(event.data), message.body)

    def test_between(self):
        """
        A gap is an object, which cannot be taken for a body; a heartbeat is a ping.
        """
        (told,) = self.read(WebSocketFraming().gap(3))
        self.assertEqual(json.loads(told.data), {"gap": 3})
        (ping,) = self.read(WebSocketFraming(raw=True).gap(None))
        self.assertEqual(ping, events.Ping(payload=b'{"gap": "unknown"}'))
        self.assertEqual(
            self.read(WebSocketFraming().heartbeat), [events.Ping(payload=b"")]
        )

    @given(st.text(max_size=200))
    def test_close(self, reason):
        """
        As much of a reason goes with a code as fits.
        """
        (closed,) = self.read(close(1008, reason))
        self.assertEqual(closed.code, 1008)
        self.assertTrue(reason.startswith(closed.reason or ""))
        self.assertGreaterEqual(len((closed.reason or "").encode()), min(len(reason), 120))
