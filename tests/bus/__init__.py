"""
Tests of the bus.
"""
