"""
Tests for `msgbus.access.addresses`.
"""

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.access.addresses import FORWARDED, TrustedProxies, network_of
from msgbus.message import Invalid

PROXY = "10.0.0.1"
XFF = TrustedProxies.parse("10.0.0.0/8, 2001:db8:1::/48,unix")
RFC7239 = TrustedProxies.parse("10.0.0.0/8", "Forwarded")

hostile = st.text('for=",;:[]\\. \t10a_%', max_size=40)


class TrustTests(SynchronousTestCase):
    """
    Which proxies are trusted.
    """

    def test_parse(self):
        """
        A list has addresses, networks, and Unix sockets.
        """
        for peer in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::5", "2001:DB8:1::5%eth0"):
            self.assertTrue(XFF.trusts(peer), peer)
        for peer in ("11.0.0.1", "2001:db8:2::5", "", "proxy", "10.1.2", "::10.1.2.3"):
            self.assertFalse(XFF.trusts(peer), peer)
        self.assertTrue(XFF.trusts(None))
        self.assertFalse(RFC7239.trusts(None))
        self.assertEqual(RFC7239.header, FORWARDED)

    def test_nobody(self):
        """
        Unless told, nobody is trusted.
        """
        self.assertFalse(TrustedProxies().trusts("127.0.0.1"))
        self.assertFalse(TrustedProxies().trusts(None))

    def test_refused(self):
        """
        What is no network, or would be a larger one than it seems, is refused.
        """
        for text in (
            "",
            ",",
            "proxy.example",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "*",
            "10.0.0.01",
        ):
            with self.assertRaises(Invalid):
                TrustedProxies.parse(text)
        with self.assertRaises(Invalid):
            TrustedProxies.parse("10.0.0.1", "X-Real-IP")


class ClientTests(SynchronousTestCase):
    """
    The address of a client.
    """

    def assert_client(self, expected, *values, proxies=XFF, peer=PROXY):
        self.assertEqual(proxies.client(peer, values), expected, values)

    def test_peer(self):
        """
        A client that is no proxy is itself, whatever it says.
        """
        self.assert_client("192.0.2.1", "127.0.0.1", peer="192.0.2.1")
        self.assert_client("127.0.0.1", "6.6.6.6", peer="::ffff:127.0.0.1")
        self.assert_client("fe80::1", peer="fe80::1%eth0")
        self.assert_client("6.6.6.6", "127.0.0.1", proxies=TrustedProxies(), peer="6.6.6.6")

    def test_rightmost(self):
        """
        Behind proxies, it is the rightmost address that is no proxy's, so that what the
        client has sent itself does not count.
        """
        self.assert_client("192.0.2.1", "192.0.2.1")
        self.assert_client("192.0.2.1", "127.0.0.1, 10.6.6.6, 192.0.2.1")
        self.assert_client("192.0.2.1", "127.0.0.1", "192.0.2.1, 10.0.0.7", "10.0.0.8")
        self.assert_client("192.0.2.1", "127.0.0.1", "192.0.2.1", peer=None)

    def test_all_trusted(self):
        """
        If all are proxies, it is the leftmost; without the header, the peer.
        """
        self.assert_client("10.9.9.9", "10.9.9.9, 10.0.0.7")
        self.assert_client(PROXY)
        self.assert_client(PROXY, "", " , ")
        self.assert_client(None, peer=None)

    def test_forms(self):
        """
        An address may have a port, and an IPv6 address brackets; it is written in its
        shortest form.
        """
        for value, expected in (
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:DB8::0:1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ):
            self.assert_client(expected, value)
            quoted = f'for="{value}";proto=https'
            self.assert_client(expected, quoted, proxies=RFC7239)

    def test_unknown(self):
        """
        If what a proxy says is no address, the client has none: neither the proxy's, nor
        one that it has sent itself.
        """
        for value in (
            "unknown",
            "_hidden",
            "client.example",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.01",
            "192.0.2.1:x",
            "192.0.2.1:123456",
            "[192.0.2.1",
            "2001:db8::1]",
            "1:2:3:4:5:6:7:8:9",
            "fe80::1%eth0",
            "٣.٣.٣.٣",
            "1.2.3.4 5.6.7.8",
            "1.2.3.4\0",
        ):
            self.assert_client(None, f"127.0.0.1, {value}")
            self.assert_client(None, f'for=127.0.0.1, for="{value}"', proxies=RFC7239)
            self.assert_client(None, f"127.0.0.1, {value}, 10.0.0.2")

    def test_forwarded(self):
        """
        The header of RFC 7239 is read with its parameters in any order, and names in any
        case.
        """
        for value in (
            "for=192.0.2.1",
            "For=192.0.2.1;proto=https;by=10.0.0.1",
            'proto=https ; FOR="192.0.2.1:80";host="a, b"',
            'for=6.6.6.6, host="x;for=6.6.6.6;y";for=192.0.2.1, for=10.0.0.3',
            "for=192.0.2.1,,",
            r'for="\192.0.2.1"',
        ):
            self.assert_client("192.0.2.1", value, proxies=RFC7239)

    def test_broken_forwarded(self):
        """
        An element of a proxy that names no client, or several, or is malformed, gives none.
        """
        for value in (
            "proto=https",
            "for=6.6.6.6, proto=https",
            'for=6.6.6.6, host=";for=6.6.6.6;x"',
            "for=6.6.6.6;for=6.6.6.6",
            "for=",
            "for",
            'for="192.0.2.1',
            "for=192.0.2.1:80",
            "for=[2001:db8::1]",
            "xfor=6.6.6.6",
            f'for=192.0.2.1;host="{"," * 17}"',
        ):
            self.assert_client(None, value, proxies=RFC7239)

    def test_open_quotation_mark(self):
        """
        What a client has sent does not swallow what a proxy has added to it.
        """
        for sent in (
            'for="',
            'for="6.6.6.6',
            'for=6.6.6.6;x="',
            'a="\\',
            'for="x", for="',
            '"',
            ",;=",
        ):
            for added in (
                "for=192.0.2.1",
                'for="192.0.2.1:80";host="a.example"',
                'for=192.0.2.1;host="a, for=6.6.6.6"',
                'for=192.0.2.1;host="\\", for=\\"6.6.6.6"',
                'host=";for=6.6.6.6;a=";for=192.0.2.1',
            ):
                self.assert_client("192.0.2.1", f"{sent}, {added}", proxies=RFC7239)
                self.assert_client("192.0.2.1", sent, added, proxies=RFC7239)

    @given(hostile, st.sampled_from(["192.0.2.1", "2001:db8::1", "127.0.0.1"]))
    def test_nothing_is_believed(self, sent, address):
        """
        Whatever a client sends, its address is the one that the proxy has added.
        """
        self.assert_client(address, sent, address)
        self.assert_client(address, f"{sent}, {address}")
        self.assert_client(
            address,
            sent,
            f'for="[{address}]"' if ":" in address else f"for={address}",
            proxies=RFC7239,
        )

    @given(hostile)
    def test_garbage(self, value):
        """
        Any header gives an address, or none, and raises nothing.
        """
        for proxies in (XFF, RFC7239):
            found = proxies.client(PROXY, [value])
            self.assertEqual(found is None, network_of(found) == "unknown")

    def test_other_header(self):
        """
        Only the header that was configured is meant: what looks like the other is unknown.
        """
        self.assert_client(None, "for=127.0.0.1")
        self.assert_client(None, "127.0.0.1", proxies=RFC7239)

    def test_bounded(self):
        """
        Only the end of a long header is read, up to 32 proxies, in little time.
        """
        self.assert_client("192.0.2.1", "1, " * 100_000 + "192.0.2.1")
        self.assert_client("10.0.0.2", *["10.0.0.2"] * 31)
        self.assert_client(None, "127.0.0.1", *["10.0.0.2"] * 32)
        # What was cut off may have been the real one.
        self.assert_client(None, "127.0.0.1" + " " * 5000 + ", 10.0.0.2")
        self.assert_client(None, "1" * 5000 + "1.2.3.4" + "," * 4089)
        began = time.perf_counter()
        for value in (
            'a="' * 2000,
            "a=b;" * 2000,
            "," * 6000,
            'a="\\' * 2000,
            'for=10.0.0.1;a=",,,,,,,,,,,,,,,",' * 200,
            '"' + ",a=b" * 2000,
        ):
            RFC7239.client(PROXY, [value])
        self.assertLess(time.perf_counter() - began, 0.5)


class NetworkTests(SynchronousTestCase):
    """
    What stands for an address where limits are counted.
    """

    def test_networks(self):
        """
        It is the address for IPv4, also as IPv6, and a network with 64 bits for IPv6; there
        is one for all whose address is not known.
        """
        for address, network in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            (None, "unknown"),
            ("", "unknown"),
            ("/run/msgbus.sock", "unknown"),
        ):
            self.assertEqual(network_of(address), network)

    @given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
    def test_one_household(self, address, other):
        """
        Addresses that differ in their last 64 bits count as one.
        """
        if address.ipv4_mapped is None:
            sibling = type(address)(int(address) >> 64 << 64 | other)
            if sibling.ipv4_mapped is None:
                self.assertEqual(network_of(str(address)), network_of(str(sibling)))
