"""
Tests of the tools.
"""
