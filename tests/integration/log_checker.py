"""
Checks a bus of many nodes from outside: traffic that knows every answer and every message.

Publishers and subscribers are plain HTTP clients, which know nothing of msgbus's own code.
They go to nodes at random, while a test kills what it likes.  In the end, `Traffic.finish`
compares what was acknowledged with what each subscriber has got.
"""

import http.client
import json
import random
import socket
import threading
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

CHANNELS = ["a/b", "a/c", "d"]
NAMES = ["a/b", "a/", ""]

# How long a client waits for an answer, and how long a publisher repeats a publication.
ANSWER_SECONDS = 15
REPEAT_SECONDS = 40
# How long subscribers may take to get the last messages.
END_SECONDS = 60


@dataclass
class Result:
    """
    What became of the messages.

    Attributes:
        acknowledged: How many there were.
        unknown: How many publications had another answer or none, and were not repeated.
        unavailable: How many answers were 503.
        lost: How many acknowledged messages subscribers have missed, together; each behind
            its place in the stream a gap was told.
        gaps: How many gaps were told.
        repeated: How many messages came twice, behind a gap of which nobody knows the size.
        closed: How many streams ended that were not ended by their subscriber.
    """

    acknowledged: int
    unknown: int
    unavailable: int
    lost: int
    gaps: int
    repeated: int
    closed: int

    @property
    def is_whole(self):
        """
        Has everybody got everything once, and was nobody told otherwise?
        """
        return (self.lost, self.gaps, self.repeated) == (0, 0, 0)


def life_of(id):
    """
    The digits of an id that tell in which life of the log it was given.
    """
    return id.partition("-")[2][:6]


def id_of(text):
    """
    An id as numbers, so that ids can be compared.
    """
    return tuple(map(int, text.split("-")))


class Publisher(threading.Thread):
    """
    Publishes numbered messages at random nodes.  Each second one has a key, with which it
    is repeated, anywhere, until it is acknowledged.

    Attributes:
        acknowledged: The ids by body.
        tried: All bodies.
    """

    def __init__(self, name, ports, pause):
        super().__init__(daemon=True)
        self.label, self.ports, self.pause = name, ports, pause
        self.acknowledged, self.tried = {}, {}
        self.answers = Counter()
        self.last_seconds = 0.0
        self.error = None
        self.ending = threading.Event()
        self._connection = None

    def run(self):
        """
        Publish until it is to end.
        """
        try:
            number = 0
            while not self.ending.is_set():
                number += 1
                self.publish(random.choice(CHANNELS), f"{self.label}-{number}", number % 2)
                time.sleep(self.pause)
        except BaseException as error:
            self.error = error

    def publish(self, channel, body, repeat):
        """
        Publish one message.
        """
        self.tried[body] = channel
        headers = {"Content-Type": "text/plain"}
        if repeat:
            headers["Idempotency-Key"] = f'"{body}"'
        deadline = time.monotonic() + REPEAT_SECONDS
        while True:
            status, id = self._post(channel, body, headers)
            self.answers[status] += 1
            if status == 204:
                self.acknowledged[body] = id
                self.last_seconds = time.monotonic()
                return
            assert status in (None, 503), status
            if not repeat or self.ending.is_set():
                return
            assert time.monotonic() < deadline, f"{body} is never acknowledged"
            time.sleep(random.uniform(0.01, 0.2))

    def _post(self, channel, body, headers):
        if self._connection is None or random.random() < 0.02:
            self._close()
            port = random.choice(self.ports)
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=ANSWER_SECONDS
            )
        try:
            self._connection.request("POST", f"/msgbus/{channel}", body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._close()
            return None, ""
        if answer.status != 204:
            self._close()
        return answer.status, answer.headers["Msgbus-Id"]

    def _close(self):
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Subscriber(threading.Thread):
    """
    Reads a channel or folder as lines of JSON, from the beginning.

    Args:
        ports: Of the nodes.
        name: Of the channel or folder.
        wanders: Whether it leaves its node from time to time, by itself.  It resumes behind
            the last message that it has got, at any node.

    Attributes:
        got: In order, the ids, bodies and channels of messages; and gaps, which are counts
            or `unknown`.
        closed: How often its stream was ended by the other side.
    """

    def __init__(self, ports, name, wanders):
        super().__init__(daemon=True)
        self.ports, self.wanted, self.wanders = ports, name, wanders
        self.port = random.choice(ports)
        self.got, self.last, self.closed = [], None, 0
        self.error = None
        self.ending = threading.Event()

    def run(self):
        """
        Read until it is to end.
        """
        try:
            while not self.ending.is_set():
                try:
                    self._connect()
                except OSError:
                    self.port = random.choice(self.ports)
                    time.sleep(random.uniform(0.02, 0.2))
        except BaseException as error:
            self.error = error

    def _connect(self):
        since = "all" if self.last is None else self.last
        query = f"?format=ndjson&since={since}"
        leave = time.monotonic() + random.uniform(0.2, 4) if self.wanders else float("inf")
        with socket.create_connection(("127.0.0.1", self.port), 2) as client:
            request = (
                f"GET /msgbus/{self.wanted}{query} HTTP/1.0\r\nHost: localhost\r\n\r\n"
            )
            client.sendall(request.encode())
            client.settimeout(0.2)
            data, has_head = b"", False
            while not self.ending.is_set():
                if time.monotonic() > leave:
                    self.port = random.choice(self.ports)
                    return
                try:
                    piece = client.recv(1 << 16)
                except TimeoutError:
                    continue
                except OSError:
                    piece = b""
                if not piece:
                    self.closed += has_head
                    raise ConnectionResetError
                data += piece
                if not has_head:
                    head, end, rest = data.partition(b"\r\n\r\n")
                    if not end:
                        continue
                    assert b" 200 " in head.partition(b"\r\n")[0], head
                    data, has_head = rest, True
                *lines, data = data.split(b"\n")
                for line in filter(None, lines):
                    self._take(json.loads(line))

    def _take(self, item):
        if item == {"live": True}:
            return
        if "gap" in item:
            self.got.append(item["gap"])
            return
        self.got.append((item["id"], item["body"], item["channel"]))
        self.last = item["id"]

    def messages(self):
        """
        What it has got, without gaps.
        """
        return [item for item in self.got if isinstance(item, tuple)]

    def bodies(self):
        """
        The bodies of all that it has got.
        """
        return {body for _, body, _ in self.messages()}


class Traffic:
    """
    Publishers and subscribers at all nodes.

    Args:
        ports: Of the nodes, which are restarted at the same ports.
        names: What is subscribed to.
        publishers: How many.
        pause: Seconds between the messages of a publisher.
    """

    def __init__(self, ports, names=NAMES, publishers=4, pause=0.002):
        self.ports = ports
        self.publishers = [Publisher(f"p{n}", ports, pause) for n in range(publishers)]
        self.subscribers = [
            Subscriber(ports, name, wanders) for name in names for wanders in (True, False)
        ]
        for place, subscriber in enumerate(self.subscribers):
            subscriber.port = ports[place % len(ports)]
        # Publishers that have no thread.
        self._ended = []
        for thread in (*self.subscribers, *self.publishers):
            thread.start()

    def wait(self, count=100, seconds=30):
        """
        Wait until so many more messages were acknowledged.
        """
        before = self.acknowledged()
        deadline = time.monotonic() + seconds
        while self.acknowledged() < before + count:
            assert time.monotonic() < deadline, "messages are no longer acknowledged"
            self.check_threads()
            time.sleep(0.02)

    def publish(self, port, count):
        """
        Publish so many more messages at one node.
        """
        publisher = Publisher(f"x{len(self._ended)}", [port], 0)
        for number in range(count):
            publisher.publish(random.choice(CHANNELS), f"{publisher.label}-{number}", True)
        # Not started, because that was all.
        self._ended.append(publisher)

    def acknowledged(self):
        """
        How many messages were acknowledged.
        """
        return sum(len(publisher.acknowledged) for publisher in self.publishers)

    def check_threads(self):
        """
        Raise what has ended a publisher or subscriber.
        """
        for thread in (*self.publishers, *self.subscribers):
            if thread.error is not None:
                raise thread.error

    def finish(self):
        """
        End the traffic, and compare.
        """
        for publisher in self.publishers:
            publisher.ending.set()
        for publisher in self.publishers:
            publisher.join(ANSWER_SECONDS + 5)
            assert not publisher.is_alive()
        end = Publisher("end", self.ports, 0)
        for channel in CHANNELS:
            end.publish(channel, f"end-{channel}", True)
        self._ended.append(end)
        deadline = time.monotonic() + END_SECONDS
        for subscriber in self.subscribers:
            wanted = {
                body
                for body, channel in end.tried.items()
                if covers(subscriber.wanted, channel)
            }
            while not wanted <= subscriber.bodies():
                self.check_threads()
                left = wanted - subscriber.bodies()
                assert time.monotonic() < deadline, (subscriber.wanted, left)
                time.sleep(0.05)
        # What comes twice comes soon.
        time.sleep(0.3)
        for subscriber in self.subscribers:
            subscriber.ending.set()
        for subscriber in self.subscribers:
            subscriber.join(10)
        self.check_threads()
        return self._compare()

    def _compare(self):
        tried, acknowledged, answers = {}, {}, Counter()
        for publisher in (*self.publishers, *self._ended):
            tried |= publisher.tried
            acknowledged |= publisher.acknowledged
            answers += publisher.answers
        by_id, id_of_body = {}, dict(acknowledged)
        lost = gaps = repeated = 0
        for subscriber in self.subscribers:
            for id, body, channel in subscriber.messages():
                # Equal ids and order at all nodes, and the ids that publishers were told.
                assert by_id.setdefault(id, body) == body, (id, body, by_id[id])
                # In another life, a message may be published again that was lost.
                other = id_of_body.setdefault(body, id)
                assert other == id or life_of(other) != life_of(id), (body, id, other)
                assert tried[body] == channel
                assert covers(subscriber.wanted, channel)
        for subscriber in self.subscribers:
            repeated += check_order(subscriber.got)
            gaps += sum(not isinstance(item, tuple) for item in subscriber.got)
            missing = {
                id: body
                for body, id in acknowledged.items()
                if covers(subscriber.wanted, tried[body])
            }
            for id, *_ in subscriber.messages():
                missing.pop(id, None)
            lost += len(missing)
            check_told(missing, subscriber)
        return Result(
            acknowledged=len(acknowledged),
            unknown=len(tried) - len(acknowledged),
            unavailable=answers[503],
            lost=lost,
            gaps=gaps,
            repeated=repeated,
            closed=sum(subscriber.closed for subscriber in self.subscribers),
        )


def covers(name, channel):
    """
    Does a subscriber of this name get what is published to this channel?
    """
    return channel == name or (
        (name == "" or name.endswith("/")) and channel.startswith(name)
    )


def check_order(got):
    """
    Ids grow, and none comes twice.  Only behind a gap of unknown size may a subscriber get
    again what it has, from the beginning.

    Returns:
        How many messages came twice.
    """
    seen, last, repeated, again = set(), (0, 0), 0, False
    for item in got:
        if not isinstance(item, tuple):
            if item == "unknown":
                last, again = (0, 0), True
            continue
        id = id_of(item[0])
        assert id > last, (item, last)
        if id in seen:
            assert again, f"{item} came twice"
            repeated += 1
        seen.add(id)
        last = id
    return repeated


def check_told(missing, subscriber):
    """
    For each missing message, a gap was told behind the last one that came before it.
    """
    place_of_last_gap = -1
    for place, item in enumerate(subscriber.got):
        if not isinstance(item, tuple):
            place_of_last_gap = place
    # A message may come again behind a gap, so the first time counts.
    firsts = {}
    for place, item in enumerate(subscriber.got):
        if isinstance(item, tuple):
            firsts.setdefault(id_of(item[0]), place)
    ids = sorted(firsts)
    # For so many of the smallest ids, the last place.
    last = [-1, *accumulate((firsts[id] for id in ids), max)]
    for id, body in missing.items():
        place = last[bisect_left(ids, id_of(id))]
        assert place_of_last_gap > place, (
            f"{body} with id {id} is missing on {subscriber.wanted!r}, and no gap was told",
            subscriber.got[max(0, place - 3) : place + 5],
        )
