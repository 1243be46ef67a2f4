"""
Tests of the options and the daemon.
"""
