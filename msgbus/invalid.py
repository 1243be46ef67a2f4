"""
The error for everything that breaks the rules of this package.

A module of its own, because both `ids` and `message` raise it, and `message` needs `ids`.
"""

__all__ = ["Invalid"]


class Invalid(ValueError):
    """
    A message, id, name or pattern that breaks the rules.  The text is one sentence that
    says what is wrong, and can be shown to whoever sent it.
    """
