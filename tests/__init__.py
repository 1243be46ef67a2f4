"""
Tests of the modules, over transports in memory.
"""
