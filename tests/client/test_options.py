"""
Tests for `msgbus.client.options`, and for how the clients take their keyword arguments.
"""

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from msgbus import blocking
from msgbus.client import Client
from msgbus.client.options import Access, Wanted, WantedAndAccess, with_access
from msgbus.client.url import BusURL
from msgbus.message import Invalid

URL = "http://bus.example/msgbus/foo"


class KeywordTests(SynchronousTestCase):
    """
    Keyword arguments that there are, and others.
    """

    def test_unknown(self):
        """
        A keyword that a function does not know is a `TypeError` that names both, as if
        each of its parameters stood in its signature.
        """
        client = Client(MemoryReactorClock(), URL)
        for function, call in (
            ("Client", lambda **more: Client(MemoryReactorClock(), URL, **more)),
            ("subscribe", lambda **more: client.subscribe("foo", print, **more)),
            ("Publisher", lambda **more: blocking.Publisher(URL, **more)),
            ("publish", lambda **more: blocking.publish(URL, b"", "a/b", **more)),
            ("subscribe", lambda **more: blocking.subscribe(URL, **more)),
        ):
            sentence = rf"{function}\(\) got an unexpected keyword argument 'colour'"
            with self.assertRaisesRegex(TypeError, sentence):
                call(colour="red")
        self.successResultOf(client.close())

    def test_known(self):
        """
        Each documented keyword is taken, by each function that is said to take it.
        """
        access = {"user": "a", "password": "b", "ca": None, "certificate": None}
        access["timeout"] = 1
        wanted = {"type": "a/b", "sender": "a", "channel": "a", "since": "1s"}
        wanted |= {"last": 1, "last_of_each": True, "overflow": "latest", "heartbeat": 5}
        wanted |= {"until": "now", "interval": "2s"}
        wanted |= {"header": {"ce-type": "a*"}, "decode": False}
        self.assertEqual(access.keys(), Access.__annotations__.keys())
        self.assertEqual(wanted.keys(), Wanted.__annotations__.keys())
        both = {**wanted, **access}
        self.assertEqual(both.keys(), WantedAndAccess.__annotations__.keys())
        client = Client(MemoryReactorClock(), URL, **access)
        client.subscribe("foo", print, **wanted).cancel()
        blocking.Publisher(URL, **access)
        blocking.subscribe(URL, **both)

    def test_signature_of_publisher(self):
        """
        What is wanted of a subscription is no keyword of a publisher.
        """
        with self.assertRaisesRegex(TypeError, "'heartbeat'"):
            blocking.Publisher(URL, heartbeat=25)


class AccessTests(SynchronousTestCase):
    """
    Where a client goes, and under which name.
    """

    def test_credentials(self):
        """
        The name and the password of a URL come before those that are given beside it.
        """
        given = {"user": "alice", "password": "secret"}
        for url, user, password in (
            ("http://h/", "alice", "secret"),
            ("http://bob@h/", "bob", "secret"),
            ("http://:other@h/", "alice", "other"),
            (BusURL.parse("http://bob:other@h/"), "bob", "other"),
        ):
            told = with_access(url, given)
            self.assertEqual((told.user, told.password), (user, password))
        self.assertEqual(with_access(URL, {}), BusURL.parse(URL))

    def test_refused(self):
        """
        What cannot be a URL, or a name, is refused.
        """
        for url, access in (("foo", {}), (URL, {"user": "a:b"})):
            with self.assertRaises(Invalid):
                with_access(url, access)
