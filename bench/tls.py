#!/usr/bin/env python3
"""
Measures TLS beside that of nginx with nchan, which is written in C: the processor time of
the server for a delivery and for a handshake, and the memory of an idle subscriber.

Run it with the Python into which msgbus is installed, on Linux, with nginx and its module
nchan (Debian: nginx-light, libnginx-mod-nchan).  Both servers have the same certificate,
and one processor each time; the load gets another, if there are two.  It ends with an error
if a message was lost, doubled or out of order.

    python bench/tls.py
    python bench/tls.py --subscribers 500 --repeat 5
"""

import argparse
import contextlib
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from fanout import Load, Row
from load import CONNECT_SECONDS, Server, connect, percentiles, processor_seconds

from tests.integration.ports import free_port, wait_for_port

HANDSHAKES = 1000
IDLE = 1000
MESSAGES = 200
# While so many subscribers get so many messages a second, so many others connect.
CROWD, RATE, ARRIVING = 1000, 50, 2000 / 60

NGINX = """
daemon off; master_process off; user root; pid {folder}/pid; error_log {folder}/error.log;
{modules}
events {{ worker_connections 10000; }}
http {{
    access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    keepalive_requests 1000000; nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} ssl backlog=1024;
        ssl_certificate {file}; ssl_certificate_key {file};
        location = /msgbus/bench {{
            nchan_publisher; nchan_subscriber http-chunked; nchan_channel_id bench;
            nchan_message_buffer_length 100;
        }}
        location / {{ return 204; }}
    }}
}}
"""
MODULES = Path("/etc/nginx/modules-enabled")


class Nginx:
    """
    One nginx of one process, to be measured as a `Daemon` is.
    """

    def __init__(self, folder, file, processor):
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
        if nginx is None:
            raise SystemExit("There is no nginx; see --help.")
        self.port = free_port()
        modules = "".join(
            conf.read_text() for conf in MODULES.glob("*.conf") if "nchan" in conf.name
        )
        text = NGINX.format(folder=folder, port=self.port, file=file, modules=modules)
        (folder / "nginx.conf").write_text(text)
        self.process = subprocess.Popen([nginx, "-c", folder / "nginx.conf"])
        os.sched_setaffinity(self.process.pid, {processor})
        if not wait_for_port(self.port):
            raise SystemExit((folder / "error.log").read_text())

    def memory(self):
        """
        Bytes of its memory that no other process shares.
        """
        return memory(self.process.pid)


def memory(pid):
    """
    Bytes of the memory of a process, each shared page by its share.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("This needs /proc/PID/smaps_rollup.")


@contextlib.contextmanager
def serving(kind, folder):
    """
    A server of this kind, and how its clients verify it.
    """
    server = Server(folder, sys.executable, tls=True)
    file = folder / "localhost.pem"
    processors = sorted(os.sched_getaffinity(0))
    many = ("--max-backlog", "100000000", "--max-address-connections", "10000")
    if kind == "msgbus":
        with server.start(*many, "--max-subscriptions", "10000") as daemon:
            yield daemon, server.context
        return
    nginx = Nginx(folder, file, processors[0])
    os.sched_setaffinity(0, {processors[-1]})
    try:
        yield nginx, server.context
    finally:
        os.sched_setaffinity(0, set(processors))
        nginx.process.terminate()
        nginx.process.wait(30)


def fan_out(daemon, context, subscribers, in_flight):
    """
    Microseconds of the server's processor for a delivery.
    """
    row = Row("", scheme="https", publishers=in_flight, headers="TE: chunked\r\n")
    load = Load(daemon, row, 100, context)
    try:
        for place in range(subscribers):
            load.subscribe()
            if place % 16 == 0:
                load.look(0)
        while load.ready < subscribers:
            load.look(0.05)
        load.settle()
        load.deliveries = 0
        before = processor_seconds(daemon)
        for _ in range(MESSAGES):
            while not load.idle:
                load.look(1)
            # As many at once as may be in flight.
            load.publish()
        load.settle()
        return (processor_seconds(daemon) - before) / load.deliveries * 1e6
    finally:
        load.close()


def handshakes(daemon, context, is_resumed):
    """
    How many handshakes a second of the server's processor are done.
    """
    session = None
    if is_resumed:
        with connect(daemon, context) as first:
            first.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            # The tickets come before it.
            first.recv(65536)
            session = first.session
    before = processor_seconds(daemon)
    for _ in range(HANDSHAKES):
        raw = socket.create_connection(("127.0.0.1", daemon.port), CONNECT_SECONDS)
        with context.wrap_socket(
            raw, server_hostname="localhost", session=session
        ) as client:
            if client.session_reused != is_resumed:
                raise SystemExit("The handshake was not as it should be.")
    return HANDSHAKES / (processor_seconds(daemon) - before)


def idle(daemon, context):
    """
    KiB of memory for a subscriber that gets nothing.
    """
    clients = []

    def subscribe(count):
        for _ in range(count):
            clients.append(connect(daemon, context))
            clients[-1].sendall(
                b"GET /msgbus/bench HTTP/1.1\r\nHost: localhost\r\nTE: chunked\r\n\r\n"
            )
            clients[-1].recv(65536)
        time.sleep(0.5)
        return memory(daemon.process.pid)

    # What is there once does not count.
    before = subscribe(IDLE // 5)
    after = subscribe(IDLE)
    for client in clients:
        client.close()
    return (after - before) / IDLE / 1024


def crowd(daemon, context, seconds=10):
    """
    The 99th percentile, in milliseconds, of the time that a message takes to one of many
    subscribers: alone, and while others connect.
    """
    row = Row("", scheme="https", headers="TE: chunked\r\n")
    load = Load(daemon, row, 100, context)
    for _ in range(CROWD):
        load.subscribe()
        load.look(0)
    while load.ready < CROWD:
        load.look(0.05)
    load.settle()
    ended = threading.Event()

    def arrive():
        due = time.monotonic()
        while not ended.is_set():
            connect(daemon, context).close()
            due += 1 / ARRIVING
            ended.wait(max(0, due - time.monotonic()))

    found = []
    for beside in (False, True):
        arriving = threading.Thread(target=arrive)
        if beside:
            arriving.start()
        load.latencies.clear()
        due = time.perf_counter()
        for _ in range(int(seconds * RATE)):
            due += 1 / RATE
            while (left := due - time.perf_counter()) > 0 or not load.idle:
                load.look(max(0, left))
            load.publish()
        load.settle()
        ended.set()
        if beside:
            arriving.join()
        found.append(percentiles(load.latencies)[1])
        ended.clear()
    load.close()
    return found


def main():
    """
    Measure what is asked for.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subscribers", type=int, nargs="*", default=[500, 2000])
    parser.add_argument("--repeat", type=int, default=3, help="medians of so many runs [3]")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    rows = {
        f"{count:,} subscribers, {in_flight} in flight: CPU µs/delivery": partial(
            fan_out, subscribers=count, in_flight=in_flight
        )
        for count in options.subscribers
        for in_flight in (1, 8)
    }
    rows["handshakes/s"] = partial(handshakes, is_resumed=False)
    rows["handshakes/s, resumed"] = partial(handshakes, is_resumed=True)
    rows["KiB/idle subscriber"] = idle
    print("| | nginx | msgbus | nginx / msgbus |\n|---|---|---|---|", flush=True)
    for about, figure in rows.items():
        found = {"nginx": [], "msgbus": []}
        for _ in range(options.repeat):
            for kind, figures in found.items():
                with (
                    tempfile.TemporaryDirectory() as folder,
                    serving(kind, Path(folder)) as server,
                ):
                    figures.append(figure(*server))
        nginx, msgbus = (statistics.median(figures) for figures in found.values())
        print(
            f"| {about} | {nginx:,.1f} | {msgbus:,.1f} | {nginx / msgbus:.2f} |", flush=True
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("msgbus", Path(folder)) as server,
    ):
        alone, beside = crowd(*server)
    print(
        f"\n{CROWD:,} subscribers, {RATE} messages/s: p99 {alone:.1f} ms alone,"
        f" {beside:.1f} ms while {ARRIVING * 60:,.0f} connect a minute"
    )


if __name__ == "__main__":
    main()
