"""
An HTTP message bus that anyone can use with curl.
"""

__version__ = "0.1.0"
