"""
Requests as text, for the server in `memory`.

Lines end in a bare line feed, which `Peer.send` sends as CRLF.
"""

from base64 import b64encode

HOST = "Host: localhost:8888\n"


def get(path="/msgbus/foo", headers="", version="1.1", method="GET", host=HOST):
    """
    A request without a body; by default, one that subscribes to a channel.
    """
    return f"{method} {path} HTTP/{version}\n{host}{headers}\n"


def post(path="/msgbus/foo", body="hello", headers="Content-Type: text/plain\n", host=HOST):
    """
    A request that publishes.
    """
    length = len(body.encode())
    return f"POST {path} HTTP/1.1\n{host}{headers}Content-Length: {length}\n\n{body}"


def basic(credentials):
    """
    The value of the `Authorization` header for this user and password, parted by a colon;
    text or bytes.
    """
    if isinstance(credentials, str):
        credentials = credentials.encode()
    return f"Basic {b64encode(credentials).decode()}"


def authorization(credentials):
    """
    The line of that header.
    """
    return f"Authorization: {basic(credentials)}\n"
