"""
Programs of others that publish streams: ffmpeg, GStreamer, curl, tail and jq.
"""

import http.client
import json
import re
import subprocess
import time
from itertools import islice, takewhile

import pytest

from msgbus.client.blocking import publish, subscribe

FRAMES = 15
CAMERA = f"ffmpeg -loglevel error -re -f lavfi -i testsrc=rate=10 -frames:v {FRAMES}"
MPJPEG = "-f mpjpeg -method POST -content_type 'multipart/x-mixed-replace;boundary=ffmpeg'"

PARTS = "-H 'Content-Type: multipart/x-mixed-replace'"
LINES = "-H 'Content-Type: application/x-ndjson'"


def is_jpeg(body):
    """
    Is this one whole picture?
    """
    return (
        body[:2] == b"\xff\xd8"
        and body[-2:] == b"\xff\xd9"
        and b"\xff\xd9" not in body[:-2]
    )


def kept(bus):
    """
    All messages that a bus has kept.
    """
    last = publish(bus.url + "end", b"", "a/end").id
    messages = takewhile(
        lambda message: message.id != last, subscribe(bus.url, since="all")
    )
    return [message for message in messages if message.content_type != "a/end"]


def finish(process, code=0):
    """
    What a command printed, which has to end with this code.
    """
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (out, err)
    return out


class TestFFmpeg:
    """
    ffmpeg, as it publishes a camera.
    """

    def test_camera(self, bus, shell):
        """
        Each frame is published as it is made, as one whole picture, and another ffmpeg that
        reads the channel decodes the same frames.
        """
        # Not all, because some versions end only when they are sent one more.
        read = FRAMES - 5
        hashes = f"-frames:v {read} -fps_mode passthrough -f framemd5 -"
        ffmpeg = "ffmpeg -loglevel error -threads 1"
        reader = shell(f"{ffmpeg} -f mpjpeg -i {bus.url}cam {hashes}")
        bus.wait_for("subscribes to 'cam'")
        publisher = shell(f"{CAMERA} {MPJPEG} {bus.url}cam")
        messages = subscribe(bus.url + "cam", since="all")
        pictures = [next(messages)]
        assert publisher.poll() is None
        pictures += islice(messages, FRAMES - 1)
        finish(publisher)
        assert all(is_jpeg(picture.body) for picture in pictures)
        assert {picture.content_type for picture in pictures} == {"image/jpeg"}
        decoded = re.findall("[0-9a-f]{32}", finish(reader))
        assert len(set(decoded)) == read
        expected = subprocess.run(
            f"{ffmpeg} -f mjpeg -i - {hashes}".split(),
            input=b"".join(picture.body for picture in pictures),
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert decoded == re.findall("[0-9a-f]{32}", expected.stdout.decode())

    def test_password(self, start, shell):
        """
        The name and the password are those of the URL; without them, ffmpeg ends with an
        error while the camera still runs.
        """
        bus = start("--secret", "x")
        url = bus.url.replace("//", "//alice:x@")
        finish(shell(f"{CAMERA} {MPJPEG} {url}cam"))
        messages = islice(subscribe(url + "cam", since="all"), FRAMES)
        assert {message.sender for message in messages} == {"alice"}
        endless = CAMERA.partition(" -frames")[0]
        stranger = shell(f"{endless} {MPJPEG} {bus.url}other")
        stranger.communicate(timeout=30)
        assert stranger.returncode != 0
        publish(url + "other", b"", "a/end")
        assert next(subscribe(url + "other", since="all")).content_type == "a/end"

    def test_too_large(self, start, shell):
        """
        A picture that is too large ends the stream, and then ffmpeg, with an error.
        """
        bus = start("--max-message", "5000")
        endless = CAMERA.partition(" -frames")[0]
        publisher = shell(f"{endless} -q:v 1 {MPJPEG} {bus.url}cam")
        publisher.communicate(timeout=30)
        assert publisher.returncode != 0
        assert kept(bus) == []


class TestGStreamer:
    """
    GStreamer's multipartmux.
    """

    PIPELINE = "gst-launch-1.0 -q videotestsrc num-buffers=10 ! jpegenc ! multipartmux"

    @pytest.mark.parametrize(
        ("mux", "content_type"),
        [
            ("", "multipart/x-mixed-replace"),
            ("boundary=frame", "multipart/x-mixed-replace; boundary=frame"),
            ("boundary=frame", "multipart/x-mixed-replace; boundary=--frame"),
        ],
    )
    def test_by_curl(self, bus, shell, mux, content_type):
        """
        Through curl, each frame is a message, whether the boundary is named or not.
        """
        curl = f"curl -sST - -H 'Content-Type: {content_type}' {bus.url}cam"
        answer = json.loads(finish(shell(f"{self.PIPELINE} {mux} ! fdsink | {curl}")))
        messages = kept(bus)
        assert (answer["published"], answer["id"]) == (10, messages[-1].id)
        assert len(messages) == 10
        assert all(is_jpeg(message.body) for message in messages)

    def test_souphttpclientsink(self, bus, shell):
        """
        By itself, GStreamer cannot say of what type its stream is, and cuts it into many
        requests, so all are refused.
        """
        finish(shell(f"{self.PIPELINE} ! souphttpclientsink location={bus.url}cam"))
        assert kept(bus) == []


class TestBridges:
    """
    Buses that curl connects.
    """

    def bridge(self, shell, source, target, folder=""):
        """
        Publish at one bus what is published at another.
        """
        count = len(re.findall("subscribes to", source.log))
        shell(f"curl -sN {source.url}{folder} | curl -sT - {PARTS} {target.url}{folder}")
        source.wait_for("subscribes to", count + 1)

    def test_bridge(self, start, shell):
        """
        Every message arrives as it was, and says from where it comes.
        """
        here, there = start("-v"), start("-v")
        self.bridge(shell, here, there)
        messages = subscribe(there.url, since="all")
        for channel, body, content_type in (
            ("a b/ä", b"\r\n--x\r\n\0", "application/octet-stream"),
            ("foo/", "ü".encode(), "text/plain; charset=utf-8"),
            ("foo", b"", "text/plain"),
        ):
            id = publish(here.url + channel, body, content_type, user="älice").id
            copy = next(messages)
            assert (copy.channel, copy.sender) == (channel, "älice")
            assert (copy.content_type, copy.body) == (content_type, body)
            assert re.fullmatch(rf"\d+/{id}", copy.origin)

    def test_folder(self, start, shell):
        """
        A bridge of a folder copies only that.
        """
        here, there = start("-v"), start("-v")
        self.bridge(shell, here, there, "sensors/")
        publish(here.url + "other", b"1", "a/b")
        publish(here.url + "sensors/attic", b"2", "a/b")
        message = next(subscribe(there.url, since="all"))
        assert (message.channel, message.body) == ("sensors/attic", b"2")

    def test_ring(self, start, shell):
        """
        In a ring of buses, each message comes once to each.
        """
        buses = [start("-v", "--history", "1000") for _ in range(3)]
        for place in range(3):
            self.bridge(shell, buses[place - 1], buses[place])
        for number in range(100):
            for place, bus in enumerate(buses):
                publish(f"{bus.url}from{place}", b"%d" % number, "a/b")
        for bus in buses:
            for _ in islice(subscribe(bus.url, since="all"), 300):
                pass
        # Time for what has to come no more.
        time.sleep(0.5)
        expected = sorted((f"from{p}", b"%d" % n) for p in range(3) for n in range(100))
        for bus in buses:
            assert sorted((m.channel, m.body) for m in kept(bus)) == expected


class TestRecordings:
    """
    What curl has recorded, and publishes again.
    """

    BODIES = (b"hello", b"", b"\r\n--msgbus\r\n" * 5)

    @pytest.fixture
    def recording(self, bus, shell, tmp_path):
        """
        A recording of a folder of this bus.
        """
        for number, body in enumerate(self.BODIES):
            publish(f"{bus.url}a/{number}", body, "text/plain", user="alice")
        file = tmp_path / "recording"
        recorder = shell(f"exec curl -sN '{bus.url}a/?since=all' -o recording")
        deadline = time.monotonic() + 30
        while not file.exists() or file.read_bytes().count(b"\r\n--msgbus\r\n" * 5) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        recorder.terminate()
        return file

    @pytest.mark.parametrize("how", ["-T - <", "--data-binary @"])
    def test_replay(self, bus, start, shell, recording, how):
        """
        A recording is published again at another bus, once.
        """
        other = start()
        command = f"curl -sS {PARTS} {other.url}a/ {how}{recording}"
        answers = [json.loads(finish(shell(command))) for _ in range(2)]
        messages = kept(other)
        assert messages == [m for m in kept(bus) if m.channel.startswith("a/")]
        id = messages[-1].id
        assert answers == [
            {"published": 3, "repeated": 0, "id": id},
            {"published": 0, "repeated": 3, "id": id},
        ]

    def test_onto_itself(self, bus, shell, recording):
        """
        The bus that was recorded knows its own messages, and publishes none of them.
        """
        command = f"curl -sST - {PARTS} {bus.url}a/ <{recording}"
        answer = json.loads(finish(shell(command)))
        assert (answer["published"], answer["repeated"]) == (0, 3)
        assert len(kept(bus)) == 3

    def test_cut(self, start, recording):
        """
        Cut anywhere, the messages before the cut are published; if it is in the middle of a
        message, the answer says so.
        """
        other = start()
        data = recording.read_bytes()
        ends = [
            head.end() + int(head[1])
            for head in re.finditer(rb"Content-Length: (\d+)\r\n(?s:.*?)\r\n\r\n", data)
        ]
        client = http.client.HTTPConnection("localhost", other.port, timeout=30)
        delimiter = data.index(b"\n") + 1
        for cut in range(len(data) + 1):
            headers = {"Content-Type": "multipart/x-mixed-replace"}
            client.request("POST", "/msgbus/", data[:cut], headers)
            response = client.getresponse()
            answer = json.loads(response.read())
            whole = [end for end in ends if end <= cut]
            assert answer["published"] + answer["repeated"] == len(whole), cut
            begins = (whole[-1] + 2 if whole else 0) + delimiter
            # What the bus itself says begins no message.
            is_told = data[:cut].endswith(b"\r\nMsgbus-Live: 1\r\n")
            if cut in whole or cut == begins or is_told:
                assert response.status == 200, cut
            elif cut > begins:
                assert (response.status, answer["part"]) == (400, len(whole) + 1), cut


class TestLines:
    """
    Lines, of which each is a message.
    """

    def test_log(self, bus, shell, tmp_path):
        """
        Each line of a log is published when it is complete, also after the log was rotated.
        """
        log = tmp_path / "access.log"
        log.write_text("one\ntw")
        url = f"'{bus.url}logs/web?format=ndjson&raw=1&type=text/plain'"
        shell(f"tail -n +1 -F access.log | curl -sT - {LINES} {url}")
        messages = subscribe(bus.url + "logs/web", since="all")
        assert next(messages).body == b"one"
        with log.open("a") as file:
            file.write("o\n")
        assert next(messages).body == b"two"
        log.rename(tmp_path / "access.log.1")
        log.write_text("three\n")
        message = next(messages)
        assert (message.body, message.content_type) == (b"three", "text/plain")

    def test_jq(self, bus, shell):
        """
        jq makes messages for channels of a folder.
        """
        program = '{channel: "sensors/\\(.name)", type: "text/plain", body: "\\(.value)"}'
        say = (
            """printf '{"name": "attic", "value": 21.5}\n{"name": "cellar", "value": 9}'"""
        )
        curl = f"curl -sST - {LINES} '{bus.url}sensors/?format=ndjson'"
        answer = json.loads(finish(shell(f"{say} | jq -c '{program}' | {curl}")))
        assert answer["published"] == 2
        assert [(m.channel, m.body) for m in kept(bus)] == [
            ("sensors/attic", b"21.5"),
            ("sensors/cellar", b"9"),
        ]

    def test_jq_between(self, bus, start, shell):
        """
        jq changes messages on their way to another bus; without their ids, also to another
        channel of the same.
        """
        other = start()
        read = f"curl -sN '{bus.url}a?format=ndjson'"
        for target, program in (
            (other, '.body |= ascii_upcase | .channel = "b"'),
            (bus, 'del(.id, .origin) | .body |= ascii_upcase | .channel = "b"'),
        ):
            jq = f"jq -c --unbuffered '{program}'"
            curl = f"curl -sT - {LINES} '{target.url}?format=ndjson'"
            shell(f"{read} | {jq} | {curl}")
        bus.wait_for("subscribes to 'a'", 2)
        publish(bus.url + "a", b"hello", "text/plain", user="alice")
        for target in (other, bus):
            message = next(subscribe(target.url + "b", since="all"))
            assert (message.sender, message.body) == ("alice", b"HELLO")


class TestProxy:
    """
    Streams through nginx.
    """

    # Two lines, with a pause between them; nothing follows the second one for a while.
    SLOW = "(echo one; sleep 1; echo two; sleep 1)"

    def publisher(self, shell, port, options="", say=SLOW):
        """
        Publish lines through nginx.
        """
        url = f"'https://localhost:{port}/msgbus/foo?format=ndjson&raw=1'"
        return shell(f"{say} | curl -sSkNT - {LINES} {options} {url}")

    def test_block(self, start, proxy, shell):
        """
        With the block of docs/proxies.md, each message comes at once, and so does its
        receipt.
        """
        bus = start("--host", "chat.example")
        publisher = self.publisher(shell, proxy(bus), "-H 'Accept: application/x-ndjson'")
        messages = subscribe(bus.url + "foo", since="all")
        for body in (b"one", b"two"):
            message = next(messages)
            assert message.body == body
            assert json.loads(publisher.stdout.readline())["id"] == message.id
            assert publisher.poll() is None
        assert json.loads(publisher.stdout.readline())["published"] == 2

    def test_large(self, start, proxy, shell):
        """
        A stream may be larger than one message may be.
        """
        bus = start("--host", "chat.example")
        say = "(for i in 1 2 3; do head -c 700000 /dev/zero | tr '\\0' x; echo; done)"
        answer = json.loads(finish(self.publisher(shell, proxy(bus), say=say)))
        assert answer["published"] == 3

    def test_silent(self, start, proxy, shell):
        """
        A stream that is silent for longer than the time-outs of the block is cut, and what
        came before was published.
        """
        bus = start("--host", "chat.example")
        say = "(echo one; sleep 4; echo two)"
        publisher = self.publisher(shell, proxy(bus, seconds=1), say=say)
        publisher.communicate(timeout=30)
        assert [message.body for message in kept(bus)] == [b"one"]

    @pytest.mark.parametrize(
        "directives",
        [
            "proxy_http_version 1.1;",
            "proxy_request_buffering off; proxy_http_version 1.0;",
        ],
    )
    def test_buffered(self, start, proxy, shell, directives):
        """
        Without `proxy_request_buffering off`, or over HTTP/1.0, nothing is published before
        the end of the stream, and then everything.
        """
        bus = start("--host", "chat.example")
        location = f"{directives} proxy_pass http://127.0.0.1:8888;"
        publisher = self.publisher(shell, proxy(bus, location=location))
        time.sleep(0.7)
        assert kept(bus) == []
        assert json.loads(finish(publisher))["published"] == 2
        assert [message.body for message in kept(bus)] == [b"one", b"two"]
