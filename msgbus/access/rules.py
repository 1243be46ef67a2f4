"""
Who may publish and subscribe to what: the rules of an operator.

No I/O and no clock.  A rule is one line, `WHO MAY CHANNELS LIMITS`.  The first rule that
fits decides; if none fits, the answer is no.  Who somebody is, is up to others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..message import Invalid, check_name
from .file_lines import BadFile, file_lines
from .patterns import Glob, Pattern
from .readable import Readable
from .rule_limits import NO_LIMITS, RuleLimits, is_limit, parse_limits
from .verbs import Verb

__all__ = ["ANONYMOUS", "BadRules", "Decision", "Rules", "Verb"]

# How many patterns of channels may apply to one user, and how many pieces of text they may
# have between two stars.  These bound the time of a decision.
MAX_PATTERNS = 50
MAX_SEARCHES = 4

# The longest name of a user that may have any rights, in characters.
MAX_USER = 1000

# How many users' rights are remembered, and how many decisions.
MAX_REMEMBERED = 1000

ANONYMOUS = "@anonymous"
USERS = "@users"
EVERYBODY = "*"


_NOTHING = "nothing"


class BadRules(BadFile):
    """
    A file of rules that cannot be used.
    """


class Decision(NamedTuple):
    """
    The answer to the question whether somebody may do something.

    Attributes:
        allowed: The answer.
        line: The number of the line that decided, from 1, or None if none did.
        sentence: The reason, which can be shown to whoever asked.  It holds neither the
            rule itself nor the name of the file.
    """

    allowed: bool
    line: int | None
    sentence: str


class _Rule(NamedTuple):
    """
    One line.

    Attributes:
        who: A glob over names, or one of the groups.
        verbs: What it allows; empty for `nothing`, which denies all.
    """

    line: int
    who: Glob | str
    verbs: frozenset[Verb]
    channels: tuple[Pattern, ...]
    limits: RuleLimits


class _Right(NamedTuple):
    """
    What a rule means for one user and one verb.
    """

    line: int
    allowed: bool
    channels: tuple[Glob, ...]
    limits: RuleLimits


class Rules:
    """
    The rules of one file.  They never change; a reload makes new ones.
    """

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        # In a long file, most rules are for one user each.  These are looked up by name, so
        # the time of a decision does not depend on the number of users.
        self._by_name: dict[str, list[_Rule]] = {}
        self._for_many: list[_Rule] = []
        for rule in rules:
            if (name := _only_name(rule)) is not None:
                self._by_name.setdefault(name, []).append(rule)
            else:
                self._for_many.append(rule)
        self._remembered: dict[str | None, dict[Verb, tuple[_Right, ...]]] = {}
        self._readable: dict[str | None, Readable] = {}
        self._decisions: dict[
            tuple[str | None, Verb, str], tuple[Decision, RuleLimits]
        ] = {}

    @classmethod
    def parse(cls, text: bytes, file: str) -> Rules:
        """
        Read the rules of a file.

        Args:
            file: Its name, for errors.

        Raises:
            BadRules: The file cannot be used: a line is not understood, or there is no
                rule in it, which would deny everything.
        """
        rules = []
        for number, line in file_lines(text, file, BadRules):
            try:
                rules.append(_parse_rule(number, line))
            except Invalid as error:
                raise BadRules(file, number, str(error)) from None
        if not rules:
            raise BadRules(
                file,
                None,
                "There is no rule in the file, so nobody could do anything. If that is"
                " meant, write the rule '* nothing *'.",
            )
        _check_bounds(rules, file)
        return cls(tuple(rules))

    def decide(self, user: str | None, verb: Verb, channel: str) -> Decision:
        """
        May this user do this?

        Args:
            user: A name that was proven, or None for somebody without one.  An empty name
                is none.
            channel: The full name of a channel or folder.  A folder stands for a message to
                this very name, not for the channels below it.
        """
        return self._decided(user, verb, channel)[0]

    def limits(self, user: str | None, verb: Verb, channel: str) -> RuleLimits:
        """
        The limits of the line that decides; none if the answer is no.
        """
        return self._decided(user, verb, channel)[1]

    def folder_limits(self, user: str | None) -> RuleLimits:
        """
        The limits of a subscription to a folder, whose channels several lines may allow:
        the smallest of all lines that let this user subscribe to anything.
        """
        limits = [r.limits for r in self._rights(user)[Verb.SUBSCRIBE] if r.allowed]
        history = [r.history for r in limits if r.history is not None]
        open_at_once = [
            r.max_subscriptions for r in limits if r.max_subscriptions is not None
        ]
        return RuleLimits(
            history=min(history, default=None),
            max_subscriptions=min(open_at_once, default=None),
        )

    def readable(self, user: str | None) -> Readable:
        """
        The channels to which this user may subscribe.
        """
        user = user or None
        readable = self._readable.get(user)
        if readable is None:
            if len(self._readable) >= MAX_REMEMBERED:
                self._readable.clear()
            readable = self._readable[user] = Readable.by(
                (right.allowed, right.channels)
                for right in self._rights(user)[Verb.SUBSCRIBE]
            )
        return readable

    def may_below(self, user: str | None, verb: Verb, folder: str) -> bool:
        """
        May this user do this with channels below a folder, whichever they are?

        Returns:
            False if it is certain that there is no such channel.
        """
        for right in self._rights(user)[verb]:
            for glob in right.channels:
                if right.allowed and glob.reaches(folder):
                    return True
                if not right.allowed and glob.covers(folder):
                    return False
        return False

    def _decided(
        self, user: str | None, verb: Verb, channel: str
    ) -> tuple[Decision, RuleLimits]:
        # Publishers ask the same thing again and again.
        key = (user, verb, channel)
        decided = self._decisions.get(key)
        if decided is None:
            try:
                # Also bounds the length of the name, and so the time and what is kept.
                check_name(channel)
            except Invalid as error:
                return Decision(False, None, str(error)), NO_LIMITS
            right = self._deciding(user, verb, channel)
            limits = right.limits if right is not None else NO_LIMITS
            decided = _decision(right, user, verb, channel), limits
            if user is None or len(user) <= MAX_USER:
                if len(self._decisions) >= MAX_REMEMBERED:
                    self._decisions.clear()
                self._decisions[key] = decided
        return decided

    def _deciding(self, user: str | None, verb: Verb, channel: str) -> _Right | None:
        for right in self._rights(user)[verb]:
            for glob in right.channels:
                if glob.matches(channel):
                    return right
        return None

    def _rights(self, user: str | None) -> dict[Verb, tuple[_Right, ...]]:
        """
        What the rules mean for a user, in the order of the file.
        """
        user = user or None
        rights = self._remembered.get(user)
        if rights is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            fitting = [(rule, _globs(rule, user)) for rule in self._fitting(user)]
            rights = self._remembered[user] = {
                verb: tuple(
                    _Right(rule.line, verb in rule.verbs, globs, rule.limits)
                    for rule, globs in fitting
                    if globs and (verb in rule.verbs or not rule.verbs)
                )
                for verb in Verb
            }
        return rights

    def _fitting(self, user: str | None) -> Iterator[_Rule]:
        """
        The rules whose WHO fits a user, in the order of the file.
        """
        if user is not None and len(user) > MAX_USER:
            return
        own = self._by_name.get(user, []) if user is not None else []
        many = [rule for rule in self._for_many if _fits(rule.who, user)]
        yield from sorted(own + many, key=lambda rule: rule.line)


def _decision(right: _Right | None, user: str | None, verb: Verb, channel: str) -> Decision:
    """
    The decision of a line, or that of none.
    """
    who = f"the user {user!r}" if user else "somebody without a name and password"
    what = f"{verb.value} to {channel!r}"
    if right is None:
        return Decision(False, None, f"No line of the access file lets {who} {what}.")
    does = "lets" if right.allowed else "does not let"
    return Decision(
        right.allowed,
        right.line,
        f"Line {right.line} of the access file {does} {who} {what}.",
    )


def _only_name(rule: _Rule) -> str | None:
    """
    The name of the only user whom a rule fits, or None if it can fit several users.
    """
    if isinstance(rule.who, str) or len(rule.who.pieces) > 1:
        return None
    return rule.who.pieces[0]


def _fits(who: Glob | str, user: str | None) -> bool:
    if isinstance(who, str):
        return who == EVERYBODY or (who == ANONYMOUS) == (user is None)
    return user is not None and who.matches(user)


def _globs(rule: _Rule, user: str | None) -> tuple[Glob, ...]:
    globs = (pattern.for_user(user) for pattern in rule.channels)
    return tuple(glob for glob in globs if glob is not None)


def _parse_rule(number: int, line: str) -> _Rule:
    who, *words = re.split(r"[ \t]+", line)
    for at, word in enumerate(words):
        if word.startswith("#"):
            # A comment behind the rule.
            words = words[:at]
            break
    if len(words) < 2:
        # A line of one word is not shown: if the file is that of users or of keys, it is a
        # hash or a secret.
        raise Invalid(
            "A rule is WHO MAY CHANNELS, such as 'alice publish,subscribe chat/*'; "
            + (f"{line!r} lacks the channels." if words else "this line has only one word.")
        )
    may, *rest = words
    limits_from = next((i for i, word in enumerate(rest) if is_limit(word)), len(rest))
    channels, limits = rest[:limits_from], rest[limits_from:]
    if not channels:
        raise Invalid(
            f"{line!r} lacks the channels, which come before limits. In the name of a"
            " channel, '=' is written %3D."
        )
    for word in limits:
        if not is_limit(word):
            raise Invalid(f"{word!r} comes behind a limit; channels come before limits.")
    verbs = _parse_verbs(may)
    return _Rule(
        number,
        _parse_who(who),
        verbs,
        tuple(map(_parse_channel, channels)),
        parse_limits(
            limits, publish=Verb.PUBLISH in verbs, subscribe=Verb.SUBSCRIBE in verbs
        ),
    )


def _parse_who(text: str) -> Glob | str:
    if text in (ANONYMOUS, USERS) or not text.strip("*"):
        return text if text.startswith("@") else EVERYBODY
    if text.startswith("@"):
        raise Invalid(f"There is no group {text!r}; there are {ANONYMOUS} and {USERS}.")
    _refuse_list(text, "users", "Write a line for each user.")
    glob = Pattern.parse(text).for_user(None)
    if glob is None:
        raise Invalid("%u is the name of the user, so it has no meaning in WHO.")
    return glob


def _parse_verbs(text: str) -> frozenset[Verb]:
    if text == _NOTHING:
        return frozenset()
    try:
        verbs = [Verb(word) for word in text.split(",")]
    except ValueError:
        raise Invalid(
            f"{text!r} is none of publish, subscribe and relay, nor several of them, as in"
            " publish,subscribe (without a space), nor nothing."
        ) from None
    return frozenset(verbs)


def _parse_channel(text: str) -> Pattern:
    _refuse_list(text, "channels", "Separate channels by spaces.")
    pattern = Pattern.parse(text)
    if text.endswith("/"):
        raise Invalid(
            f"{text!r} is a folder. Write {text + '*'!r} for the channels below it."
        )
    # A pattern that can match no valid name is a mistake.  So check the name that results
    # if an x takes the place of each star and of the user's name.
    check_name("x".join("x".join(piece) for piece in pattern.pieces))
    return pattern


def _refuse_list(text: str, what: str, instead: str) -> None:
    """
    Refuse what looks like a pattern of a subscriber, where `,` and `!` have a meaning.
    """
    if "," in text:
        raise Invalid(
            f"In {text!r} there is a comma. {instead} A comma in a name is written %2C."
        )
    if text.startswith("!"):
        raise Invalid(
            f"{text!r} begins with '!', but a rule cannot exclude {what}: write a line with"
            " 'nothing' before it. A '!' in a name is written %21."
        )


def _check_bounds(rules: list[_Rule], file: str) -> None:
    """
    Refuse a file with so many patterns for one user that decisions would be slow.
    """
    counted: dict[str | None, tuple[int, int]] = {}
    for rule in rules:
        name = _only_name(rule)
        patterns, searches = counted.get(name, (0, 0))
        patterns += len(rule.channels)
        searches += sum(pattern.searches for pattern in rule.channels)
        if name is None and isinstance(rule.who, Glob):
            patterns += 1
            searches += rule.who.searches
        counted[name] = (patterns, searches)
        if patterns > MAX_PATTERNS or searches > MAX_SEARCHES:
            who = "several users" if name is None else f"the user {name!r}"
            raise BadRules(
                file,
                rule.line,
                f"Up to this line, the rules for {who} have more than {MAX_PATTERNS}"
                f" patterns, or more than {MAX_SEARCHES} texts between two stars.",
            )
