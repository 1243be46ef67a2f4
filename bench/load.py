"""
What the benchmarks share: a real `twistd msgbus` on a processor of its own, connections
to it, the command line, and the table.

What is sent, and what is measured of it, is up to each benchmark.
"""

import argparse
import os
import resource
import socket
import ssl
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.certificates import Authority
from tests.integration.daemon import Daemon
from tests.redis_server import RedisServer

__all__ = [
    "Column",
    "Daemon",
    "Server",
    "arguments",
    "connect",
    "parse",
    "percentiles",
    "processor_seconds",
    "receive",
    "run",
]

SILENCE_SECONDS = 30
CONNECT_SECONDS = 30
READ_BYTES = 64 * 1024
PROGRESS_SECONDS = 0.1
# Files that a process has open beside its connections.
SPARE_FILES = 100


# Options of a server with users and rules, whose files are in its folder, and a header of
# its user.  The limits are so high that they are counted, but not reached.
USERS = (
    *("--users", "users", "--access", "access"),
    *("--rate", "1000000/s", "--max-subscriptions", "1000000"),
)
_FILES = {
    "users": "alice:$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW\n",
    "access": "alice publish,subscribe *\n@anonymous publish,subscribe bench\n",
}
BY_USER = "Authorization: Basic YWxpY2U6c2VjcmV0"


class Server:
    """
    Starts the servers that one run of one row needs.

    Args:
        folder: Where they keep their logs and files.
        python: The interpreter into which the msgbus to measure is installed.
        tls: Whether connections use TLS.
    """

    def __init__(self, folder, python, tls=False):
        self.folder = folder
        self.context = None
        self._python = python
        self._listen = []
        self._processors = sorted(os.sched_getaffinity(0))
        for name, text in _FILES.items():
            (folder / name).write_text(text)
        if tls:
            authority = Authority(folder)
            key = authority.issue("localhost")
            self._listen = ["--listen", f"ssl:0:privateKey={key}:interface=127.0.0.1"]
            self.context = ssl.create_default_context(cafile=authority.file)

    @contextmanager
    def start(self, *arguments):
        """
        Run a `twistd msgbus` with these arguments; it gets the first processor, and the
        load the last, if there are two.
        """
        environment = dict(os.environ)
        if self._python != sys.executable:
            # That server would import the msgbus that PYTHONPATH leads to, not its own.
            environment.pop("PYTHONPATH", None)
        daemon = Daemon(
            self.folder, *self._listen, *arguments, python=self._python, env=environment
        )
        os.sched_setaffinity(daemon.process.pid, {self._processors[0]})
        os.sched_setaffinity(0, {self._processors[-1]})
        try:
            yield daemon
        finally:
            os.sched_setaffinity(0, set(self._processors))
            daemon.stop()

    @contextmanager
    def redis(self):
        """
        Run a Redis that syncs its file each second; it shares the processor of the load.
        """
        redis = RedisServer(self.folder, appendfsync="everysec")
        os.sched_setaffinity(redis.process.pid, {self._processors[-1]})
        try:
            yield redis
        finally:
            redis.kill()


def connect(daemon, context=None):
    """
    A new connection that blocks; its TLS handshake is done.
    """
    connection = socket.create_connection(
        ("127.0.0.1", daemon.port), timeout=CONNECT_SECONDS
    )
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context:
        connection = context.wrap_socket(connection, server_hostname="localhost")
    return connection


def receive(connection):
    """
    What has come on a connection that does not block, or None if nothing has; empty bytes
    mean that the server has closed it.
    """
    try:
        return connection.recv(READ_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError):
        return None


def processor_seconds(server):
    """
    How much processor time this server has had, a `Daemon` or a `RedisServer`.
    """
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentiles(seconds):
    """
    The 50th and the 99th percentile of durations, in milliseconds.
    """
    parts = statistics.quantiles(seconds, n=100)
    return parts[49] * 1000, parts[98] * 1000


class Progress:
    """
    Shows on a terminal how much of a row is done, at most ten times a second.
    """

    def __init__(self, name, runs):
        self._name = name
        self._runs = runs
        self._done = -1
        self._due = 0.0 if sys.stderr.isatty() else float("inf")

    def next_run(self):
        """
        Another run of the row begins.
        """
        self._done += 1

    def __call__(self, share):
        """
        Show that this share of the run is done, from 0 to 1.
        """
        if (now := time.monotonic()) >= self._due:
            self._due = now + PROGRESS_SECONDS
            share = (self._done + share) / self._runs
            print(f"\r{self._name:12}{share:5.0%}", end="\r", file=sys.stderr)


@dataclass(frozen=True)
class Column:
    """
    A column of the table: a figure that each row has.

    Attributes:
        format: How the figure is written, as `format` takes it.
        compared: Whether a comparison shows the ratio of this figure, old / new.
    """

    title: str
    format: str
    compared: bool = False


def arguments(about, rows):
    """
    A parser with the options that all benchmarks have; `about` is the help's first text.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(rows)}; all unless told")
    parser.add_argument(
        "--against",
        metavar="PYTHON",
        help="another interpreter with another msgbus, the old one of a comparison",
    )
    parser.add_argument(
        "--repeat",
        type=int,
        help="runs of each row, of which the table has the medians [1; 3 with --against]",
    )
    parser.add_argument("--quick", action="store_true", help="see that nothing is lost")
    return parser


def parse(parser, rows):
    """
    What was asked for on the command line.
    """
    options = parser.parse_args()
    if unknown := set(options.rows) - set(rows):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.against and not os.access(options.against, os.X_OK):
        parser.error(f"no interpreter: {options.against}")
    return options


def run(rows, options, columns, measure, connections):
    """
    Measure the rows that are asked for, and print the table.

    Args:
        rows: All rows by their names; each has a name in the table, `about`.
        columns: One for each figure.
        measure: Runs a row once.  It is called with the row, the options, a folder, the
            interpreter of the server, and a function that shows the progress; it returns
            a figure for each column.
        connections: How many a row may have open at once.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < connections + SPARE_FILES:
        raise SystemExit(f"{connections} connections take more open files: see ulimit -Hn.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pythons = [sys.executable]
    if options.against:
        # Not resolved: a virtual environment's interpreter is a link.
        pythons.insert(0, os.path.abspath(options.against))
    repeat = options.repeat or (3 if options.against else 1)

    print_line("", *head(columns, options.against))
    print("|---" * (1 + len(head(columns, options.against))) + "|")
    for name in options.rows or rows:
        progress = Progress(name, repeat * len(pythons))
        results = [[] for _ in pythons]
        for _ in range(repeat):
            for python, figures in zip(pythons, results, strict=True):
                progress.next_run()
                with tempfile.TemporaryDirectory() as folder:
                    figures.append(
                        measure(rows[name], options, Path(folder), python, progress)
                    )
        print_line(rows[name].about, *cells(columns, [medians(f) for f in results]))
    print("\nNothing was lost, doubled, or out of order.")


def head(columns, against):
    """
    The titles of the table's columns, behind that of the rows' names.
    """
    titles = [column.title for column in columns]
    if against:
        titles += [f"{column.title}, old / new" for column in columns if column.compared]
    return titles


def medians(runs):
    """
    For each figure, the median of all runs.
    """
    return [statistics.median(figures) for figures in zip(*runs, strict=True)]


def cells(columns, results):
    """
    A row's texts, from the figures of one server, or of two, old and new; for two, their
    ratios follow.
    """
    ratios = []
    for column, *figures in zip(columns, *results, strict=True):
        texts = [format(figure, column.format) for figure in figures]
        yield " → ".join(texts[:1] if len(set(texts)) == 1 else texts)
        if column.compared and len(figures) > 1:
            old, new = figures
            ratios.append(f"{old / new:.2f}" if new else "")
    yield from ratios


def print_line(*texts):
    """
    Print a line of a table of Markdown.
    """
    print("| " + " | ".join(texts) + " |", flush=True)
