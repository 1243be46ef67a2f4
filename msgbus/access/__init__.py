"""
Who may do what: users and their passwords, and the rules of an operator.

It knows neither HTTP nor sockets, and reads no file by itself: it is given what is in them.
What a refusal looks like is up to `web`.

Read `rules` first (who may publish and subscribe to what), then `patterns` (the names in
it), `rule_limits` (the limits in it) and `readable` (what it comes to for one subscriber);
`users` (the names and hashes of a file), `passwords` (those hashes) and `checker` (whether
a password is right, without making others wait), with `verified` (the passwords that were
right of late).  Both kinds of files are cut into lines by `file_lines`.

Rights that somebody shows: `verbs` and `channels` are what a right consists of, `grant`
what somebody has who shows one, and `credentials` where a request carries it.  `links` are
signed by `link_keys`, `tokens` are JWTs.  The `certificates` of TLS clients name users.

Limits: `limits` are token buckets, told in the fields of `rate_fields`; `open_counts` are
things that stay open; `guesses` are wrong passwords, and `log_throttle` what is said about
them.  `addresses` finds the address of a client behind proxies.
"""

from .checker import Busy, PasswordChecker, new_pool
from .rules import BadRules, Decision, Rules, Verb
from .users import BadUsers, Users

__all__ = [
    "BadRules",
    "BadUsers",
    "Busy",
    "Decision",
    "PasswordChecker",
    "Rules",
    "Users",
    "Verb",
    "new_pool",
]
