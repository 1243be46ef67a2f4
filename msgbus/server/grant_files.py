"""
Reads the files of keys for links and tokens, at the start and again when the operator asks
for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from twisted.logger import Logger

from ..access.link_keys import BadKeys, Keys
from ..message import Invalid
from ..web.grants import Grants
from ..web.resource import BusResource
from .access_files import CannotRead, read

if TYPE_CHECKING:
    from ..access.tokens import Tokens

__all__ = ["GrantFiles", "GrantService"]


class GrantFiles(NamedTuple):
    """
    Attributes:
        link_keys: The file of the keys that sign links; None if there are no links.
        token_keys: The algorithms of the keys that sign tokens, with their files.
        audience: See `Tokens`.
    """

    link_keys: Path | None
    token_keys: tuple[tuple[str, Path], ...]
    audience: str

    def load(self) -> tuple[Keys | None, Tokens | None]:
        """
        What the files say now.

        Raises:
            Invalid: One of them cannot be read or used.  The text names the file, and says
                nothing of what is in it.
        """
        keys = None
        if self.link_keys is not None:
            try:
                keys = Keys.parse(read(self.link_keys), str(self.link_keys))
            except BadKeys as error:
                raise CannotRead(str(error)) from None
        return keys, self._tokens() if self.token_keys else None

    def _tokens(self) -> Tokens:
        # A bus without tokens starts sooner without what verifies them.
        from ..access.tokens import BadKey, TokenKey, Tokens

        try:
            issuers = [
                TokenKey.parse(algorithm, read(file), str(file))
                for algorithm, file in self.token_keys
            ]
        except BadKey as error:
            raise CannotRead(str(error)) from None
        return Tokens(issuers, self.audience)


class GrantService:
    """
    Has the keys for links and tokens read again when the operator asks for it.

    Args:
        files: Where they are.
        grants: Those that hold.
        bus: Has subscriptions that depend on them.
    """

    _log = Logger()

    def __init__(self, files: GrantFiles, grants: Grants, bus: BusResource) -> None:
        self._files = files
        self._grants = grants
        self._bus = bus

    def reload(self) -> None:
        """
        Read the files again, and end what was begun with a link or token whose key is not
        there any more.  If a file cannot be read or used, say so, and go on with the keys
        of before.
        """
        try:
            keys, tokens = self._files.load()
        except Invalid as error:
            self._log.error(
                "Keys for links and tokens stay as they were, because they cannot be read:"
                " {error}",
                error=error,
            )
            return
        self._grants.replace(keys, tokens)
        self._bus.check_rights()
        self._log.info("Read the keys for links and tokens again")
