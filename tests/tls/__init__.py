"""
Tests of fan-out.
"""
