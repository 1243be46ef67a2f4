"""
Tests for `msgbus.web.channel_list` and `msgbus.web.channel_search`.
"""

import json
from urllib.parse import quote

from twisted.internet.error import ConnectionDone

from msgbus.access.channels import Channels
from msgbus.access.grant import Grant
from msgbus.access.link_keys import Keys, format_key
from msgbus.access.links import sign
from msgbus.match import Filter
from msgbus.message import Message
from msgbus.web import Origins
from msgbus.web.grants import Grants

from ..requests import authorization, get
from .test_rights import USERS
from .testcase import SAFE, WebTestCase

KEYS = Keys.parse(format_key("a", b"a" * 32).encode(), "links.key")


RULES = """
alice  subscribe  *
bob    subscribe  b/*
bob    subscribe  c/*  history=0
dave   publish    *
"""


class ListTestCase(WebTestCase):
    """
    A test with a way to publish and to list.
    """

    def publish(self, *channels, type="text/plain"):
        for channel in channels:
            receipt = self.server.bus.publish(Message(channel, b"x", type))
        return self.successResultOf(receipt).id

    def list(self, path="/msgbus/?list", headers=""):
        code, headers, body = self.server.ask(get(path, headers=headers))
        self.assertEqual(code, 200, body)
        return json.loads(body)

    def names(self, *args, **kwargs):
        return [channel["name"] for channel in self.list(*args, **kwargs)["channels"]]


class ListTests(ListTestCase):
    """
    The list of a bus without users.
    """

    def test_list(self):
        """
        Each channel comes with its subscribers and its last message that is kept.
        """
        id = self.publish("b", "a/b", "b", type='text/plain; x="<>"')
        self.server.bus.subscribe("c", print)
        self.server.bus.subscribe("b", print, count=lambda: 3)
        code, headers, body = self.server.ask(get("/msgbus/?list"))
        self.assertEqual(code, 200)
        self.assertEqual(headers | SAFE, headers)
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(headers["Msgbus-Prefix"], "/msgbus/")
        self.assertNotIn("Link", headers)
        told = json.loads(body)
        self.assertIsNone(told["next"])
        first, second, third = told["channels"]
        self.assertEqual(first["name"], "a/b")
        self.assertRegex(
            first["last"]["time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00\Z"
        )
        self.assertEqual(second["last"]["id"], id)
        self.assertEqual(second["last"]["type"], 'text/plain; x="<>"')
        self.assertEqual((second["name"], second["subscribers"]), ("b", 3))
        self.assertEqual(third, {"name": "c", "subscribers": 1, "last": None})

    def test_time(self):
        """
        The time of a message is that of its id, in UTC.
        """
        message = Message("a", b"").published("1764303153007-5")
        self.server.bus.history.add((1764303153007, 5), message)
        [channel] = self.list()["channels"]
        self.assertEqual(channel["last"]["time"], "2025-11-28T04:12:33.007+00:00")

    def test_none(self):
        """
        A bus without channels has an empty list.
        """
        self.assertEqual(self.list(), {"channels": [], "next": None})

    def test_folder(self):
        """
        The list of a folder has what is below it, and what was published to it.
        """
        self.publish("a", "a/", "a/b", "a/b/c", "ab", "b/a/b")
        self.assertEqual(self.names("/msgbus/a/?list"), ["a/", "a/b", "a/b/c"])
        self.assertEqual(self.names("/msgbus/none/?list"), [])

    def test_pages(self):
        """
        A list comes in pages; each tells where the next one begins, by a link too.
        """
        names = sorted([*map(str, range(7)), "ä &/?%<>\"'+;#"])
        self.publish(*names)
        for limit in (1, 3, 4, 8, 9):
            got, path = [], f"/msgbus/?x=%22y>&list&limit={limit}"
            while path:
                _, headers, body = self.server.ask(get(path))
                told = json.loads(body)
                page = [channel["name"] for channel in told["channels"]]
                self.assertLessEqual(len(page), limit)
                got += page
                path = None
                if told["next"] is not None:
                    self.assertEqual(told["next"], got[-1])
                    query, _, relation = headers["Link"].partition(">; ")
                    self.assertEqual(relation, 'rel="next"')
                    after = quote(got[-1], "")
                    self.assertEqual(query, f"<?x=%22y%3E&list&limit={limit}&after={after}")
                    path = "/msgbus/" + query[1:]
            self.assertEqual(got, names)
        self.assertEqual(self.names("/msgbus/?list&after=5"), ["6", "ä &/?%<>\"'+;#"])

    def test_limit(self):
        """
        A page has 100 channels, if nobody asks for more, and 1,000 at most.
        """
        self.publish(*map(str, range(1200)))
        for limit, count in (("", 100), ("&limit=1000", 1000)):
            self.assertEqual(len(self.names(f"/msgbus/?list{limit}")), count)

    def test_many(self):
        """
        With more channels than are sorted at once, each is listed once.
        """
        names = [f"{number:05}" for number in range(4500)]
        self.publish(*reversed(names))
        self.server.bus.subscribe("00007", print)
        self.assertEqual(self.names("/msgbus/?list&limit=1000"), names[:1000])
        self.assertEqual(self.names("/msgbus/?list&after=04497"), names[-2:])

    def test_pattern(self):
        """
        `channel` chooses names, as it does in a subscription.
        """
        self.publish("a/x", "a/y", "b/x")
        self.assertEqual(self.names("/msgbus/?list&channel=*/x"), ["a/x", "b/x"])
        self.assertEqual(self.names("/msgbus/a/?list=1&channel=!*/x"), ["a/y"])

    def test_head(self):
        """
        HEAD gets the head of the same answer.
        """
        self.publish("a", "b")
        request = get("/msgbus/?list&limit=1")
        _, headers, body = self.server.ask(request)
        code, of_head, nothing = self.server.ask(request.replace("GET", "HEAD"))
        del headers["Date"], of_head["Date"]
        self.assertEqual((code, of_head, nothing), (200, headers, b""))
        self.assertEqual(headers["Content-Length"], str(len(body)))

    def test_bad(self):
        """
        What cannot be listed is refused in a sentence.
        """
        for path, sentence in (
            ("/msgbus/foo?list", "ends in a slash"),
            ("/msgbus/?list&limit=0", "limit of a list is 1 to 1000"),
            ("/msgbus/?list&limit=1001", "1001"),
            ("/msgbus/?list&limit=1&limit=1", "limit"),
            ("/msgbus/?list&limit=", "limit"),
            ("/msgbus/?list&after=a&after=b", "one 'after'"),
            ("/msgbus/?list=yes", "list 'yes'"),
            ("/msgbus/?list&channel=!", "negates"),
            ("/msgbus/?list&after=%ff", "UTF-8"),
        ):
            self.assert_refused(get(path), 400, sentence)

    def test_no_list(self):
        """
        Without `list`, or with `list=0`, the request is for something else.
        """
        for query in ("list=0&", "listen&", "limit=0&after=b&"):
            code, _, _ = self.server.ask(get(f"/msgbus/?{query}format=message&last=0"))
            self.assertEqual(code, 204)

    def test_gone(self):
        """
        Nothing is done any more for a client that has gone.
        """
        peer = self.server.connect()
        peer.send(get("/msgbus/?list"))
        peer.leave(ConnectionDone())
        self.assertEqual(peer.received(), b"")

    def test_closed(self):
        """
        A bus that has stopped lists nothing.
        """
        self.server.resource.close()
        self.assert_refused(get("/msgbus/?list"), 503, "stopping")


class ForeignListTests(ListTestCase):
    """
    Pages of other sites.
    """

    options = {"origins": Origins(["https://a.example"])}

    def test_origin(self):
        """
        A page of an allowed origin may read a list, and others may not.
        """
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            _, headers, _ = self.server.ask(
                get("/msgbus/?list", headers=f"Origin: {origin}\n")
            )
            self.assertEqual("Access-Control-Allow-Origin" in headers, allowed)


class RightsTests(ListTestCase):
    """
    Who is told of which channels.
    """

    options = {
        "users": USERS,
        "rules": RULES,
        "grants": Grants(KEYS, None, lambda: 1000),
    }

    def as_user(self, name, path="/msgbus/?list"):
        return self.names(path, headers=authorization(f"{name}:other"))

    def test_unreadable(self):
        """
        Channels that somebody may not read leave no trace, not even behind the last one
        that they may read.
        """
        self.publish("b/1")
        request = get("/msgbus/?list&limit=1", headers=authorization("bob:other"))
        _, headers, body = self.server.ask(request)
        self.publish("a/1", "a/2", "z")
        self.server.bus.subscribe("a/3", print)
        _, later, same = self.server.ask(request)
        self.assertEqual(same, body)
        self.assertEqual(headers.keys(), later.keys())
        self.assertNotIn("Link", headers)
        self.assertEqual(self.as_user("bob"), ["b/1"])
        self.assertEqual(self.as_user("bob", "/msgbus/?list&after=a"), ["b/1"])
        self.assertEqual(self.as_user("alice"), ["a/1", "a/2", "a/3", "b/1", "z"])

    def test_no_history(self):
        """
        Who may read only what is published from now on is not told of earlier messages.
        """
        self.publish("c/1")
        told = self.list(headers=authorization("bob:other"))["channels"]
        self.assertEqual(told, [{"name": "c/1", "subscribers": 0, "last": None}])

    def test_refused(self):
        """
        Who may read nothing below a folder gets no list of it.
        """
        for who, path, code in (
            ("dave", "", 403),
            ("bob", "a/", 403),
            ("carol", "", 403),
        ):
            headers = authorization(f"{who}:other")
            self.assert_refused(
                get(f"/msgbus/{path}?list", headers=headers), code, "access file lets you"
            )
        self.assert_refused(get("/msgbus/?list"), 401, "password")

    def test_rights_change(self):
        """
        A right that is lost while the list is made gives no list.
        """
        counted = []

        def count():
            counted.append(1)
            self.server.allow(USERS, "alice subscribe *\n")
            return 1

        self.server.bus.subscribe("b/1", print, count=count)
        request = get("/msgbus/?list", headers=authorization("bob:other"))
        self.assert_refused(request, 403, "access file lets you")
        self.assertEqual(counted, [1])

    def link(self, *patterns, **filter):
        channels = Channels(patterns)
        grant = Grant(Channels(()), channels, 2000, "", Filter(**filter))
        return f"link={sign(KEYS, grant)}"

    def test_links(self):
        """
        Who has a link is told of its channels, and only of messages that pass its filter.
        """
        self.publish("a/1", "b/1", type="image/png")
        self.publish("a/2")
        for link, names, types in (
            (self.link("a/*"), ["a/1", "a/2"], ["image/png", "text/plain"]),
            (self.link("a/*", type="image/*"), ["a/1", "a/2"], ["image/png", None]),
            (self.link("b/1"), ["b/1"], ["image/png"]),
            (self.link("x/*"), [], []),
        ):
            channels = self.list(f"/msgbus/?list&{link}")["channels"]
            self.assertEqual([channel["name"] for channel in channels], names)
            told = [(channel["last"] or {}).get("type") for channel in channels]
            self.assertEqual(told, types)
        self.published.clear()
        self.assert_refused(
            get(f"/msgbus/b/?list&{self.link('a/*')}"), 403, "does not let you"
        )
