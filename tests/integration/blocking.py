"""
Raw clients over sockets that block, for tests in which nothing else goes on.
"""

import socket

GET = b"GET /msgbus/foo HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /msgbus/foo HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"


def raw(bus, data=b"", host="127.0.0.1"):
    """
    A connection that has sent this.
    """
    client = socket.create_connection((host, bus.port), timeout=30)
    client.sendall(data)
    return client


def rest_of(client):
    """
    All that comes until the other end closes.
    """
    data = bytearray()
    while piece := client.recv(1 << 20):
        data += piece
    return bytes(data)


def publish(client, body, path=b"foo"):
    """
    Publish on a connection, and wait for the 204.
    """
    post = POST.replace(b"foo", path)
    client.sendall(post + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 204 "), answer
