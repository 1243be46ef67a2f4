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

# The spellings that lists of path traversals try.
UPS = ["..", "%2e%2e", ".%2e", "%2E.", "..;", "...", "....", "..%00", "..%0d", "%252e%252e"]
UPS += ["%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%uff0e%uff0e", "..%c0%af", "..%5c..", "..\\"]
SLASHES = ["/", "//", "%2f", "%5c", "\\", "/./", "%252f", "%c0%af", "%ef%bc%8f", "/%00/"]


class FakeRequest:
    """
    The attributes of a request that are read before its document is not found.
    """

    method = b"GET"
    uri = b"/nope"
    prepath = (b"nope",)
    postpath = ()


class DocumentTestCase(SynchronousTestCase):
    """
    A folder of documents, with secret files beside it and hidden ones inside.
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
        # Twisted reads files in steps, which a global cooperator schedules.
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
    Documents that are served, and how.
    """

    def test_served(self):
        """
        A file is served with the content type of its name, whatever the query; a folder, by
        its index.
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
        HEAD is answered with the headers alone.
        """
        code, headers, body = self.get("/a%20b.txt", method="HEAD")
        self.assertEqual((code, headers["Content-Length"], body), (200, "10", b""))

    def test_folder_without_slash(self):
        """
        The name of a folder without the slash at its end redirects to the one with it, and
        keeps the query.
        """
        code, headers, _ = self.get("/sub?q=1")
        self.assertEqual((code, headers["Location"]), (308, "/sub/?q=1"))

    def test_not_found(self):
        """
        A path that names no file is answered with 404, and so is a folder without an index.
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
        Methods other than GET and HEAD are refused with 405.
        """
        for method in ("POST", "PUT", "DELETE", "BREW"):
            code, headers, _ = self.get("/index.html", method=method)
            self.assertEqual((code, headers["Allow"]), (405, "GET, HEAD"))

    def test_beside_the_bus(self):
        """
        A document whose path begins as that of the bus does not hide the bus.
        """
        self.write("docroot/msgbus/foo", b"not me")
        code, headers, _ = self.get("/msgbus/foo")
        self.assertEqual(code, 200)
        self.assertIn("boundary", headers["Content-Type"])

    def test_not_modified(self):
        """
        A client that has the current file is answered with 304; a date that cannot be read
        is ignored.
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
        A range of a file is served with 206, several as multipart, and one behind the end
        is refused with 416.
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
        A `Range` that is malformed, has too many ranges, or comes with `If-Range` is
        ignored, and the whole file served.
        """
        many = "bytes=" + ",".join(["0-"] * 9)
        for asked in ("bytes=0-1\xff", many, "bytes=", "bytes=a-b", "bytes=-", "lines=1-2"):
            self.assertEqual(self.get("/a%20b.txt", f"Range: {asked}\n")[0], 200, asked)
        for asked in ("bytes=4-2", f"bytes={'9' * 19}-", "bytes=0-1\nRange: bytes=0-1"):
            self.assertEqual(self.get("/a%20b.txt", f"Range: {asked}\n")[0], 200, asked)
        self.assertEqual(self.get("/a%20b.txt", "Range: bytes=0-1\nIf-Range: x\n")[0], 200)

    def test_empty_file(self):
        """
        Any range of an empty file is refused with 416.
        """
        self.write("docroot/void", b"")
        self.assertEqual(self.get("/void")[0], 200)
        for asked in ("-1", "0-", "0-1,3-4", "-1,-1", "0-,0-"):
            self.assertEqual(self.get("/void", f"Range: bytes={asked}\n")[0], 416, asked)

    def test_ranges_behind_the_end(self):
        """
        Of several ranges, those that lie within the file are served.
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
        A file that grows while it is sent is sent up to its announced length, since the
        client would take more bytes for the next answer.
        """
        self.write("docroot/log", b"x" * 10)
        getsize = static.File.getsize
        self.patch(static.File, "getsize", lambda self: getsize(self) - 4)
        _, headers, body = self.get("/log")
        self.assertEqual((headers["Content-Length"], body), ("6", b"x" * 6))

    def test_shrinking(self):
        """
        If a file shrinks while it is sent, the connection is closed, since nothing else
        tells the client that bytes are missing.
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
        Each request for what is not found raises an exception of its own, so that no
        traceback is kept.
        """
        with self.assertRaises(Refusal) as first:
            Document(self.root)._serve(FakeRequest())
        with self.assertRaises(Refusal) as second:
            Document(self.root)._serve(FakeRequest())
        self.assertIsNot(first.exception, second.exception)


class EscapeTests(DocumentTestCase):
    """
    Paths that try to reach what is not to be served.
    """

    def assert_hidden(self, path):
        code, _, body = self.get(path)
        self.assertIn(code, (400, 404), path)
        self.assertNotIn(b"secret", body, path)

    def test_traversals(self):
        """
        No spelling of "the folder above" leads out of the document root.
        """
        targets = ["secret", "docroot-secret/x", "docroot-secret%2fx", "etc/passwd"]
        for up, slash, target in product(UPS, SLASHES, targets):
            for depth in (1, 8):
                steps = (up + slash) * depth
                for start in ("/", "/sub/", "//"):
                    self.assert_hidden(start + steps + target)

    def test_absolute(self):
        """
        An absolute path of the file system leads nowhere.
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
        A folder beside the document root whose name begins with that of the root is not
        served.
        """
        self.assert_hidden("/../docroot-secret/x")

    def test_dots(self):
        """
        Files and folders whose names begin with a dot are not served.
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
        A link is followed inside the document root, but not out of it, not to a name that
        begins with a dot, and not in circles.
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
        Pipes and devices are not opened, because the server would block.
        """
        os.mkfifo(self.root / "pipe")
        (self.root / "null").symlink_to("/dev/null")
        for path in ("/pipe", "/null"):
            self.assert_hidden(path)

    def test_unreadable(self):
        """
        A file that cannot be opened is answered with 404, and nothing is logged as a bug.
        """
        from msgbus.web import documents

        def refuse(self):
            raise PermissionError(13, "not yours")

        self.patch(documents.static.File, "openForReading", refuse)
        self.assert_hidden("/index.html")

    def test_strange(self):
        """
        Paths with NULs, line ends, or names that no file has are answered with 404.
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
        Any segments name a file or folder inside the document root, or nothing.
        """
        found = find(self.root, segments)
        if found is not None:
            self.assertTrue(found.is_relative_to(self.root.resolve()))
            self.assertTrue(found.is_file() or found.is_dir())
