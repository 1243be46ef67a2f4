"""
Tests of the formats.
"""
