"""
Makes text from strangers safe to print on a terminal.
"""

from __future__ import annotations

import re

__all__ = ["clean"]

# Control characters (C0, C1 and DEL) except tab and line feed.  Also characters that turn
# the direction of text round or cannot be seen (Unicode's "Cf" and others), since they make
# one text look like another.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\uffa0\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """
    The text with an escape such as `\\x1b` in place of each character that a terminal
    would obey, or not show.  Tabs and line feeds stay.
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
