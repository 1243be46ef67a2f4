"""
What the pages of the checkout show.
"""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def blocks(page, language):
    """
    The fenced blocks of a language in a page.
    """
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
