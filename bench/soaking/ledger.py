"""
What was published, what of it was acknowledged, and whether each reader got it.

The order of all messages is that of their ids, whoever got them.  No I/O.
"""

from array import array

__all__ = ["Ledger", "Record", "Wrong", "body_of"]

UNKNOWN = -(1 << 30)
BODY_BYTES = 1500


class Wrong(Exception):
    """
    The bus did something that it must not do.
    """


def body_of(name, number):
    """
    The body of a publisher's message, of which the length differs from one to the next.
    """
    return f"{name}:{number}:" + "x" * (number * 7919 % BODY_BYTES)


def pair_of(id):
    """
    An id as a pair of numbers, by which messages are in order.
    """
    milliseconds, _, number = id.partition("-")
    return int(milliseconds), int(number)


class Ledger:
    """
    All messages of the soak.  Each has a serial number here, because that is smaller than
    its id.

    Attributes:
        kills: When the bus was killed, in milliseconds since 1970.
        twice: How many messages were published in two lives of the process.
    """

    def __init__(self):
        self._serials = {}
        self._ids, self._names, self._channels = [], [], []
        self._by_name = {}
        self._sure, self._sure_names = set(), set()
        self.kills = []
        self.twice = 0

    def serial(self, id, body, channel):
        """
        The serial number of a message that somebody has got; `Wrong` if others have got
        something else by that id.
        """
        name = self._checked(body)
        if (serial := self._serials.get(id)) is not None:
            if (self._names[serial], self._channels[serial]) != (name, channel):
                raise Wrong(f"{id} is {name} on {channel}, and {self._names[serial]}")
            return serial
        return self._add(id, name, channel)

    def acknowledge(self, id, body, channel):
        """
        A publisher was told that its message has this id, and will survive a kill.
        """
        self._sure.add(self.serial(id, body, channel))

    def acknowledge_names(self, names):
        """
        A publisher was told that these were published, but not their ids.
        """
        self._sure_names.update(names)

    def is_sure(self, serial):
        """
        Was this message acknowledged?
        """
        return serial in self._sure or self._names[serial] in self._sure_names

    def vanished(self):
        """
        The names of acknowledged messages that nobody has got.
        """
        return self._sure_names - self._by_name.keys()

    def _checked(self, body):
        publisher, number, _ = body.split(":", 2)
        if body != body_of(publisher, int(number)):
            raise Wrong(f"Somebody has got {body[:100]!r}, which nobody has published.")
        return f"{publisher}:{number}"

    def _add(self, id, name, channel):
        pair = pair_of(id)
        if name in self._by_name:
            # Only a kill may have it published again: the first time was not written.
            before, after = sorted((pair[0], self._ids[self._by_name[name]][0]))
            if not any(before <= kill <= after for kill in self.kills):
                raise Wrong(f"{name} was published twice: {id} is the second id.")
            self.twice += 1
        serial = self._serials[id] = self._by_name[name] = len(self._ids)
        self._ids.append(pair)
        self._names.append(name)
        self._channels.append(channel)
        return serial

    def id(self, serial):
        """
        The id as a pair of numbers, by which messages are in order.
        """
        return self._ids[serial]

    def order(self, channel):
        """
        The serial numbers of a channel's messages, or of all if it is None, in order.
        """
        chosen = (
            serial
            for serial, name in enumerate(self._channels)
            if channel is None or name == channel
        )
        return sorted(chosen, key=self.id)

    def __len__(self):
        return len(self._ids)

    def name(self, serial):
        """
        Which message it is.
        """
        return self._names[serial]


class Record:
    """
    What one reader has got, which may have had many connections.

    Args:
        ledger: Of the soak.
        channel: Which it reads; None for all.

    Attributes:
        last: The id of its last message, behind which it resumes; None before the first.
        last_pair: The same id as a pair of numbers.
        received: How many messages it has got.
        gaps: How many messages it was told to have missed.
    """

    def __init__(self, ledger, channel):
        self._ledger = ledger
        self._channel = channel
        self._got = array("q")
        self.last_pair = (0, 0)
        self.last = None
        self.received = self.gaps = self.unknown = 0

    def message(self, id, body, channel):
        """
        It has got a message; `Wrong` if it has it already, or one behind it.
        """
        serial = self._ledger.serial(id, body, channel)
        pair = self._ledger.id(serial)
        if pair <= self.last_pair:
            raise Wrong(f"{id} came behind {self.last}.")
        self._got.append(serial)
        self.last_pair, self.last = pair, id
        self.received += 1

    def gap(self, count):
        """
        It was told that it has missed so many messages, or "unknown".
        """
        if count == "unknown":
            self._got.append(UNKNOWN)
            self.unknown += 1
        else:
            # A serial number is not negative.
            self._got.append(-int(count))
            self.gaps += int(count)

    def is_behind(self, ids):
        """
        Has it got the messages with these ids by channel, or something behind them?
        """
        wanted = [pair_of(ids[name]) for name in ids if self._channel in (None, name)]
        return bool(wanted) and self.last_pair >= max(wanted)

    def resume(self):
        """
        It connects again.  What it was told to have missed behind its last message does not
        count, because the new stream begins there.
        """
        while self._got and self._got[-1] < 0:
            gap = self._got.pop()
            if gap == UNKNOWN:
                self.unknown -= 1
            else:
                self.gaps += gap

    def check(self):
        """
        The names of acknowledged messages that it has neither got nor was told to have
        missed; `Wrong` if it was told of more than it has missed.
        """
        order = self._ledger.order(self._channel)
        places = {serial: place for place, serial in enumerate(order)}
        lost, place, told, unknown = [], -1, 0, False
        for item in self._got:
            if item == UNKNOWN:
                unknown = True
                continue
            if item < 0:
                told -= item
                continue
            missed = order[place + 1 : places[item]]
            sure = [serial for serial in missed if self._ledger.is_sure(serial)]
            if not unknown and told < len(sure):
                lost += map(self._ledger.name, sure[: len(sure) - told])
            if told > len(missed):
                raise Wrong(f"A gap of {told} was told, where {len(missed)} are missing.")
            place, told, unknown = places[item], 0, False
        return lost
