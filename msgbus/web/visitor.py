"""
Who has sent a request, and what they may do.

No I/O.  What the rules say is up to `access.rules`; names and passwords are up to `auth`.
"""

from __future__ import annotations

from ..access.rule_limits import NO_LIMITS, RuleLimits
from ..access.rules import Rules, Verb
from ..access.users import Users
from ..bus.bus import TooLarge
from ..match import EVERYTHING, Filter
from ..message import Message, is_folder

__all__ = ["BASIC", "Access", "Denied", "Visitor"]

# The challenge to somebody for whom a name and a password may help (RFC 7617, section 2).
BASIC = 'Basic realm="msgbus"'


class Denied(Exception):
    """
    Somebody may not do what they ask for.  The text is one sentence that says why.

    Attributes:
        status: 401 if other credentials may help, otherwise 403; 400 if those that were
            given are malformed.
        challenges: The values of `WWW-Authenticate`, which say what credentials those are.
            If there are none, a 401 has `BASIC`.
    """

    def __init__(
        self, status: int, sentence: str, challenges: tuple[str, ...] = ()
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.challenges = challenges


class Access:
    """
    The users and rules that hold at the moment.

    Args:
        users: Those who may sign in.
        rules: What everybody may do; None if users may do everything, and nobody else may
            do anything.

    Attributes:
        users: As given.
        rules: As given.
        version: Changes whenever they do.
    """

    def __init__(self, users: Users, rules: Rules | None) -> None:
        self.users = users
        self.rules = rules
        self.version = 0

    def replace(self, users: Users, rules: Rules | None) -> None:
        """
        From now on, these hold.
        """
        self.users, self.rules = users, rules
        self.version += 1


class Visitor:
    """
    Who has sent a request.  What they may do is asked anew each time, because a WebSocket
    or a stream may live longer than a right.

    Args:
        sender: The name under which they publish; empty for none.
        access: What holds for them; None where the bus has no users of its own, and whoever
            reaches it may do everything.
        trusted: Whether they may name other senders, if there are no rules.
        vouched: Whether a trusted proxy has signed them in, so that they need not be in the
            file of users.

    Attributes:
        sender: As given.
        publish_limits: The limits of the line that lets them publish to the channel of the
            last `check_publish`.
        publish_line: The number of that line; 0 if there is none.
        user: By what name limits count them, which is one that they have proved; empty for
            none.
    """

    __slots__ = (
        "publish_limits",
        "publish_line",
        "sender",
        "user",
        "_access",
        "_channel",
        "_hashed",
        "_may_count",
        "_trusted",
        "_version",
        "_vouched",
    )

    def __init__(
        self,
        sender: str,
        access: Access | None = None,
        trusted: bool = False,
        vouched: bool = False,
    ) -> None:
        self.sender = sender
        self.user = sender if access is not None else ""
        self._access = access
        self._trusted = trusted
        self._vouched = vouched
        # The hash of the password that they gave: with another password, they are to show
        # that they know it.
        self._hashed = None if access is None else access.users.hash_of(sender)
        # The last channel to which they were allowed to publish, and `Access.version` then.
        self._channel = ""
        self._version = -1
        self._may_count = True
        self.publish_limits = NO_LIMITS
        self.publish_line = 0

    def check_publish(self, channel: str, require: bool = False) -> bool:
        """
        Check that they may publish to a channel.

        Args:
            require: Whether they ask to be refused if nobody subscribes to it.

        Returns:
            Whether they may know how many subscribe: those who may not read a channel
            learn nothing about it.

        Raises:
            Denied: They may not.
        """
        access = self._access
        if access is None:
            return True
        if access.version != self._version or channel != self._channel:
            self._check(access, Verb.PUBLISH, channel)
            rules = access.rules
            self.publish_line, self.publish_limits = self._limits(Verb.PUBLISH, channel)
            self._may_count = (
                rules is None
                or rules.decide(self.sender or None, Verb.SUBSCRIBE, channel).allowed
            )
            self._channel, self._version = channel, access.version
        if require and not self._may_count:
            self._deny(f"To require a subscriber, one must be able to be one: {channel!r}.")
        return self._may_count

    def check_publish_below(self, name: str) -> None:
        """
        Check that they may publish to a channel, or to any channel below a folder.

        Raises:
            Denied: They may not.
        """
        if not is_folder(name):
            self.check_publish(name)
        elif self._access is not None:
            self._check_user(self._access)
            self._check_below(self._access, Verb.PUBLISH, name)

    @property
    def is_limited(self) -> bool:
        """
        May they lose a right while the bus runs?
        """
        return self._access is not None

    def subscribe_limits(self, name: str) -> tuple[int, RuleLimits]:
        """
        The limits of the line that lets them subscribe to this channel, and its number; for
        a folder, the smallest limits of all lines, and 0.
        """
        if not is_folder(name):
            return self._limits(Verb.SUBSCRIBE, name)
        rules = None if self._access is None else self._access.rules
        return 0, NO_LIMITS if rules is None else rules.folder_limits(self.sender or None)

    def _limits(self, verb: Verb, channel: str) -> tuple[int, RuleLimits]:
        rules = None if self._access is None else self._access.rules
        if rules is None:
            return 0, NO_LIMITS
        who = self.sender or None
        line = rules.decide(who, verb, channel).line
        return line or 0, rules.limits(who, verb, channel)

    def seconds_left(self) -> float | None:
        """
        For how many seconds their rights last; None if there is no end in sight.
        """
        return None

    def check_message(self, message: Message, size: int) -> None:
        """
        Check that they may publish this message, of so many bytes, to a channel to which
        they may publish.

        Raises:
            Denied: They may not publish messages of this type.
            TooLarge: They may publish smaller messages only.
        """
        limit = self.publish_limits.max_message
        if limit is not None and size > limit:
            raise TooLarge(f"You may publish messages of at most {limit} bytes here.")

    def check_enter(self) -> None:
        """
        Check that they may load documents: everybody may who may read any channel.

        Raises:
            Denied: They may not.
        """
        if self._access is not None:
            self.check_subscribe("", EVERYTHING)

    def check_subscribe(self, name: str, filter: Filter) -> Filter:
        """
        The filter with which they may subscribe to a channel or folder: with a folder, they
        get the channels below it that they may read.

        Args:
            filter: With which they want to subscribe.

        Raises:
            Denied: They may read nothing there.
        """
        access = self._access
        if access is None:
            return filter
        if access.rules is None or not is_folder(name):
            self._check(access, Verb.SUBSCRIBE, name)
            return filter
        self._check_user(access)
        self._check_below(access, Verb.SUBSCRIBE, name)
        readable = access.rules.readable(self.sender or None)
        return filter if readable.everything else filter.within(readable)

    def is_believed(self, channel: str) -> bool:
        """
        May they name another sender of what they publish to this channel?
        """
        if self._access is None or self._access.rules is None:
            return self._trusted
        return self.may_relay(channel)

    def may_relay(self, channel: str) -> bool:
        """
        May they say that they only pass on what they publish to this channel, with the
        origin that it has?
        """
        if self._access is None or self._access.rules is None:
            return True
        decision = self._access.rules.decide(self.sender or None, Verb.RELAY, channel)
        return decision.allowed

    def _check(self, access: Access, verb: Verb, channel: str) -> None:
        self._check_user(access)
        if access.rules is not None:
            decision = access.rules.decide(self.sender or None, verb, channel)
            if not decision.allowed:
                self._deny(decision.sentence)

    def _check_below(self, access: Access, verb: Verb, folder: str) -> None:
        rules, user = access.rules, self.sender or None
        if rules is not None and not rules.may_below(user, verb, folder):
            where = f" below {folder!r}" if folder else ""
            self._deny(f"The access file lets you {verb.value} to nothing{where}.")

    def _check_user(self, access: Access) -> None:
        if self.sender:
            if self._vouched:
                return
            hashed = access.users.hash_of(self.sender)
            if hashed is None:
                raise Denied(401, f"There is no user {self.sender!r} any more.")
            if hashed != self._hashed:
                raise Denied(401, f"The password of {self.sender!r} is another one now.")
        elif access.rules is None:
            self._deny("This bus asks for a name and a password.")

    def _deny(self, sentence: str) -> None:
        if self.sender:
            raise Denied(403, sentence)
        if self._access is not None and not len(self._access.users):
            # Nobody has a password.
            raise Denied(
                403, f"{sentence} A client certificate may help, as in curl --cert FILE."
            )
        raise Denied(
            401, f"{sentence} A name and a password may help, as in curl -u NAME:PASSWORD."
        )
