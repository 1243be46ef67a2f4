"""
A process that has as many open files as it may have.
"""

import resource
from contextlib import contextmanager


@contextmanager
def no_files():
    """
    While this lasts, the process can open no file.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A file needs a number below the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
