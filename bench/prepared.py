"""
Prepared requests: the bytes that publish a numbered message, in several variants, made
before the server is measured; and a check that a stream has all messages.

No I/O.
"""

import base64
import json
import re

from load import BY_USER

__all__ = [
    "BODY_BYTES",
    "CHUNKED",
    "END",
    "ENDLESS",
    "begin_lines",
    "begin_parts",
    "body",
    "by_user",
    "check",
    "chunked",
    "closing",
    "enveloped",
    "numbers_in",
    "of_many_lengths",
    "part",
    "part_in_chunk",
    "part_of_many_lengths",
    "plain",
    "post",
    "raw",
    "text_line",
    "upgrade",
    "with_key",
    "with_many_heads",
    "with_new_head",
]

BODY_BYTES = 100
LENGTHS = range(20, 220, 10)
CHANNELS, TYPES, SENDERS = 10, ("plain", "html", "css", "csv"), 5

# The end of each body: the publisher, and the number of the message among its own.  Nothing
# else in a stream has the last byte, so counting that counts messages.
END = b"$"
MARK = b"~%04d%08d$"
NUMBERS = re.compile(rb"~(\d{4})(\d{8})\$")

# How a request says how long its body is: a stream that never ends has either the length of
# ten terabytes, or chunks.
ENDLESS = "Content-Length: 10000000000000"
CHUNKED = "Transfer-Encoding: chunked"

# The opcode of a text frame, and a key to mask it with (RFC 6455, section 5.3).
TEXT, MASK = 0x1, b"\x37\xfa\x21\x3d"

TRAVELLING = (
    "ce-specversion: 1.0",
    "ce-type: com.example.made",
    "ce-source: /shop",
    "X-Room: attic",
)


def body(place, number, size=BODY_BYTES):
    """
    The body of a message, from the publisher at this place.
    """
    return (MARK % (place, number)).rjust(size, b"x")


def numbers_in(stream):
    """
    The publisher and the number of each message in a stream.
    """
    return [(int(place), int(number)) for place, number in NUMBERS.findall(stream)]


def check(stream, counts):
    """
    See that a stream has so many messages of each publisher, each once and in order.
    """
    due = [0] * len(counts)
    for place, number in numbers_in(stream):
        if number != due[place]:
            raise SystemExit(
                f"Message {number} of publisher {place} came where {due[place]} was due."
            )
        due[place] += 1
    if due != list(counts):
        raise SystemExit(f"{sum(counts) - sum(due)} messages did not come.")


def post(body, *lines, channel="bench", type="plain", method="POST"):
    """
    A request that publishes, with the headers that curl sends and these lines besides.
    """
    head = [
        f"{method} /msgbus/{channel} HTTP/1.1",
        "Host: localhost",
        *lines,
        "User-Agent: curl/8.14.1",
        "Accept: */*",
        f"Content-Type: text/{type}",
    ]
    if "Transfer-Encoding: chunked" in lines:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def plain(place, number):
    """
    Every request has the same head.
    """
    return post(body(place, number))


def of_many_lengths(place, number):
    """
    Bodies have 20 different lengths in turn.
    """
    return post(body(place, number, LENGTHS[number % len(LENGTHS)]))


def with_many_heads(place, number):
    """
    Requests have 200 different heads in turn: channel, type and sender vary.
    """
    rest, channel = divmod(number, CHANNELS)
    rest, type = divmod(rest, len(TYPES))
    user = base64.b64encode(b"user%d:" % (rest % SENDERS)).decode()
    return post(
        body(place, number),
        f"Authorization: Basic {user}",
        channel=f"bench/{channel}",
        type=TYPES[type],
    )


def with_new_head(place, number):
    """
    Each request has a header that no other has, so a cache of heads never helps.
    """
    return post(body(place, number), f"Request-Number: {place}-{number}")


def with_headers(place, number):
    """
    Every request has the same head, with four headers that travel with the message.
    """
    return post(body(place, number), *TRAVELLING)


def by_user(place, number):
    """
    Every request has the same head, with a name and a password.
    """
    return post(body(place, number), BY_USER)


def with_key(place, number):
    """
    Each request has an `Idempotency-Key`, as the clients that come with msgbus send it.
    """
    return post(body(place, number), f"Idempotency-Key: {place:016x}{number:016x}")


def chunked(place, number):
    """
    The body is chunked, as `curl -T -` sends it.
    """
    return post(body(place, number), "Transfer-Encoding: chunked", method="PUT")


def closing(place, number):
    """
    Each request asks the server to close the connection.
    """
    return post(body(place, number), "Connection: close")


def frame(payload):
    """
    A text frame from a WebSocket client (RFC 6455, section 5.2), of less than 64 KiB.
    """
    size = len(payload)
    key = MASK * (size // len(MASK) + 1)
    masked = int.from_bytes(payload) ^ int.from_bytes(key[:size])
    if size < 126:
        head = bytes([0x80 | TEXT, 0x80 | size])
    else:
        head = bytes([0x80 | TEXT, 0x80 | 126]) + size.to_bytes(2)
    return head + MASK + masked.to_bytes(size)


def enveloped(place, number):
    """
    A WebSocket frame with an envelope that asks for a receipt.
    """
    text = body(place, number).decode()
    told = {"type": "text/plain", "channel": "bench", "body": text, "ack": number}
    return frame(json.dumps(told).encode())


def raw(place, number):
    """
    A WebSocket frame that is nothing but the body.
    """
    return frame(body(place, number))


def upgrade(target):
    """
    The request that opens a WebSocket there.
    """
    return (
        f"GET /msgbus/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def begin_stream(target, type, length):
    """
    The head of a request whose body is a stream, and which is answered line by line.
    """
    return (
        f"POST /msgbus/{target} HTTP/1.1\r\nHost: localhost\r\n"
        f"Accept: application/x-ndjson\r\nContent-Type: {type}\r\n{length}\r\n\r\n"
    ).encode()


def begin_parts(length):
    """
    The head of a request that publishes a multipart stream.
    """
    return begin_stream("bench", "multipart/x-mixed-replace; boundary=B", length)


def begin_lines():
    """
    The head of a request that publishes lines.
    """
    return begin_stream("bench?format=ndjson&raw=1", "application/x-ndjson", ENDLESS)


def framed(body):
    """
    A part of a multipart stream.
    """
    return b"--B\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s\r\n" % (
        len(body),
        body,
    )


def part(place, number):
    """
    All parts have the same headers.
    """
    return framed(body(place, number))


def part_of_many_lengths(place, number):
    """
    Parts have 20 different lengths in turn.
    """
    return framed(body(place, number, LENGTHS[number % len(LENGTHS)]))


def part_in_chunk(place, number):
    """
    Each part is a chunk of its own, as if its publisher flushed after each.
    """
    framed_part = part(place, number)
    return b"%x\r\n%s\r\n" % (len(framed_part), framed_part)


def text_line(place, number):
    """
    A line that is nothing but the body.
    """
    return body(place, number) + b"\n"
