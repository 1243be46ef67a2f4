"""
Tests for `msgbus.formats.eventstream`.
"""

import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.eventstream import RETRY, EventStreamFraming
from msgbus.message import Message

from .samples import ID, NASTY, body_of, numbered

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
        No body can forge an event, an id or a line.
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
        A body is sent as it is if its type says that it is text or JSON in UTF-8.
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
        A stream begins with when to reconnect, which is not the same for all, and with the
        id behind which it begins.
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
        A gap is an event without an id, and so is what tells where history ends; a
        heartbeat is no event.
        """
        framing = EventStreamFraming()
        for count, told in ((12, '{"gap": 12}'), (None, '{"gap": "unknown"}')):
            stream = framing.opening(ID) + framing.heartbeat + framing.gap(count)
            self.assertEqual(events_of(stream)[0][1:], [("gap", told, ID)])
        for last in False, True:
            stream = framing.opening(ID) + framing.live(last)
            self.assertEqual(events_of(stream)[0][1:], [("live", '{"live": true}', ID)])
