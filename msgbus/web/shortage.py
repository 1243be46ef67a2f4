"""
Something that clients need has run out, for a while.
"""

from __future__ import annotations

from twisted.logger import Logger

__all__ = ["Shortage"]


class Shortage:
    """
    Says once in the log that something has run out, and once that there is enough again.

    Args:
        what: What has run out, as the beginning of a sentence.

    Attributes:
        advice: What the operator can do, as a sentence; may be changed.
        lasts: Whether there is not enough now, where somebody looks from time to time.
        refused: How many clients have been refused because of it; 0 if there is enough.
    """

    _log = Logger()

    def __init__(self, what: str) -> None:
        self.advice = ""
        self.lasts = False
        self.refused = 0
        self._what = what

    def refuse(self) -> None:
        """
        A client is refused.
        """
        if not self.refused:
            self._log.warn(
                "{what}: new clients are refused until there is room. {advice}",
                what=self._what,
                advice=self.advice,
            )
        self.refused += 1

    def end(self) -> None:
        """
        There is enough again.
        """
        refused, self.refused = self.refused, 0
        if refused:
            self._log.warn(
                "There is room again: {count} were refused",
                count=refused,
                # How many they were differs.
                log_fold=self._what,
            )
