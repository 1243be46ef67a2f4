#!/usr/bin/env python3
"""
Soaks a real `twistd msgbus` with a history file for minutes or days: publishers and readers
in every form, slow readers, readers that come and go, wrong passwords and garbage, an
operator who looks, and `kill -9` now and then.

In the end, whoever reads has every message once, or was told that it is missing; and
memory, open files, threads and delayed calls are where they were.  If not, the exit code is
1.  A message that was delivered, but neither acknowledged nor written, when the bus was
killed, may be published again under another id.  Run it with the Python into which msgbus
is installed.

    python bench/soak.py --minutes 3
    python bench/soak.py --minutes 30 --rate 300 --kill 240
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from load import Daemon, Progress, print_line
from soaking.admin import Operator
from soaking.ledger import Ledger, Wrong
from soaking.publishers import CHANNELS, PUBLISHERS, Publisher
from soaking.readers import FORMS, Newest, Reader
from soaking.strangers import STRANGERS, Stranger

from tests.integration.ports import free_port

USERS = "alice:$2y$05$Ia1/yEG8t0WTxGKT6S9jD.yS4egKjZP.kFjfBO/EGFgjostPM/rAW\n"
RULES = "alice publish,subscribe *\n"
# What a reader that comes back has missed has to be in the history.
OPTIONS = [
    *("--users", "users", "--access", "access", "--history-file", "history.db"),
    *("--history", "2000", "--rate", "none", "--stall-timeout", "30"),
    *("--max-subscriptions", "none", "--max-address-connections", "none"),
]
COMPLAINTS = ("Traceback", "Unhandled", "CRITICAL", "#error", "Exception")

# Readers that come and go arrive so often, all together.
COMERS_A_SECOND = 20
STAY_SECONDS = (0.2, 1.8)
SLOW = ("drop-newest", "drop-oldest", "latest", "close")
STRANGERS_A_SECOND = 10

SAMPLE_SECONDS = 2
LONG_SAMPLES = 9
# How long readers may take to get the last messages, and the bus to let everything go.
END_SECONDS = 90

# What may be more at the end of a life of the process than in its middle.
GROWTH = {"memory": 12 * 2**20, "files": 40, "threads": 3, "delayed calls": 60}


@dataclass
class Life:
    """
    One process of the bus.

    Attributes:
        samples: By the names of `GROWTH`, one number each `SAMPLE_SECONDS`.
    """

    daemon: Daemon
    samples: dict

    def sample(self):
        """
        Look at the process.
        """
        pid = self.daemon.process.pid
        status = Path(f"/proc/{pid}/status").read_text()
        count = self.daemon.log.count("delayed calls: ")
        os.kill(pid, signal.SIGUSR2)
        delayed = int(self.daemon.wait_for(r"delayed calls: (\d+)", count + 1)[1])
        return {
            "memory": self.daemon.memory(),
            "files": self.daemon.open_files(),
            "threads": int(status.partition("Threads:")[2].split()[0]),
            "delayed calls": delayed,
        }

    @property
    def is_long(self):
        """
        Are there enough samples to see growth?
        """
        return len(self.samples["memory"]) >= LONG_SAMPLES

    def keep(self, sample):
        """
        Keep one of the samples.
        """
        for name, number in sample.items():
            self.samples[name].append(number)

    def compared(self, name):
        """
        The medians of the second and the last third of the samples; the first third is for
        warming up.
        """
        numbers = self.samples[name]
        third = len(numbers) // 3
        return tuple(
            statistics.median(part)
            for part in (numbers[third : 2 * third], numbers[2 * third :])
        )

    def stop(self):
        """
        Stop it as an operator does.
        """
        # What it complains of is among the faults; here it would hide the tables.
        with suppress(AssertionError):
            self.daemon.stop()

    def faults(self):
        """
        Sentences that say what was wrong with this process, which has ended.
        """
        if (code := self.daemon.process.returncode) not in (0, -signal.SIGKILL):
            yield f"It ended with code {code}."
        for complaint in COMPLAINTS:
            if complaint in self.daemon.log:
                at = self.daemon.log.index(complaint)
                yield f"The log has: {self.daemon.log[max(0, at - 200) : at + 1500]}"
        if self.is_long:
            for name, most in GROWTH.items():
                before, after = self.compared(name)
                if after - before > most:
                    yield f"{name.capitalize()} grew from {before:.0f} to {after:.0f}."


class Soak:
    """
    A bus, and all its clients.

    Attributes:
        port: Of the bus.
        ledger: Of what is published.
        ending: Whether publishers and comers shall stop.
        operator: Who looks at all that.
    """

    def __init__(self, folder, options, progress):
        (folder / "users").write_text(USERS)
        (folder / "access").write_text(RULES)
        self._folder = folder
        self._options = options
        self._progress = progress
        self.port = free_port()
        self.operator = Operator(self, free_port())
        self.ledger = Ledger()
        self.lives = []
        self.ending = False
        self._up = asyncio.Event()
        pause = len(PUBLISHERS) / options.rate
        self.publishers = [Publisher(self, form, pause) for form in PUBLISHERS]
        self.steady = [Reader(self, form) for form in FORMS if form != "polls"]
        # Who asks for each message may be slower than they come.
        self.poller = Reader(self, "polls", CHANNELS[0])
        forms, count = list(FORMS), round(COMERS_A_SECOND * sum(STAY_SECONDS) / 2)
        self.comers = [
            Reader(self, forms[n % len(forms)], CHANNELS[n % len(CHANNELS)], STAY_SECONDS)
            for n in range(count)
        ]
        self.slow = [
            Reader(self, form, overflow=overflow)
            for overflow in SLOW
            for form in ("parts", "events", "lines")
        ]
        self.newest = Newest(self)
        pause = len(STRANGERS) / STRANGERS_A_SECOND
        self.strangers = [Stranger(self, name, pause) for name in STRANGERS]

    @property
    def readers(self):
        """
        All whose messages are checked.
        """
        return [*self.steady, self.poller, *self.comers, *self.slow]

    def _start(self):
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        script = Path(__file__).parent / "soaking/counted_twistd.py"
        daemon = Daemon(
            self._folder,
            *("--listen", listen, "--admin", f"tcp:{self.operator.port}", *OPTIONS),
            command=(script, "-n", "--pidfile="),
        )
        return Life(daemon, {name: [] for name in GROWTH})

    async def begin(self):
        """
        Start a process.
        """
        self.lives.append(await asyncio.to_thread(self._start))
        self._up.set()

    def kill(self):
        """
        Kill the process, as a power cut would.
        """
        self._up.clear()
        # Who has sent something before may be told of it later than this.
        self.ledger.kills.append(time.time_ns() // 10**6)
        self.lives[-1].daemon.kill()

    async def alive(self):
        """
        The number of the process, from 1, once there is one that is not killed.
        """
        await self._up.wait()
        return len(self.lives)

    def is_alive(self, life):
        """
        Is the process with this number not killed?
        """
        return self._up.is_set() and len(self.lives) == life

    async def _watch(self):
        """
        Take samples of the process, until cancelled.
        """
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            life = await self.alive()
            try:
                sample = await asyncio.to_thread(self.lives[-1].sample)
            except (OSError, AssertionError, IndexError):
                # It was killed in the meantime.
                if self.is_alive(life):
                    raise
            else:
                self.lives[life - 1].keep(sample)

    async def run(self):
        """
        Do it all, and return sentences that say what was wrong.
        """
        await self.begin()
        await asyncio.sleep(SAMPLE_SECONDS)
        before = await asyncio.to_thread(self.lives[0].sample)
        readers = [asyncio.create_task(r.run()) for r in (*self.readers, self.newest)]
        await asyncio.sleep(SAMPLE_SECONDS)
        publishers = [asyncio.create_task(p.run()) for p in self.publishers]
        others = [asyncio.create_task(s.run()) for s in self.strangers]
        others += [
            asyncio.create_task(coroutine)
            for coroutine in (self._watch(), self.operator.run(), self.operator.watch())
        ]
        every = [*readers, *publishers, *others]
        faults = []
        try:
            await self._until_the_end(every)
            self.ending = True
            await asyncio.wait(publishers, timeout=END_SECONDS)
            check(every)
            await cancel(others)
            await self._finish(every)
            await cancel(every)
            faults += await self._let_go(before)
            faults += self._lost()
        except (Wrong, AssertionError) as error:
            faults.append(str(error))
        finally:
            await cancel(every)
            await asyncio.to_thread(self.lives[-1].stop)
        return faults + [fault for life in self.lives for fault in life.faults()]

    async def _until_the_end(self, tasks):
        """
        Kill the bus again and again, until the time is up.
        """
        begun = now = time.monotonic()
        seconds = self._options.minutes * 60
        due = begun + self._options.kill
        while now < begun + seconds:
            self._progress((now - begun) / seconds)
            check(tasks)
            await asyncio.sleep(0.2)
            now = time.monotonic()
            # The last process lives for as long as the others.
            if due <= now < begun + seconds - self._options.kill / 2:
                self.kill()
                await self.begin()
                due = time.monotonic() + self._options.kill

    async def _finish(self, tasks):
        """
        Publish to each channel until all readers have got something of it.
        """
        end = Publisher(self, "post", 0)
        end.form = "end"
        first = {}
        deadline = time.monotonic() + END_SECONDS
        while left := [r for r in self.readers if not r.record.is_behind(first)]:
            check(tasks)
            if time.monotonic() > deadline:
                names = "; ".join(reader.name for reader in left)
                raise Wrong(f"Readers do not get the last messages: {names}.")
            for channel in CHANNELS:
                id = await end.publish_to(channel)
                first.setdefault(channel, id)
            await asyncio.sleep(0.5)

    async def _let_go(self, before):
        """
        Wait until the bus has what it had before it had clients; sentences that say what it
        still has.
        """
        deadline = time.monotonic() + END_SECONDS
        while True:
            now = await asyncio.to_thread(self.lives[-1].sample)
            more = [n for n in ("files", "delayed calls") if now[n] > before[n] + 2]
            if not more:
                return []
            if time.monotonic() > deadline:
                return [
                    f"{n.capitalize()}: {before[n]} before, {now[n]} now." for n in more
                ]
            await asyncio.sleep(1)

    def _lost(self):
        """
        Sentences that say who has lost what.
        """
        if vanished := self.ledger.vanished():
            some = sorted(vanished)[:5]
            return [f"Nobody has got {len(vanished)} messages, such as {some}."]
        faults = []
        for reader in self.readers:
            if lost := reader.record.check():
                faults.append(f"{reader.name}: lost {len(lost)}, such as {lost[:5]}.")
        for reader in self.steady:
            if reader.record.gaps or reader.record.unknown:
                faults.append(f"{reader.name}: was told of a gap, though it reads.")
        return faults


async def cancel(tasks):
    """
    End tasks.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        # More than once, because what a task awaits may take a cancellation for its own.
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1)


def check(tasks):
    """
    Raise what has ended a task.
    """
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()):
            raise error


def arguments():
    """
    What was asked for on the command line.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3, help="how long it takes [3]")
    parser.add_argument(
        "--rate", type=float, default=200, help="messages that are published a second [200]"
    )
    parser.add_argument(
        "--kill",
        type=float,
        metavar="SECONDS",
        help="how long the bus lives before it is killed [240, or a third of the minutes]",
    )
    options = parser.parse_args()
    if options.kill is None:
        options.kill = min(240, options.minutes * 20)
    return options


def main():
    """
    Soak, and print the tables.
    """
    options = arguments()
    progress = Progress("soak", 1)
    progress.next_run()
    with tempfile.TemporaryDirectory() as folder:

        async def run():
            soak = Soak(Path(folder), options, progress)
            return soak, await soak.run()

        soak, faults = asyncio.run(run())
        print_tables(soak)
    for fault in faults:
        print(f"\n{fault}")
    if faults:
        sys.exit(1)
    print("\nNothing was lost or doubled.")
    if any(life.is_long for life in soak.lives):
        print("Nothing has grown.")


def print_tables(soak):
    """
    What was published and read, who else came, and how each process did.
    """
    print_table(
        (
            "publisher",
            "published",
            "acknowledged",
            "acknowledged late",
            "without an answer",
        ),
        [
            (PUBLISHERS[p.form], p.published, p.acknowledged, p.unsure, p.unanswered)
            for p in soak.publishers
        ],
    )
    rows = []
    for name in dict.fromkeys(reader.name for reader in soak.readers):
        same = [reader for reader in soak.readers if reader.name == name]
        rows.append(
            (
                name,
                len(same),
                sum(r.visits for r in same),
                sum(r.record.received for r in same),
                sum(r.record.gaps for r in same),
                sum(r.record.unknown for r in same),
            )
        )
    rows.append(("the newest message", 1, "", soak.newest.received, "", ""))
    print_table(
        ("reader", "readers", "connections", "received", "told missing", "unknown gaps"),
        rows,
    )
    print_table(("stranger", "visits"), [(s.name, s.visits) for s in soak.strangers])
    print(
        f"\nThe operator looked {soak.operator.looks} times, has got {soak.operator.events}"
        f" lines of events, and has ended {soak.operator.ended} streams."
        f" {soak.ledger.twice} messages were published in two lives."
    )
    print_table(
        ("life of the bus", "seconds", *GROWTH),
        [
            (
                number,
                len(life.samples["memory"]) * SAMPLE_SECONDS,
                *(
                    " → ".join(shown(name, n) for n in life.compared(name))
                    for name in GROWTH
                ),
            )
            for number, life in enumerate(soak.lives, 1)
            if life.is_long
        ],
    )


def shown(name, number):
    """
    A number of a sample as text.
    """
    return f"{number / 2**20:.1f} MB" if name == "memory" else f"{number:.0f}"


def print_table(head, rows):
    """
    Print a table of Markdown.
    """
    print()
    print_line(*head)
    print("|---" * len(head) + "|")
    for row in rows:
        print_line(*map(str, row))


if __name__ == "__main__":
    main()
