"""
Tests for `msgbus.client.stream`.
"""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.errors import BusError, Refused, Unreachable
from msgbus.client.notices import Live
from msgbus.client.stream import Stream
from msgbus.formats.multipart import Malformed
from msgbus.formats.multipart_framing import MultipartFraming
from msgbus.ids import Gap
from msgbus.message import Message

from ..strategies import messages, names, splits

HEAD = {
    "content-type": "multipart/x-mixed-replace;boundary=B",
    "msgbus-prefix": "/msgbus/",
    "msgbus-id": "1-0",
}
ORIGINAL_HEAD = {"content-type": "multipart/x-mixed-replace;boundary=00MsgBus00"}
FRAMING = MultipartFraming("B")
PREAMBLE = FRAMING.preamble

# Pieces from which the tests make streams, mostly malformed ones.
pieces = st.binary(max_size=9) | st.sampled_from(
    [
        b"--B\r\n",
        b"\n--B\n",
        b"--B--",
        b"\r\n",
        b"\n\n",
        b" x\n",
        b"Content-Type: a/b\r\n",
        b"Content-Length: 1\r\n",
        b"Content-Length: 0\n\n",
        b"Content-Length: 9999999999999999999\n\n",
        b"Content-Location: /msgbus/foo\n",
        b"Content-Location: /msgbus/%ff\n",
        b"Content-Location: /msgbus/../x\n",
        b"From: \xff\n",
        b"Msgbus-Id: 1-2\n",
        b"Msgbus-Gap: 2\r\n",
        b"Msgbus-Gap: unknown, \xb2,,-1\n",
        b"Msgbus-Heartbeat: 1\n",
        b"Msgbus-Live: 1\r\n",
    ]
)


def open_stream(name="", head=HEAD, max_message=100):
    """
    A stream that has just begun.
    """
    return Stream(name, 200, head, max_message)


def read(stream, data, cuts=()):
    """
    The messages and gaps that a stream makes of these bytes, which it gets in pieces, cut
    at these places.
    """
    edges = [0, *sorted(cuts), len(data)]
    return [item for a, b in pairwise(edges) for item in stream.feed(data[a:b])]


def with_ids(items):
    """
    The same items in pairs with their ids, because messages that differ in nothing but the
    id are equal.
    """
    return [(item, getattr(item, "id", None)) for item in items]


class StreamTests(SynchronousTestCase):
    """
    The response to a subscription, as messages and gaps.
    """

    def test_messages(self):
        """
        Messages come whole, with their channel, sender and id.
        """
        sent = [
            Message("foo", b"\xff\xd8", "image/jpeg", "alice").published("1-1"),
            Message("a b/ä", b"", "text/plain").published("1-2"),
        ]
        stream = open_stream()
        data = PREAMBLE + b"".join(map(FRAMING.frame, sent))
        self.assertEqual(with_ids(read(stream, data)), with_ids(sent))
        self.assertEqual(stream.end(), "The server ended the stream.")

    def test_told_when_to_come_back(self):
        """
        A stream may end with the time after which its client is to come back.
        """
        for told, seconds in (
            (FRAMING.retry(7.26), 7.3),
            (b"Msgbus-Retry: 7\r\n", 7),
            (b"Msgbus-Retry: -1\r\nMsgbus-Gap: 2\r\n", 0),
            (b"Msgbus-Retry: 1e99\r\n", 0),
            (b"", 0),
        ):
            stream = open_stream()
            read(stream, PREAMBLE + told)
            self.assertEqual(stream.end(), "The server ended the stream.")
            self.assertEqual(stream.retry_seconds, seconds, told)

    @given(
        st.data(),
        st.lists(
            st.builds(Message.published, messages(), st.sampled_from(["", "1-2", "3-4"]))
            | st.builds(Gap, st.none() | st.integers(0, 10**19 - 1))
            | st.just(None)
        ),
    )
    def test_split_anywhere(self, data, sent):
        """
        Messages and gaps come once each, in order, with heartbeats among them, wherever
        the stream is cut.
        """
        told = PREAMBLE
        for item in sent:
            if item is None:
                told += FRAMING.heartbeat
            elif isinstance(item, Gap):
                told += FRAMING.gap(item.count)
            elif isinstance(item, Live):
                told += FRAMING.live()
            else:
                told += FRAMING.frame(item)
        stream = open_stream()
        came = read(stream, told, data.draw(splits(told)))
        items = [item for item in sent if item is not None]
        self.assertEqual(with_ids(came), with_ids(items))
        ids = [item.id for item in items if isinstance(item, Message) and item.id]
        self.assertEqual(stream.last_id, ["1-0", *ids][-1])
        self.assertEqual(stream.end(), "The server ended the stream.")

    @given(st.data(), messages() | st.none(), st.lists(st.integers(1, 9), max_size=2))
    def test_ends_where_history_does(self, data, message, gaps):
        """
        A stream that ends where history does tells so once, wherever it is cut, and has no
        message there.
        """
        items = [Gap(count) for count in gaps]
        told = PREAMBLE + b"".join(FRAMING.gap(count) for count in gaps)
        if message is not None:
            told, items = PREAMBLE + FRAMING.frame(message), [message]
        told += FRAMING.live(last=True)
        stream = open_stream()
        came = read(stream, told, data.draw(splits(told)))
        self.assertEqual(with_ids(came), with_ids([*items, Live()]))
        self.assertEqual(stream.end(), "The server ended the stream.")

    def test_live_ahead(self):
        """
        Where history ends is told as soon as its header line has come, and once.
        """
        message = Message("foo", b"x", "a/b")
        stream = open_stream()
        told = FRAMING.live()
        self.assertEqual(read(stream, PREAMBLE + told[:-1]), [])
        self.assertEqual(read(stream, told[-1:]), [Live()])
        self.assertEqual(read(stream, FRAMING.frame(message)), [message])
        self.assertEqual(read(stream, told + FRAMING.frame(message)), [Live(), message])

    def test_gap_ahead(self):
        """
        A gap is told as soon as its header line has come, however late the rest of the part
        is, and it is not told again with the part.
        """
        message = Message("foo", b"x", "a/b")
        stream = open_stream()
        self.assertEqual(read(stream, PREAMBLE + b"Msgbus-Gap: 2"), [])
        self.assertEqual(read(stream, b"\r\n"), [Gap(2)])
        self.assertEqual(read(stream, b""), [])
        self.assertEqual(read(stream, FRAMING.gap(1)), [Gap(1)])
        part = FRAMING.frame(message)
        self.assertEqual(read(stream, part[:20]), [])
        self.assertEqual(read(stream, part[20:]), [message])
        # A second gap with the same count is told too.
        self.assertEqual(read(stream, FRAMING.gap(1)), [Gap(1)])

    def test_gaps(self):
        """
        A gap has a number, or none if that is unknown.  Each of several gaps in the head of
        one part is told before the message.
        """
        message = Message("foo", b"x", "a/b")
        for value, gaps in (
            (b"2", [Gap(2)]),
            (b"0", [Gap(0)]),
            (b"unknown", [Gap(None)]),
            (b"2, unknown", [Gap(2), Gap(None)]),
            (b"2,3\r\nMsgbus-Gap: 4", [Gap(2), Gap(3), Gap(4)]),
            (b"", []),
            (b" , ,", []),
            (b"-1", [Gap(None)]),
            (b"1e3", [Gap(None)]),
            ("²".encode(), [Gap(None)]),
            (b"9" * 19, [Gap(10**19 - 1)]),
            (b"9" * 20, [Gap(None)]),
            (b"9" * 5000, [Gap(None)]),
        ):
            line = b"Msgbus-Gap: %s\r\n" % value
            data = PREAMBLE + line + FRAMING.frame(message)
            for cuts in ((), range(len(data))):
                came = read(open_stream(), data, cuts)
                self.assertEqual(came, [*gaps, message], value)

    def test_as_it_is_asked_for(self):
        """
        Messages that the caller did not take from one iterator are in the next.
        """
        sent = [Message("foo", b"%d" % i, "a/b") for i in range(3)]
        stream = open_stream()
        self.assertEqual(
            next(stream.feed(PREAMBLE + b"".join(map(FRAMING.frame, sent)))), sent[0]
        )
        self.assertEqual(read(stream, b""), sent[1:])

    def test_asked_for_a_gap_only(self):
        """
        If the caller takes only the first gap of a part, the other gaps and the message are
        in the next iterator.
        """
        message = Message("foo", b"x", "a/b")
        stream = open_stream()
        data = PREAMBLE + FRAMING.gap(2) + FRAMING.gap(None) + FRAMING.frame(message)
        self.assertEqual(next(stream.feed(data)), Gap(2))
        self.assertEqual(read(stream, b""), [Gap(None), message])

    def test_last_id(self):
        """
        The next stream begins behind the last message that has an id, or, without one,
        where this stream began.
        """
        for first in ("", "1-0"):
            stream = open_stream(head={**HEAD, "msgbus-id": first})
            self.assertEqual(stream.last_id, first)
            read(stream, PREAMBLE + FRAMING.gap(2))
            self.assertEqual(stream.last_id, first)
            for id, last in (("", first), ("1-5", "1-5"), ("", "1-5"), ("1-6", "1-6")):
                part = FRAMING.frame(Message("foo", b"", "a/b").published(id))
                read(stream, part[:-20])
                read(stream, part[-20:])
                self.assertEqual(stream.last_id, last)
        self.assertEqual(open_stream(head=ORIGINAL_HEAD).last_id, "")

    def test_beats(self):
        """
        A server that tells its prefix sends heartbeats; others do not.
        """
        self.assertTrue(open_stream().beats)
        self.assertTrue(open_stream(head={**HEAD, "msgbus-prefix": "/x/"}).beats)
        self.assertFalse(open_stream(head=ORIGINAL_HEAD).beats)

    def test_prefix(self):
        """
        The channel of a message is what follows the prefix that the server told.
        """
        framing = MultipartFraming("B", "/a%20bus/")
        message = Message("x/ä", b"", "a/b")
        data = PREAMBLE + framing.frame(message)
        head = {**HEAD, "msgbus-prefix": "/a%20bus/"}
        self.assertEqual(read(open_stream("x/", head), data), [message])
        with self.assertRaisesRegex(Malformed, "not below '/msgbus/'"):
            read(open_stream("x/"), data)

    def test_original(self):
        """
        The original msgbus tells neither ids nor, except on the root, channels.
        """
        data = (Path(__file__).parents[1] / "data" / "original-1.0.bin").read_bytes()
        body = data.partition(b"\r\n\r\n")[2]
        for name in ("foo", "a b/ä%41", "sensors/", ""):
            stream = open_stream(name, ORIGINAL_HEAD)
            expected = [
                Message(name, b"message 0\n", "text/plain"),
                Message(name, b"message 1\n", "text/html", "alice"),
                Message(name, b"message 2\x00\xff", "application/octet-stream"),
            ]
            came = read(stream, body, range(0, len(body), 7))
            self.assertEqual(with_ids(came), with_ids(expected))
            self.assertEqual(stream.last_id, "")
            self.assertEqual(stream.end(), "The server ended the stream.")

    def test_original_root(self):
        """
        On its root, the original msgbus tells the channel.
        """
        data = (
            b"--00MsgBus00\nFrom: \nContent-Location: /msgbus/a/b\n"
            b"Content-Type: text/plain\nContent-Length: 2\n\nhi--00MsgBus00\n"
        )
        self.assertEqual(
            read(open_stream("", ORIGINAL_HEAD), data),
            [Message("a/b", b"hi", "text/plain")],
        )

    @given(names, st.data())
    def test_name(self, name, data):
        """
        If the server does not tell the channel, it is the one that was subscribed to,
        whatever its name.
        """
        told = b"--B\nContent-Type: a/b\nContent-Length: 1\n\nx"
        came = read(open_stream(name), told, data.draw(splits(told)))
        self.assertEqual(came, [Message(name, b"x", "a/b")])

    def test_end(self):
        """
        The sentence about the end says whether the stream ended cleanly, inside a part, or
        before its first delimiter.
        """
        part = FRAMING.frame(Message("foo", b"x", "a/b"))
        for data, told in (
            (PREAMBLE, "The server ended the stream."),
            (PREAMBLE + part, "The server ended the stream."),
            (PREAMBLE + part + FRAMING.gap(1), "The server ended the stream."),
            (PREAMBLE + FRAMING.heartbeat, "The server ended the stream."),
            (PREAMBLE + part[:-20], "The stream ended inside a part."),
            (b"", "The stream ended before the first delimiter."),
        ):
            stream = open_stream()
            read(stream, data)
            self.assertEqual(stream.end(), told, data)

    def test_none(self):
        """
        A response that is no stream of a bus is refused.
        """
        for status, content_type, kind, sentence in (
            (200, "text/html", Refused, "This is no bus: it answered 200 with text/html;"),
            (200, "", Refused, "This is no bus: it answered 200 with nothing;"),
            (200, "multipart/mixed", Refused, "This is no bus: "),
            (204, HEAD["content-type"], Refused, "This is no bus: it answered 204 with "),
            (206, HEAD["content-type"], Refused, "This is no bus: it answered 206 with "),
            (404, HEAD["content-type"], Refused, "The answer is 404."),
            (503, HEAD["content-type"], Unreachable, "The answer is 503."),
        ):
            with self.assertRaises(BusError) as caught:
                Stream("foo", status, {"content-type": content_type}, 100)
            self.assertIs(type(caught.exception), kind)
            self.assertTrue(str(caught.exception).startswith(sentence), caught.exception)

    def test_malformed(self):
        """
        Malformed bytes raise `Malformed`, after the messages before them were taken.
        """
        for data, complaint in (
            (b"Content-Length: 0\n\n", "A part is no message: .* type/subtype"),
            (b"Content-Type: a/b\nContent-Location: /x\n\n\n--B\n", "not below '/msgbus/'"),
            (b"Content-Type: a/b\nContent-Location: /msgbus//\n\n\n--B\n", "empty segment"),
            (
                b"Content-Type: a/b\nContent-Location: /msgbus/%ff\n\n\n--B\n",
                "no message: ",
            ),
            (b"Content-Type: a/b\nFrom: a\x00\nContent-Length: 0\n\n", "control character"),
            (b"Content-Type: a/b\nMsgbus-Id: \x00\nContent-Length: 0\n\n", "The id"),
            (b"Content-Length: 101\n\n", "101 bytes is too large"),
            (b"\n" + b"x" * 1000, "too large"),
            (b"no header\n", "no header line"),
        ):
            message = Message("foo", b"x", "a/b").published("1-1")
            stream = open_stream()
            items = stream.feed(PREAMBLE + FRAMING.frame(message) + FRAMING.gap(1) + data)
            self.assertEqual(next(items), message)
            with self.assertRaisesRegex(Malformed, complaint) as caught:
                list(items)
            self.assertTrue(str(caught.exception).isprintable())
            self.assertEqual(stream.last_id, "1-1")

    @given(
        st.data(), st.lists(pieces).map(b"".join), st.sampled_from(["", "/", "/msgbus/"])
    )
    def test_garbage(self, data, garbage, prefix):
        """
        Any bytes give messages and gaps, or `Malformed`, and may end anywhere.
        """
        stream = open_stream("foo", {**HEAD, "msgbus-prefix": prefix}, max_message=20)
        stream.feed(data.draw(st.sampled_from([b"", PREAMBLE])))
        try:
            for item in read(stream, garbage, data.draw(splits(garbage))):
                self.assertIsInstance(item, Message | Gap | Live)
        except Malformed as error:
            self.assertTrue(str(error))
        self.assertTrue(stream.end().endswith("."))
        self.assertIsInstance(stream.last_id, str)

    @given(
        st.integers(199, 206),
        st.text(max_size=60)
        | st.text("multipart/x-mixed;boundary*='\" \r\nä%f0=", max_size=60).map(
            "multipart/mixed;".__add__
        ),
    )
    def test_any_head(self, status, content_type):
        """
        Any head either begins a stream or is refused.
        """
        try:
            stream = Stream("foo", status, {"content-type": content_type}, 100)
        except BusError as error:
            self.assertTrue(str(error).isprintable())
        else:
            self.assertEqual(status, 200)
            self.assertEqual(list(stream.feed(b"")), [])
