"""
Tests for `msgbus.web.documents`.
"""

import os
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import task
from twisted.internet.task import Cooperator
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import static

from msgbus.web.documents import Document, find
from msgbus.web.responses import Refusal

from ..memory import Server
from ..requests import get

# What the field's lists of traversals are made of.
UPS = ["..", "%2e%2e", ".%2e", "%2E.", "..;", "...", "....", "..%00", "..%0d", "%252e%252e"]
UPS += ["%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%uff0e%uff0e", "..%c0%af", "..%5c..", "..\\"]
SLASHES = ["/", "//", "%2f", "%5c", "\\", "/./", "%252f", "%c0%af", "%ef%bc%8f", "/%00/"]


class FakeRequest:
    """
    As much of a request as is looked at before nothing is found.
    """

    method = b"GET"
    uri = b"/nope"
    prepath = (b"nope",)
    postpath = ()


class DocumentTestCase(SynchronousTestCase):
    """
    A document root with something in it, and something secret beside it.
    """

    def setUp(self):
        self.base = Path(self.enterContext(TemporaryDirectory()))
        self.root = self.base / "docroot"
        self.write("docroot-secret/x", b"secret")
        self.write("secret", b"secret")
        self.write("docroot/index.html", b"<h1>hello</h1>")
        self.write("docroot/a b.txt", b"0123456789")
        self.write("docroot/sub/index.html", b"sub")
        self.write("docroot/empty/file.tar.gz", b"\x1f\x8b")
        self.write("docroot/noext", b"?")
        self.write("docroot/.env", b"secret")
        self.write("docroot/.git/config", b"secret")
        self.server = Server(documents=self.root)
        # Files are read in steps, for which Twisted knows one place only.
        steps = Cooperator(
            scheduler=lambda step: self.server.clock.callLater(0, step),
            terminationPredicateFactory=lambda: lambda: False,
        )
        self.patch(task, "_theCooperator", steps)

    def write(self, name, content):
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def get(self, path, headers="", method="GET"):
        return self.server.ask(get(path, headers, method=method))


class DocumentTests(DocumentTestCase):
    """
    What is served.
    """

    def test_served(self):
        """
        A file is served as what its name says, whatever the query; a folder
        by its index.
        """
        for path, content_type, body in (
            ("/", "text/html", b"<h1>hello</h1>"),
            ("/index.html?q=1/../2", "text/html", b"<h1>hello</h1>"),
            ("/a%20b.txt", "text/plain", b"0123456789"),
            ("/sub/", "text/html", b"sub"),
            ("/noext", "application/octet-stream", b"?"),
            ("/empty/file.tar.gz", "application/gzip", b"\x1f\x8b"),
        ):
            code, headers, got = self.get(path)
            self.assertEqual((code, got), (200, body), path)
            self.assertEqual(headers["Content-Type"], content_type)
            self.assertEqual(headers["Content-Length"], str(len(body)))
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertNotIn("Content-Encoding", headers)

    def test_head(self):
        """
        HEAD gets the headers alone.
        """
        code, headers, body = self.get("/a%20b.txt", method="HEAD")
        self.assertEqual((code, headers["Content-Length"], body), (200, "10", b""))

    def test_folder_without_slash(self):
        """
        A folder's name without its slash is redirected, query and all.
        """
        code, headers, _ = self.get("/sub?q=1")
        self.assertEqual((code, headers["Location"]), (308, "/sub/?q=1"))

    def test_not_found(self):
        """
        There is no listing, and nothing where nothing is.
        """
        for path in (
            "/empty/",
            "/x",
            "/index.html/",
            "/index.html/x",
            "/sub//",
            "//",
            "/%FF",
        ):
            code, headers, body = self.get(path)
            self.assertEqual(code, 404, path)
            self.assertEqual(headers["Content-Type"], "text/plain; charset=utf-8")
            self.assertIn(b"/msgbus/", body)

    def test_read_only(self):
        """
        A document can be read only.
        """
        for method in ("POST", "PUT", "DELETE", "BREW"):
            code, headers, _ = self.get("/index.html", method=method)
            self.assertEqual((code, headers["Allow"]), (405, "GET, HEAD"))

    def test_beside_the_bus(self):
        """
        The bus is where it was, whatever the documents have.
        """
        self.write("docroot/msgbus/foo", b"not me")
        code, headers, _ = self.get("/msgbus/foo")
        self.assertEqual(code, 200)
        self.assertIn("boundary", headers["Content-Type"])

    def test_not_modified(self):
        """
        One who has it is told that it is as it was.
        """
        _, headers, _ = self.get("/index.html")
        since = f"If-Modified-Since: {headers['Last-Modified']}\n"
        self.assertEqual(self.get("/index.html", since)[0], 304)
        for since in ("yesterday", "\xff", "Thu, 99 Xxx 1970 00:00:00 GMT"):
            self.assertEqual(
                self.get("/index.html", f"If-Modified-Since: {since}\n")[0], 200
            )

    def test_ranges(self):
        """
        A range is served.
        """
        for asked, told, body in (
            ("bytes=2-4", "bytes 2-4/10", b"234"),
            ("bytes=7-", "bytes 7-9/10", b"789"),
            ("bytes=-3", "bytes 7-9/10", b"789"),
            ("bytes=-99", "bytes 0-9/10", b"0123456789"),
            ("bytes=5-99", "bytes 5-9/10", b"56789"),
        ):
            code, headers, got = self.get("/a%20b.txt", f"Range: {asked}\n")
            self.assertEqual(
                (code, headers["Content-Range"], got), (206, told, body), asked
            )
        code, headers, _ = self.get("/a%20b.txt", "Range: bytes=10-\n")
        self.assertEqual((code, headers["Content-Range"]), (416, "bytes */10"))
        code, headers, body = self.get("/a%20b.txt", "Range: bytes=0-0, 9-9\n")
        self.assertEqual(code, 206)
        self.assertIn("multipart/byteranges", headers["Content-Type"])

    def test_no_ranges(self):
        """
        What is no range, or too many of them, gets the whole file.
        """
        many = "bytes=" + ",".join(["0-"] * 9)
        for asked in ("bytes=0-1\xff", many, "bytes=", "bytes=a-b", "bytes=-", "lines=1-2"):
            self.assertEqual(self.get("/a%20b.txt", f"Range: {asked}\n")[0], 200, asked)
        for asked in ("bytes=4-2", f"bytes={'9' * 19}-", "bytes=0-1\nRange: bytes=0-1"):
            self.assertEqual(self.get("/a%20b.txt", f"Range: {asked}\n")[0], 200, asked)
        self.assertEqual(self.get("/a%20b.txt", "Range: bytes=0-1\nIf-Range: x\n")[0], 200)

    def test_empty_file(self):
        """
        An empty file has no ranges.
        """
        self.write("docroot/void", b"")
        self.assertEqual(self.get("/void")[0], 200)
        for asked in ("-1", "0-", "0-1,3-4", "-1,-1", "0-,0-"):
            self.assertEqual(self.get("/void", f"Range: bytes={asked}\n")[0], 416, asked)

    def test_ranges_behind_the_end(self):
        """
        Of several ranges, those that the file has are served.
        """
        for asked in ("10-,20-", "99-100,10-10"):
            self.assertEqual(
                self.get("/a%20b.txt", f"Range: bytes={asked}\n")[0], 416, asked
            )
        code, headers, body = self.get("/a%20b.txt", "Range: bytes=20-,2-3,-0\n")
        self.assertEqual(
            (code, body, headers["Content-Range"]), (206, b"23", "bytes 2-3/10")
        )

    def test_growing(self):
        """
        A file that grows while it is sent is sent as long as was told: the
        rest could pose as the next answer.
        """
        self.write("docroot/log", b"x" * 10)
        getsize = static.File.getsize
        self.patch(static.File, "getsize", lambda self: getsize(self) - 4)
        _, headers, body = self.get("/log")
        self.assertEqual((headers["Content-Length"], body), ("6", b"x" * 6))

    def test_shrinking(self):
        """
        A file that shrinks while it is sent ends the connection: nothing else
        tells the reader.
        """
        self.write("docroot/log", b"x" * 10)
        getsize = static.File.getsize
        self.patch(static.File, "getsize", lambda self: getsize(self) + 4)
        peer = self.server.connect()
        peer.send(get("/log"))
        self.assertEqual(peer.answer()[1]["Content-Length"], "14")
        self.assertTrue(peer.closed)

    def test_leaves_nothing(self):
        """
        What is not found leaves nothing behind.
        """
        with self.assertRaises(Refusal) as first:
            Document(self.root)._serve(FakeRequest())
        with self.assertRaises(Refusal) as second:
            Document(self.root)._serve(FakeRequest())
        self.assertIsNot(first.exception, second.exception)


class EscapeTests(DocumentTestCase):
    """
    What is not served.
    """

    def assert_hidden(self, path):
        code, _, body = self.get(path)
        self.assertIn(code, (400, 404), path)
        self.assertNotIn(b"secret", body, path)

    def test_traversals(self):
        """
        No way of writing "the folder above" leads out.
        """
        targets = ["secret", "docroot-secret/x", "docroot-secret%2fx", "etc/passwd"]
        for up, slash, target in product(UPS, SLASHES, targets):
            for depth in (1, 8):
                steps = (up + slash) * depth
                for start in ("/", "/sub/", "//"):
                    self.assert_hidden(start + steps + target)

    def test_absolute(self):
        """
        An absolute path is none.
        """
        secret = str(self.base / "secret")
        for path in (
            secret,
            "/" + secret,
            "/" + secret.replace("/", "%2f"),
            "/file:" + secret,
        ):
            self.assert_hidden(path)

    def test_original(self):
        """
        A folder whose name begins as the root's does is not in it.
        """
        self.assert_hidden("/../docroot-secret/x")

    def test_dots(self):
        """
        What begins with a dot is nobody's business.
        """
        for path in (
            "/.env",
            "/.git/config",
            "/%2eenv",
            "/sub/../.env",
            "/.",
            "/./index.html",
        ):
            self.assert_hidden(path)

    def test_links(self):
        """
        A link may lead about inside the root, but not out, nor to what begins
        with a dot, nor in circles.
        """
        for name, target in (
            ("out", "../secret"),
            ("outside", "../docroot-secret"),
            ("absolute", self.base / "secret"),
            ("hidden", ".env"),
            ("loop", "loop"),
            ("dangling", "nowhere"),
        ):
            (self.root / name).symlink_to(target)
        for path in (
            "/out",
            "/outside/x",
            "/absolute",
            "/hidden",
            "/loop",
            "/dangling",
            "/loop/x",
        ):
            self.assert_hidden(path)
        (self.root / "inside").symlink_to("sub")
        self.assertEqual(self.get("/inside/")[2], b"sub")

    def test_no_files(self):
        """
        Pipes, sockets and devices are not opened, or the server would wait.
        """
        os.mkfifo(self.root / "pipe")
        (self.root / "null").symlink_to("/dev/null")
        for path in ("/pipe", "/null"):
            self.assert_hidden(path)

    def test_unreadable(self):
        """
        What cannot be opened is not there, and no bug.
        """
        from msgbus.web import documents

        def refuse(self):
            raise PermissionError(13, "not yours")

        self.patch(documents.static.File, "openForReading", refuse)
        self.assert_hidden("/index.html")

    def test_strange(self):
        """
        NULs, line ends, and names that no file has are not there.
        """
        for path in (
            "/%00",
            "/index.html%00.txt",
            "/%0a",
            "/" + "x" * 5000,
            "/%F0%9F%92%A9",
        ):
            self.assert_hidden(path)

    @given(
        st.lists(st.text() | st.sampled_from([".", "..", "sub", "index.html"]), min_size=1)
    )
    def test_any_path(self, segments):
        """
        Any segments name a file inside, a folder, or nothing.
        """
        found = find(self.root, segments)
        if found is not None:
            self.assertTrue(found.is_relative_to(self.root.resolve()))
            self.assertTrue(found.is_file() or found.is_dir())
