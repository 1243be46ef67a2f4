"""
Tests for `msgbus.client.publication_stream`.
"""

import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.client.errors import Refused, Unreachable
from msgbus.client.publication_stream import (
    FIRST_UNANSWERED,
    MAX_UNANSWERED,
    MAX_UNANSWERED_BYTES,
    PublicationStream,
)
from msgbus.client.response_reader import ResponseReader
from msgbus.client.url import BusURL
from msgbus.formats.multipart import Decoder, boundary_of
from msgbus.message import Receipt

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def lines(*told, last=False):
    """
    Lines of an answer, each a chunk.
    """
    data = b""
    for one in told:
        line = json.dumps(one).encode() + b"\n"
        data += b"%x\r\n%b\r\n" % (len(line), line)
    return data + (b"0\r\n\r\n" if last else b"")


class Server:
    """
    Reads one request, as a bus does.
    """

    def __init__(self, stream):
        self.stream = stream
        self.head = stream.begin().decode()
        kind = re.search("Content-Type: (.*)\r\n", self.head)[1]
        self.decoder = Decoder(boundary_of(kind))
        # What a request in chunks holds is read like a response in chunks.
        self.body = ResponseReader()
        self.body.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def parts(self, size=1 << 20):
        """
        The parts that come now.
        """
        return self.read(self.stream.to_send(size))

    def read(self, data):
        """
        The parts in these bytes.
        """
        return list(self.decoder.feed(self.body.feed(data)))


class PublicationStreamTests(SynchronousTestCase):
    """
    One stream over several connections.
    """

    def setUp(self):
        self.stream = self.make("foo")

    def make(self, name):
        """
        A stream to a channel or folder.
        """
        url = BusURL.parse("http://alice:secret@localhost:8888/msgbus/").channel(name)
        return PublicationStream(url, name)

    def add(self, *bodies, **options):
        """
        Add messages with these bodies.
        """
        return [self.stream.add(body, "a/b", options) for body in bodies]

    def test_request(self):
        """
        The request asks for answers in lines, and tells proxies to pass on each piece.
        """
        head = Server(self.stream).head
        for line in (
            "POST /msgbus/foo HTTP/1.1",
            "Host: localhost:8888",
            "Authorization: Basic YWxpY2U6c2VjcmV0",
            "Accept: application/x-ndjson",
            "Incremental: ?1",
            "Transfer-Encoding: chunked",
        ):
            self.assertIn(f"{line}\r\n", head)
        self.assertTrue(head.endswith("\r\n\r\n"))

    def test_parts(self):
        """
        Each message is a part with a length and a key of its own, and with what else is
        known of it.
        """
        self.stream = self.make("a/")
        given = {
            "channel": "b:c/ü",
            "sender": "bob",
            "id": "1-2",
            "origin": "7/1-7000000000002",
            "keep": False,
        }
        self.stream.add(b"x\r\n--", "text/plain; c=ä", given)
        with self.assertRaisesRegex(TypeError, "'chanel'"):
            self.stream.add(b"", "a/b", {"chanel": "b"})
        self.add(b"")
        first, second = Server(self.stream).parts()
        keys = {part.headers.pop("idempotency-key") for part in (first, second)}
        self.assertEqual(len(keys), 2)
        self.assertEqual(
            first.headers,
            {
                "content-type": "text/plain; c=ä",
                "content-location": "b%3Ac/%C3%BC",
                "from": "bob",
                "cache-control": "no-store",
                "msgbus-id": "1-2",
                "msgbus-origin": "7/1-7000000000002",
                "content-length": "5",
            },
        )
        self.assertEqual(first.body, b"x\r\n--")
        self.assertEqual(second.headers, {"content-type": "a/b", "content-length": "0"})

    def test_answers(self):
        """
        Answers belong to messages in their order, and a refusal concerns one message.
        """
        self.add(b"1", b"2", b"3")
        Server(self.stream).parts()
        told = (
            {"part": 1, "id": "1-1", "subscribers": 2},
            {"part": 2, "status": 400, "error": "It is bad."},
            {"part": 3, "id": "1-1", "subscribers": 0, "repeated": True},
        )
        (one, first), (two, second), (three, third) = self.stream.feed(HEAD + lines(*told))
        self.assertEqual((one, two, three), (1, 2, 3))
        self.assertEqual((first, third), (Receipt("1-1", 2), Receipt("1-1", 0, True)))
        self.assertEqual(
            (str(second), second.status), ("The answer is 400: It is bad.", 400)
        )
        self.assertEqual(self.stream.unanswered, 0)

    def test_again(self):
        """
        On another connection, what was not answered is sent again, byte for byte, before
        what is new.
        """
        self.add(b"1", b"2", b"3")
        sent = Server(self.stream).parts(1)
        more = self.stream.to_send(1 << 20)
        self.assertIn(b"3\r\n", more)
        list(self.stream.feed(HEAD + lines({"part": 1, "id": "1-1", "subscribers": 0})))
        with self.assertRaisesRegex(Unreachable, "was cut"):
            list(self.stream.end())
        self.add(b"4")
        again = Server(self.stream).parts()
        self.assertEqual([part.body for part in (*sent, *again)], [b"1", b"2", b"3", b"4"])
        told = lines({"part": 1, "id": "1-2", "subscribers": 0})
        self.assertEqual(list(self.stream.feed(HEAD + told)), [(2, Receipt("1-2", 0))])

    def test_close(self):
        """
        After `close` the end is sent, once everything else is; the stream has ended when
        everything is answered.
        """
        self.add(b"1")
        server = Server(self.stream)
        self.stream.close()
        self.assertEqual(len(server.parts()), 1)
        self.assertTrue(server.body.ended)
        server.decoder.end()
        self.assertEqual(self.stream.to_send(1), b"")
        self.assertEqual(self.stream.heartbeat(), b"")
        list(self.stream.feed(HEAD + lines({"part": 1, "id": "1-1", "subscribers": 0})))
        self.assertFalse(self.stream.finished)
        list(self.stream.feed(lines({"published": 1, "id": "1-1"}, last=True)))
        self.assertTrue(self.stream.finished)

    def test_heartbeats(self):
        """
        Heartbeats are header lines before the part that follows, which is unchanged.
        """
        self.add(b"1")
        server = Server(self.stream)
        self.assertEqual(len(server.parts()), 1)
        for _ in range(3):
            self.assertEqual(server.read(self.stream.heartbeat()), [])
        self.add(b"2")
        (part,) = server.parts()
        self.assertEqual(part.body, b"2")
        server.read(self.stream.heartbeat())
        self.stream.close()
        self.assertEqual(server.parts(), [])
        server.decoder.end()

    def test_room(self):
        """
        There is room while neither too many messages nor too many bytes have no answer.
        """
        self.add(*[b""] * (MAX_UNANSWERED - 1))
        self.assertTrue(self.stream.has_room)
        self.add(b"")
        self.assertFalse(self.stream.has_room)
        server = Server(self.stream)
        server.parts()
        list(self.stream.feed(HEAD + lines({"part": 1, "id": "", "subscribers": 0})))
        self.assertTrue(self.stream.has_room)
        self.add(bytes(MAX_UNANSWERED_BYTES))
        self.assertFalse(self.stream.has_room)

    def test_slow_start(self):
        """
        A new connection is not trusted with everything at once: how much is sent grows with
        the answers.
        """
        self.add(*[b""] * 200)
        for _ in range(2):
            server = Server(self.stream)
            self.assertEqual(len(server.parts()), FIRST_UNANSWERED)
            self.assertEqual(server.parts(), [])
            self.assertTrue(self.stream.unsent)
            told = [{"part": n, "id": "", "subscribers": 0} for n in range(1, 11)]
            list(self.stream.feed(HEAD + lines(*told)))
            self.assertEqual(len(server.parts()), 20)

    def test_broken(self):
        """
        If the bus ends the stream at a message that it refuses, that is refused, and the
        others are for the next connection.  If it ends it for a time, none is refused.
        """
        self.add(b"1", b"2")
        for status, answers in ((413, 1), (503, 0), (408, 0)):
            server = Server(self.stream)
            server.parts()
            end = {"published": 0, "id": None, "part": 1, "status": status, "error": "No."}
            answered = self.stream.feed(HEAD + lines(end, last=True))
            for _ in range(answers):
                self.assertIsInstance(next(answered)[1], Refused)
            with self.assertRaises(Unreachable):
                next(answered)

    def test_refused(self):
        """
        A bus that refuses the stream as a whole, or a server that is none, is told.
        """
        plain = b"Content-Type: text/plain\r\n"
        for answer, kind, sentence in (
            (b"401 No\r\n" + plain + b"Content-Length: 3\r\n\r\nNo.", Refused, "401: No."),
            (b"404 No\r\n" + plain + b"\r\nNo", Refused, "404: No"),
            (b"503 No\r\nContent-Length: 0\r\n\r\n", Unreachable, "503"),
            (b"204 No Content\r\n\r\n", Refused, "This is no bus"),
            (b"200 OK\r\n" + plain + b"\r\n", Refused, "This is no bus"),
        ):
            Server(self.stream)
            with self.assertRaisesRegex(kind, re.escape(sentence)):
                list(self.stream.feed(b"HTTP/1.1 " + answer))
                list(self.stream.end())

    def test_nonsense(self):
        """
        Answers that cannot be those of a bus end the stream.
        """
        self.add(b"1")
        for line in (
            b"x\n",
            b"[]\n",
            b'{"part": 2, "id": "1-1", "subscribers": 0}\n',
            b'{"part": "1", "id": "1-1"}\n',
            b'{"part": 1, "id": 1}\n',
            b'{"id": "1-1"}\n',
            b"[" * 70000,
        ):
            Server(self.stream).parts()
            with self.assertRaises(Refused):
                list(self.stream.feed(HEAD + b"%x\r\n%b\r\n" % (len(line), line)))

    def test_ended_early(self):
        """
        An answer that ends before the stream does is an unreachable bus.
        """
        self.add(b"1")
        for end in (lines(last=True), lines({"published": 0, "id": None}, last=True)):
            Server(self.stream).parts()
            with self.assertRaisesRegex(Unreachable, "The server ended the stream"):
                list(self.stream.feed(HEAD + end))

    def test_patience(self):
        """
        It is tried again for as long as there is patience, counted from the first failure
        behind the last answer.
        """
        self.add(b"1", b"2")
        lost = Unreachable("It is gone.")
        self.assertLess(self.stream.lost(lost, 100, 5).seconds, 1)
        with self.assertRaises(Unreachable):
            self.stream.lost(lost, 106, 5)
        Server(self.stream).parts()
        list(self.stream.feed(HEAD + lines({"part": 1, "id": "", "subscribers": 0})))
        self.assertLess(self.stream.lost(lost, 106, 5).seconds, 1)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
    def test_any_cuts(self, cuts):
        """
        Wherever connections are cut, each message is answered once, in order, and a server
        that knows the keys has taken each once.
        """
        stream = self.stream = self.make("foo")
        self.add(*(b"%d" % n for n in range(30)))
        taken, answered = {}, []
        for read, told in (*cuts, (30, 30)):
            server = Server(stream)
            parts = []
            while len(parts) < read and (data := stream.to_send(1)):
                parts += server.read(data)
            for part in parts:
                taken.setdefault(part.headers["idempotency-key"], part.body)
            receipts = [
                {"part": n, "id": "1-1", "subscribers": 0}
                for n in range(1, min(told, len(parts)) + 1)
            ]
            answered += [n for n, _ in stream.feed(HEAD + lines(*receipts))]
        self.assertEqual(list(taken.values()), [b"%d" % n for n in range(30)])
        self.assertEqual(answered, list(range(1, 31)))
