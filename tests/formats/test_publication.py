"""
Tests for `msgbus.formats.publication`.
"""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.formats.envelope import LIVE, envelope, gap
from msgbus.formats.publication import (
    InvalidPublication,
    Publication,
    parse_envelope,
    parse_publication,
)
from msgbus.ids import origin_of
from msgbus.message import Invalid, Message

from ..strategies import messages


class PublicationTests(SynchronousTestCase):
    """
    What somebody sends as JSON to have it published.
    """

    @given(messages())
    def test_round_trip(self, message):
        """
        The type and body of any envelope can be sent to be published again.
        """
        told = json.loads(envelope(message))
        wish = {name: told[name] for name in ("type", "body", "base64") if name in told}
        self.assertEqual(
            parse_publication(json.dumps(wish).encode()),
            Publication(message.content_type, message.body),
        )

    def test_wishes(self):
        """
        All fields are read, and a refusal tells the `ack` that was sent.
        """
        wish = {"type": "a/b", "channel": "c", "keep": False, "require": True, "key": "k"}
        for wrong in ({"body": 1}, {"body": "", "x": 1}, {"base64": "x"}, {}):
            with self.assertRaises(InvalidPublication) as caught:
                parse_publication(json.dumps({**wish, "ack": 7, **wrong}).encode())
            self.assertEqual(caught.exception.ack, 7)
        self.assertEqual(
            parse_publication(json.dumps({**wish, "ack": 7, "base64": "AA=="}).encode()),
            Publication("a/b", b"\0", "c", keep=False, require=True, key="k", ack=7),
        )

    def test_mistakes(self):
        """
        What is not such an object is refused with one sentence.
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
            b'{"type": "a/b", "body": "", "sender": "x"}',
            b'{"type": "a/b", "body": "", "id": "1-2"}',
            b'{"type": "a/b", "body": "", "origin": "0/1-2"}',
            b'{"gap": 1}',
            b'{"type": "a/b", "\\ud800": 1}',
            b"\xff\xfe{\0",
        ):
            with self.assertRaises(Invalid, msg=text[:100]) as caught:
                parse_publication(text)
            self.assertRegex(str(caught.exception), r"\A.+\.\Z", text[:100])
            str(caught.exception).encode("utf-8")

    @given(st.binary(max_size=50))
    def test_total(self, text):
        """
        Any bytes are read or refused, and nothing else is raised.
        """
        with contextlib.suppress(Invalid):
            parse_publication(text)


class EnvelopeTests(SynchronousTestCase):
    """
    Envelopes that are sent to be published at another bus.
    """

    @given(messages())
    def test_round_trip(self, message):
        """
        An envelope is read with all that makes the message another bus published, and with
        its origin.
        """
        message = message.published("1764-4711000000000017")
        self.assertEqual(
            parse_envelope(envelope(message)),
            Publication(
                message.content_type,
                message.body,
                message.channel,
                sender=message.sender,
                origin=message.origin or origin_of(message.id),
                id=message.id,
                headers=message.headers,
                max_age=message.max_age,
            ),
        )

    def test_options(self):
        """
        How to publish the message may be added, and most of the envelope may be missing.
        """
        told = {"type": "a/b", "body": "x"}
        read = parse_envelope(json.dumps(told).encode())
        self.assertEqual(read, Publication("a/b", b"x"))
        told |= {"keep": False, "require": True, "key": "k"}
        self.assertEqual(
            parse_envelope(json.dumps(told).encode()),
            Publication("a/b", b"x", keep=False, require=True, key="k"),
        )

    def test_foreign_ids(self):
        """
        An id that is not of our form, which has no time either, makes no origin.
        """
        for id in ("", "x", "1-1000000000000000000"):
            read = parse_envelope(envelope(Message("a", b"").published(id)))
            self.assertEqual(read.origin, "")

    def test_gaps(self):
        """
        A line that tells of a gap, or where history ends, has no message.
        """
        for count in (12, None):
            self.assertIsNone(parse_envelope(gap(count)))
        self.assertIsNone(parse_envelope(LIVE))

    def test_mistakes(self):
        """
        What is no envelope is refused with one sentence.
        """
        for text in (
            b"",
            b"[]",
            b'{"gap": 1, "type": "a/b"}',
            b'{"type": "a/b"}',
            b'{"body": ""}',
            b'{"type": "a/b", "body": "", "ack": 1}',
            b'{"type": "a/b", "body": "", "size": "1"}',
            b'{"type": "a/b", "body": "", "time": 1}',
            b'{"type": "a/b", "body": "", "id": 1}',
            b'{"type": "a/b", "body": "", "origin": null}',
            b'{"type": "a/b", "body": "", "sender": "\\ud800"}',
            b'{"type": "a/b", "base64": "x"}',
        ):
            with self.assertRaises(InvalidPublication, msg=text) as caught:
                parse_envelope(text)
            self.assertRegex(str(caught.exception), r"\A.+\.\Z", text)

    @given(st.binary(max_size=50))
    def test_total(self, text):
        """
        Any bytes are read or refused, and nothing else is raised.
        """
        with contextlib.suppress(Invalid):
            parse_envelope(text)
