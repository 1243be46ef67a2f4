"""
Who has sent a request that shows a link or a token, and what they may do.

No I/O.
"""

from __future__ import annotations

import re

from ..access.grant import INVALID_REQUEST, INVALID_TOKEN, BadGrant
from ..access.verbs import Verb
from ..bus.bus import TooLarge
from ..match import EVERYTHING, Filter
from ..message import Message, is_folder
from .certified import OR_CERTIFICATE
from .grants import Grants
from .visitor import BASIC, Denied, Visitor

__all__ = ["Bearer", "Stranger", "refused"]

# The challenge to somebody who has shown no link or token (RFC 6750, section 3).
BEARER = 'Bearer realm="msgbus"'

# What an `error_description` may not hold (RFC 6750, section 3).
_NOT_DESCRIPTIVE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


def refused(error: BadGrant, asks_for_password: bool = False) -> Denied:
    """
    The refusal of a request whose link or token does not give the right that it needs.

    Args:
        asks_for_password: Whether a name and a password may help, too.
    """
    description = _NOT_DESCRIPTIVE.sub("'", str(error))
    challenge = f'{BEARER}, error="{error.code}", error_description="{description}"'
    status = {INVALID_REQUEST: 400, INVALID_TOKEN: 401}.get(error.code, 403)
    basic = (BASIC,) if asks_for_password and status == 401 else ()
    return Denied(status, str(error), (challenge, *basic))


class Bearer(Visitor):
    """
    Somebody who shows a link or a token: may do what that allows, until it expires or its
    key is removed, and nothing else, whatever name and password the request has besides.

    Args:
        grants: Verifies the link or token, now and whenever the keys have changed.
        shown: The link or token.
        asks_for_password: Whether a name and a password may help if it gives no right.

    Raises:
        Denied: It gives no right.
    """

    __slots__ = (
        "_asks_for_password",
        "_grant",
        "_grants",
        "_published_types",
        "_shown",
        "_verified_version",
    )

    def __init__(self, grants: Grants, shown: str, asks_for_password: bool = False) -> None:
        self._grants = grants
        self._shown = shown
        self._asks_for_password = asks_for_password
        self._verified_version = grants.version
        try:
            self._grant = grants.verify(shown)
        except BadGrant as error:
            raise self._refused(error) from None
        self._published_types = Filter(self._grant.filter.type.text)
        super().__init__(self._grant.name)
        # By its colon, the name differs from that of any user: a user who has the same name
        # is not charged for what a bearer does.
        if self._grant.name:
            self.user = f"link:{self._grant.name}"

    @property
    def is_limited(self) -> bool:
        """
        May they lose a right while the bus runs?  All links and tokens expire.
        """
        return True

    def seconds_left(self) -> float | None:
        """
        For how many seconds their rights last; None if there is no end in sight.
        """
        return self._grant.expires - self._grants.now()

    def check_exists(self) -> None:
        """
        Check that the link or token still holds.

        Raises:
            Denied: It has expired, or its key is not there any more.
        """
        grants = self._grants
        if grants.version == self._verified_version and grants.now() < self._grant.expires:
            return
        try:
            grants.verify(self._shown)
        except BadGrant as error:
            raise self._refused(error) from None
        self._verified_version = grants.version

    def check_enter(self) -> None:
        """
        Check that they may load documents: those may who may read any channel.

        Raises:
            Denied: They may not.
        """
        self.check_subscribe("", EVERYTHING)

    def check_publish(self, channel: str, require: bool = False) -> bool:
        """
        Check that they may publish to a channel; see `Visitor.check_publish`.
        """
        self._check_grant(Verb.PUBLISH, channel)
        if require:
            # Whether there is a subscriber is told to those only who may be one.
            self._check_grant(Verb.SUBSCRIBE, channel)
        return self._grant.subscribe.allows(channel)

    def check_publish_below(self, name: str) -> None:
        """
        Check that they may publish to a channel, or to any channel below a folder.

        Raises:
            Denied: They may not.
        """
        if not is_folder(name) or not self._grant.publish.may_reach(name):
            self.check_publish(name)
        else:
            self.check_exists()

    def check_message(self, message: Message, size: int) -> None:
        """
        Check that they may publish a message of this type and of so many bytes.

        Raises:
            Denied: They may publish messages of other types only.
            TooLarge: They may publish smaller messages only.
        """
        if not self._published_types.matches(message):
            raise self._refused(
                BadGrant(
                    f"This link lets you publish {self._grant.filter.type.text}, not"
                    f" {message.content_type}.",
                    "insufficient_scope",
                )
            )
        limit = self._grant.max_message
        if limit is not None and size > limit:
            raise TooLarge(f"This link lets you publish messages of at most {limit} bytes.")

    def check_subscribe(self, name: str, filter: Filter) -> Filter:
        """
        The filter with which they may subscribe to a channel or folder.  A message has to
        pass the filter that they want, and that of their link; with a folder, it has to be
        of a channel that they may read.

        Raises:
            Denied: They may read nothing there.
        """
        readable = self._grant.subscribe
        if not is_folder(name) or not readable.may_reach(name):
            self._check_grant(Verb.SUBSCRIBE, name)
        else:
            self.check_exists()
        also = self._grant.filter
        return filter.within(
            readable if is_folder(name) and not readable.everything else None,
            None if also == EVERYTHING else also,
        )

    def is_believed(self, channel: str) -> bool:
        """
        May they name another sender?  They may not: the link or token says who they are.
        """
        return False

    def may_relay(self, channel: str) -> bool:
        """
        May they say where a message was published first?  They may not: that would put
        words into the mouth of another bus.
        """
        return False

    def _check_grant(self, verb: Verb, channel: str) -> None:
        self.check_exists()
        try:
            self._grant.check(verb, channel)
        except BadGrant as error:
            raise self._refused(error) from None

    def _refused(self, error: BadGrant) -> Denied:
        return refused(error, self._asks_for_password)


class Stranger(Visitor):
    """
    Somebody who shows nothing of what a bus asks for: may do nothing.

    Args:
        asks_for_password: Whether a name and a password would help.
        takes_grants: Whether a link or a token would help.
        takes_certificates: Whether a client certificate would help.
    """

    __slots__ = ("_denied",)

    def __init__(
        self,
        asks_for_password: bool,
        takes_grants: bool = True,
        takes_certificates: bool = False,
    ) -> None:
        super().__init__("")
        if not takes_grants:
            sentence = (
                "This bus asks for a client certificate, as in curl --cert FILE, and for no"
                " name and password."
            )
        elif asks_for_password:
            sentence = (
                "This bus asks for a password, as in curl -u NAME:PASSWORD, or for a link:"
                " a URL that ends in ?link=..."
            )
        else:
            sentence = "This bus asks for a link, a URL that ends in ?link=..., or a token."
        if takes_grants and takes_certificates:
            sentence += OR_CERTIFICATE
        # No header of HTTP asks for a certificate.
        status = 401 if takes_grants else 403
        challenges = (BASIC,) if asks_for_password else (BEARER,) if takes_grants else ()
        self._denied = status, sentence, challenges

    def check_exists(self) -> None:
        """
        Refuse them.

        Raises:
            Denied: Always.
        """
        raise Denied(*self._denied)

    check_enter = check_exists

    def check_publish(self, channel: str, require: bool = False) -> bool:
        """
        Refuse them.

        Raises:
            Denied: Always.
        """
        self.check_exists()
        return False

    def check_publish_below(self, name: str) -> None:
        """
        Refuse them.

        Raises:
            Denied: Always.
        """
        self.check_exists()

    def check_subscribe(self, name: str, filter: Filter) -> Filter:
        """
        Refuse them.

        Raises:
            Denied: Always.
        """
        self.check_exists()
        return filter
