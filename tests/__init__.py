"""
Tests of the modules, over transports in memory.
"""

from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")
