"""
A site of a stranger's.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """
    A server at an origin of its own.
    """

    def __init__(self, handler):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.origin = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        """
        Serve no longer.
        """
        self._server.shutdown()
        self._server.server_close()


class Canary(Site):
    """
    A server that serves what it is told to, and notes who asks.

    Attributes:
        pages: By their paths, each a media type and its content.
        heard: The methods and paths of requests, and "connection" for each connection.
    """

    def __init__(self):
        self.pages = {}
        self.heard = []
        canary = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self):
                super().setup()
                canary.heard.append("connection")

            def answer(self):
                canary.heard.append(f"{self.command} {self.path}")
                media_type, content = canary.pages.get(self.path, ("text/plain", "x"))
                body = content.encode()
                self.send_response(200)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_HEAD = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        super().__init__(Handler)
