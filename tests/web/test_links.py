"""
Tests for links and tokens at the doors of a bus: `msgbus.web.bearer`, `.grants` and
`.rights`.
"""

import json
from base64 import urlsafe_b64encode

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from twisted.internet.error import ConnectionDone

from msgbus.access.channels import Channels
from msgbus.access.grant import BadGrant, Grant
from msgbus.access.limits import Rate
from msgbus.access.link_keys import Keys, format_key
from msgbus.access.links import sign
from msgbus.access.tokens import TokenKey, Tokens
from msgbus.access.users import Users
from msgbus.match import Filter
from msgbus.web import grants
from msgbus.web.bearer import Bearer
from msgbus.web.grants import Grants
from msgbus.web.quotas import Quotas, QuotaSizes
from msgbus.web.root import Root
from msgbus.web.visitor import Access, Visitor

from ..requests import authorization, get, post
from .testcase import WebTestCase
from .websocket_testcase import UPGRADE

OLD = Keys.parse(format_key("k1", b"1" * 32).encode(), "links.key")
NEW = Keys.parse(format_key("k2", b"2" * 32).encode(), "links.key")
PAIR = ECKey.generate_key("P-256")
PEM = PAIR.as_pem(private=False)
TOKENS = Tokens([TokenKey.parse("ES256", PEM, "issuer.pem")])
LASTS = 3600


def link(publish=(), subscribe=(), expires=LASTS, keys=OLD, **narrower):
    """
    A link to do this.
    """
    return sign(keys, Grant(Channels(publish), Channels(subscribe), expires, **narrower))


def token(key=PAIR, algorithm="ES256", **claims):
    """
    A JWT with these claims.
    """
    return jwt.encode({"alg": algorithm}, {"exp": LASTS, **claims}, key)


def bearer(shown):
    """
    The header line that shows a link or token.
    """
    return f"Authorization: Bearer {shown}\n"


class LinkTestCase(WebTestCase):
    """
    A bus that takes links and tokens, and nothing else.
    """

    def setUp(self):
        super().setUp()
        # By how much the time of day goes before the clock of the reactor.
        self.slept = 0
        self.grants = Grants(OLD, TOKENS, lambda: self.server.clock.seconds() + self.slept)
        root = Root(grants=self.grants, portal=self.server.root._portal)
        root.putChild(b"msgbus", self.server.resource)
        self.server.site.resource = root
        self.cam = link(subscribe=["cam", "public/*"])
        self.all = link(["*"], ["*"], name="alice")

    def put(
        self, channel="cam", shown=None, body="x", headers="Content-Type: text/plain\n"
    ):
        """
        Publish by a link; the status of the answer.
        """
        request = post(
            f"/msgbus/{channel}?format=ndjson&link={shown or self.all}", body, headers
        )
        return self.server.ask(request)[0]


class ShowingTests(LinkTestCase):
    """
    What shows a link or token, and what is refused.
    """

    def test_nothing_shown(self):
        """
        Who shows neither may do nothing, at any door, with whatever name.
        """
        for headers in ("", authorization("alice:secret")):
            for request in (
                get(headers=headers),
                get("/msgbus/", headers=headers),
                get("/", headers=headers),
                get("/msgbus/foo?format=message", headers=headers),
                get("/msgbus/foo", headers=UPGRADE + headers),
                get("/msgbus/foo", headers="Accept: text/html\n" + headers),
                post(headers="Content-Type: a/b\n" + headers),
                post(
                    "/msgbus/?format=ndjson",
                    "",
                    "Content-Type: application/x-ndjson\n" + headers,
                ),
            ):
                self.assert_refused(request, 401, "asks for a link")
        _, headers, _ = self.server.ask(get())
        self.assertEqual(headers["WWW-Authenticate"], 'Bearer realm="msgbus"')

    def test_modules(self):
        """
        The modules of the live page are there for everybody, since a page cannot pass on
        its link to what they import.
        """
        self.assertEqual(self.server.ask(get("/msgbus/.js/msgbus.js"))[0], 200)

    def test_shown(self):
        """
        A link is taken from the query or from the header, and a token from the header; the
        answer is neither kept nor are other sites told its address.
        """
        one = token(subscribe=["cam"])
        for path, headers in (
            (f"/msgbus/cam?link={self.cam}", ""),
            (f"/msgbus/cam?last=1&link={self.cam}", ""),
            (f"/msgbus/cam?format=message&link={self.cam}", ""),
            (f"/msgbus/?link={self.cam}", ""),
            ("/msgbus/cam", bearer(self.cam)),
            ("/msgbus/cam", bearer(one)),
        ):
            code, answered, _ = self.server.ask(get(path, headers))
            self.assertIn(code, (200, 204), path)
            self.assertEqual(answered["Referrer-Policy"], "no-referrer")
            self.assertEqual(answered["Cache-Control"], "no-store")

    def test_found_message(self):
        """
        Not even one message by itself is kept by caches.
        """
        self.put()
        code, headers, body = self.server.ask(
            get(f"/msgbus/cam?format=message&link={self.cam}")
        )
        self.assertEqual((code, body), (200, b"x"))
        self.assertEqual(headers["Cache-Control"], "no-store")

    def test_page(self):
        """
        A browser gets the live page.
        """
        page = get(f"/msgbus/cam?link={self.cam}", "Accept: text/html\n")
        code, headers, _ = self.server.ask(page)
        self.assertEqual((code, headers["Cache-Control"]), (200, "no-store"))

    def test_elsewhere(self):
        """
        A link gives no other channel and no other verb; the answer has the code and the
        sentence of RFC 6750.
        """
        for path in ("camx", "ca", "publi", "other"):
            request = get(f"/msgbus/{path}?link={self.cam}")
            self.assert_refused(request, 403, "does not let you subscribe")
        self.assert_refused(
            post(f"/msgbus/cam?link={self.cam}"), 403, "lets you publish to nothing"
        )
        _, headers, _ = self.server.ask(get(f"/msgbus/other?link={self.cam}"))
        self.assertRegex(
            headers["WWW-Authenticate"],
            r"\ABearer realm=\"msgbus\", error=\"insufficient_scope\","
            r" error_description=\"This link [^\"\\]+\"\Z",
        )

    def test_bad(self):
        """
        A link that was changed, cut off, signed by another key or given twice is refused,
        whatever else the request has.
        """
        payload, _, mac = self.cam.partition(".")
        foreign = link(subscribe=["cam"], keys=NEW)
        for shown in (f"{payload}x.{mac}", payload, self.cam[:-4], foreign, "", "a.b.c"):
            request = get(f"/msgbus/cam?link={shown}")
            self.assertEqual(self.server.ask(request)[0], 401, shown)
        _, headers, _ = self.server.ask(get(f"/msgbus/cam?link={foreign}"))
        self.assertIn('error="invalid_token"', headers["WWW-Authenticate"])
        for request in (
            get(f"/msgbus/cam?link={self.cam}&link={self.cam}"),
            get(f"/msgbus/cam?link={self.cam}&l%69nk={self.cam}"),
            get(f"/msgbus/cam?link={self.cam}", bearer(self.cam)),
            get("/msgbus/cam", "Authorization: Bearer \n"),
        ):
            code, headers, _ = self.server.ask(request)
            self.assertEqual(code, 400)
            self.assertIn('error="invalid_request"', headers["WWW-Authenticate"])

    def test_token_in_the_address(self):
        """
        A token is not taken from the query.
        """
        shown = token(subscribe=["cam"])
        self.assert_refused(get(f"/msgbus/cam?link={shown}"), 401, "link is not complete")

    def test_forged_tokens(self):
        """
        A token without a signature, one signed with the public key as a secret, and one
        with 30,000 patterns are refused.
        """
        claims = {"exp": LASTS, "subscribe": ["cam"]}

        def part(value):
            return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

        confused = token(OctKey.import_key(b"x" * 32), "HS256", subscribe=["cam"])
        public = part({"alg": "HS256"}) + "." + part(claims) + "." + "A" * 43
        for shown in (
            f"{part({'alg': 'none'})}.{part(claims)}.",
            f"{part({'alg': 'none'})}.{part(claims)}.AAAA",
            confused,
            public,
            token(ECKey.generate_key("P-256"), subscribe=["cam"]),
            token(subscribe=[f"a{i}" for i in range(33)]),
        ):
            self.assertEqual(self.server.ask(get("/msgbus/cam", bearer(shown)))[0], 401)
        many = token(subscribe=[f"a{i}" for i in range(30_000)])
        code, _, _ = self.server.ask(get("/msgbus/cam", bearer(many)))
        self.assertIn(code, (400, 401, 431))

    def test_no_keys(self):
        """
        A bus that takes only links, or only tokens, says so.
        """
        shown = token(subscribe=["cam"])
        self.grants.replace(OLD, None)
        self.assert_refused(get("/msgbus/cam", bearer(shown)), 401, "takes no tokens")
        self.grants.replace(None, TOKENS)
        request = get(f"/msgbus/cam?link={self.cam}")
        self.assert_refused(request, 401, "takes no links")

    def test_never_remembered(self):
        """
        A request with a link is judged each time, also when its head comes again.
        """
        soon = link(["cam"], expires=5)
        peer = self.server.connect()
        for _ in range(4):
            peer.send(post(f"/msgbus/cam?link={soon}"))
            self.assertEqual(peer.answer()[0], 204)
        self.server.clock.advance(5)
        peer.send(post(f"/msgbus/cam?link={soon}"))
        self.assertEqual(peer.answer()[0], 401)

    def test_verified(self):
        """
        What has been verified is remembered, until it expires or the keys change; and no
        more than so many are.
        """
        soon = link(["cam"], expires=5)
        first = self.grants.verify(soon)
        self.assertIs(self.grants.verify(soon), first)
        self.server.clock.advance(5)
        self.assertRaises(BadGrant, self.grants.verify, soon)
        self.assertIs(self.grants.verify(self.all), self.grants.verify(self.all))
        self.grants.replace(NEW, None)
        self.assertRaises(BadGrant, self.grants.verify, self.all)
        self.grants.replace(OLD, None)
        self.patch(grants, "MAX_REMEMBERED", 3)
        for number in range(8):
            self.grants.verify(link([f"cam{number}"]))
            self.assertLessEqual(len(self.grants._verified), 3)

    def test_logged(self):
        """
        The text by which a request appears in a log has no query, so no link.
        """
        peer, _, _ = self.subscribe(f"/msgbus/cam?link={self.cam}")
        self.assertNotIn(self.cam, "".join(map(repr, peer.protocol.requests)))
        request = self.server.site.requestFactory(peer.protocol, False)
        request.uri = f"/msgbus/cam?link={self.cam}".encode()
        self.assertTrue(repr(request).endswith("b'/msgbus/cam'>"), repr(request))


class PasswordTests(LinkTestCase):
    """
    A bus that takes a password, too.
    """

    options = {"secret": b"secret"}

    def test_either(self):
        """
        The password is enough, and so is a link; who has neither is asked for both.
        """
        self.assertEqual(self.server.ask(get(headers=authorization("a:secret")))[0], 200)
        self.assertEqual(self.server.ask(get(f"/msgbus/cam?link={self.cam}"))[0], 200)
        self.assert_refused(get(), 401, "asks for a password, .* or for a link")
        self.assert_refused(get(headers=authorization("a:x")), 401, "for a password")
        _, headers, _ = self.server.ask(get())
        self.assertEqual(headers["WWW-Authenticate"], 'Basic realm="msgbus"')

    def test_both(self):
        """
        With a link, the password does not count: it neither adds a right nor gives a name.
        """
        good = authorization("bob:secret")
        self.assert_refused(
            get(f"/msgbus/other?link={self.cam}", good), 403, "does not let you subscribe"
        )
        self.put(headers=f"Content-Type: a/b\n{good}")
        self.assertEqual([m.sender for m in self.published], ["alice"])

    def test_expired(self):
        """
        Who shows a bad link is told that a password may help, too.
        """
        peer = self.server.connect()
        peer.send(get("/msgbus/cam?link=x.y"))
        head = peer.received().decode()
        self.assertIn("\r\nWWW-Authenticate: Bearer", head)
        self.assertIn('\r\nWWW-Authenticate: Basic realm="msgbus"\r\n', head)


class PublishingTests(LinkTestCase):
    """
    What is published by a link.
    """

    def test_name(self):
        """
        The sender is that of the link, or nobody, whatever the request says.
        """
        self.put()
        self.put(shown=link(["cam"]), headers="Content-Type: a/b\nFrom: bob\n")
        self.assertEqual([m.sender for m in self.published], ["alice", ""])

    def test_stream(self):
        """
        Messages of a stream are judged one by one; none is believed to be of somebody else,
        or to have been published elsewhere before.
        """
        lines = [
            {"channel": "a/1", "type": "a/b", "sender": "bob", "body": "1"},
            {"channel": "a/2", "type": "a/b", "origin": "1-2", "body": "2"},
        ]
        body = "".join(json.dumps(line) + "\n" for line in lines)
        shown = link(["a/1", "a/2"], name="alice")
        kind = "Content-Type: application/x-ndjson\n"
        self.assertEqual(self.put("a/", shown, body, kind), 200)
        self.assertEqual(
            [(m.sender, m.origin) for m in self.published], [("alice", "")] * 2
        )
        self.assertEqual(self.put("a/", link(["a/1"]), body, kind), 403)
        self.assertEqual(len(self.published), 3)

    def test_narrow(self):
        """
        Messages of other types and larger messages are refused.
        """
        shown = link(["cam"], filter=Filter("text/*"), max_message=2)
        for body, kind, code in (
            ("12", "text/plain; charset=utf-8", 204),
            ("123", "text/plain", 413),
            ("1", "image/png", 403),
        ):
            headers = f"Content-Type: {kind}\n"
            self.assertEqual(self.put("cam", shown, body, headers), code)
        self.assertEqual(len(self.published), 1)

    def test_existence(self):
        """
        Who may not read a channel does not learn whether somebody does.
        """
        self.subscribe(f"/msgbus/cam?link={self.cam}")
        _, headers, _ = self.server.ask(post(f"/msgbus/cam?link={link(['cam'])}"))
        self.assertEqual(headers["Msgbus-Subscribers"], "0")
        request = post(f"/msgbus/cam?require=1&link={link(['cam'])}")
        self.assertEqual(self.server.ask(request)[0], 403)


class SubscribingTests(LinkTestCase):
    """
    What is read by a link.
    """

    def test_folder(self):
        """
        A folder gives the channels of the link, live and from the history, and no gap tells
        of others.
        """
        for channel in ("secret", "public/a", "cam"):
            self.put(channel, body=channel)
        for query in ("since=all&", ""):
            peer, _, body = self.subscribe(f"/msgbus/?{query}link={self.cam}")
            self.put("secret", body="secret")
            self.put("public/b", body="live")
            body += peer.received()
            self.assertIn(b"live", body)
            self.assertEqual(b"public/a" in body, bool(query))
            self.assertNotIn(b"secret", body)
            self.assertNotIn(b"Msgbus-Gap", body)

    def test_filters(self):
        """
        A message has to pass the filter of the link and that of the query.
        """
        shown = link(subscribe=["*"], filter=Filter("text/*", "alice"))
        peer, _, _ = self.subscribe(f"/msgbus/cam?type=*/plain&sender=*&link={shown}")
        for kind, by in (
            ("text/plain", self.all),
            ("text/html", self.all),
            ("a/plain", self.all),
            ("text/plain", link(["*"], name="bob")),
        ):
            self.put("cam", by, kind + by[-5:], f"Content-Type: {kind}\n")
        self.assertEqual(peer.received().count(b"Content-Location"), 1)


class EndTests(LinkTestCase):
    """
    The end of what was begun with a link.
    """

    def begin(self):
        """
        A stream, a WebSocket, a request that waits, and a stream of publications.
        """
        stream, _, _ = self.subscribe(f"/msgbus/cam?link={self.cam}")
        websocket, poll, publisher = (self.server.connect() for _ in range(3))
        websocket.send(get(f"/msgbus/cam?link={self.cam}", UPGRADE))
        self.assertEqual(websocket.answer()[0], 101)
        poll.send(get(f"/msgbus/cam?format=message&wait=300&link={self.cam}"))
        publisher.send(
            f"POST /msgbus/a/?format=ndjson&link={self.all} HTTP/1.1\n"
            "Host: localhost:8888\nContent-Type: application/x-ndjson\n"
            "Transfer-Encoding: chunked\n\n"
        )
        self.assertEqual(poll.received() + publisher.received(), b"")
        return stream, websocket, poll, publisher

    def test_expired(self):
        """
        Everything ends at the second at which the link expires, and not before.
        """
        self.cam = link(subscribe=["cam"], expires=100)
        self.all = link(["*"], expires=100)
        peers = self.begin()
        self.server.clock.advance(99)
        for number, peer in enumerate(peers):
            self.assertFalse(peer.closed, (number, peer.received()))
            peer.received()
        self.server.clock.advance(1)
        self.assert_all_ended(peers, b"expired")

    def test_time_is_set(self):
        """
        If the time of day is set forward, or the machine has slept, everything ends within
        a minute.
        """
        self.cam = link(subscribe=["cam"], expires=1000)
        self.all = link(["*"], expires=1000)
        peers = self.begin()
        self.server.clock.advance(30)
        self.slept = 970
        self.server.clock.advance(29)
        for peer in peers:
            self.assertFalse(peer.closed)
            peer.received()
        self.server.clock.advance(1)
        self.assert_all_ended(peers, b"expired")

    def test_revoked(self):
        """
        Everything ends when the key of the link is removed; what has a link of another key
        stays, and so does all if the key stays.
        """
        peers = self.begin()
        both = Keys.parse(
            (format_key("k2", b"2" * 32) + format_key("k1", b"1" * 32)).encode(), "x"
        )
        self.grants.replace(both, TOKENS)
        self.server.resource.check_rights()
        self.assertEqual([peer.received() for peer in peers], [b""] * 4)
        self.cam = link(subscribe=["cam"], keys=NEW)
        stays, _, _ = self.subscribe(f"/msgbus/cam?link={self.cam}")
        self.grants.replace(NEW, TOKENS)
        self.server.resource.check_rights()
        self.assert_all_ended(peers, b"not known, or revoked")
        self.assertFalse(stays.closed)

    def assert_all_ended(self, peers, sentence):
        """
        Assert that all have ended, and that those are told why that can be.
        """
        stream, websocket, poll, publisher = peers
        self.assertEqual(stream.received(), b"0\r\n\r\n")
        self.assertTrue(stream.closed)
        self.assertIn(sentence, websocket.received())
        code, headers, body = poll.answer()
        self.assertEqual(code, 401)
        self.assertIn('error="invalid_token"', headers["WWW-Authenticate"])
        self.assertIn(sentence, body)
        code, _, body = publisher.answer()
        self.assertEqual(code, 401)
        self.assertIn(sentence, body)

    def test_left(self):
        """
        Nothing waits for the end of a link of somebody who has gone.
        """
        for peer in self.begin():
            peer.leave(ConnectionDone())
        calls = [repr(call.func) for call in self.server.clock.getDelayedCalls()]
        self.assertEqual([call for call in calls if "Right" in call], [])
        self.assertEqual(len(self.server.resource.mount.rights._rights), 0)


class LimitTests(LinkTestCase):
    """
    What limits count for those who show a link.
    """

    def setUp(self):
        self.options = {"quotas": Quotas(QuotaSizes(Rate(2, 1000), None, 1), lambda: 0.0)}
        super().setUp()

    def come(self, client, request):
        """
        The status of the answer to somebody at this address.
        """
        peer = self.server.connect(client=client)
        peer.send(request)
        return peer.answer()[0]

    def put_from(self, client, shown):
        path = f"/msgbus/foo?link={shown}"
        return self.come(client, post(path, "x", "Content-Type: text/plain\n"))

    def test_named(self):
        """
        Those whose links give them the same name share what it may publish and subscribe,
        wherever they are.
        """
        others = link(["*"], ["*"], name="bob")
        for i, code in enumerate((204, 204, 429)):
            self.assertEqual(self.put_from(f"192.0.2.{i}", self.all), code)
        self.assertEqual(self.put_from("192.0.2.9", others), 204)
        for i, code in enumerate((200, 429)):
            request = get(f"/msgbus/foo?link={self.all}&format=ndjson")
            self.assertEqual(self.come(f"192.0.2.{i}", request), code)

    def test_nameless(self):
        """
        Those whose links name nobody are counted by their addresses.
        """
        shown = link(["*"], ["*"])
        for code in (204, 204, 429):
            self.assertEqual(self.put_from("192.0.2.1", shown), code)
        self.assertEqual(self.put_from("192.0.2.2", shown), 204)
        request = get(f"/msgbus/foo?link={shown}&format=ndjson")
        for client, code in (("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200)):
            self.assertEqual(self.come(client, request), code)

    def test_no_user(self):
        """
        A link that gives the name of a user takes nothing of what the user may do.
        """
        access = Access(Users({"alice": "$2b$"}), None)
        bearer, user = Bearer(self.grants, self.all), Visitor("alice", access)
        self.assertEqual((bearer.sender, user.user), ("alice", "alice"))
        self.assertNotEqual(bearer.user, user.user)
        self.assertEqual(Bearer(self.grants, self.cam).user, "")
