"""
Tests of the bus over HTTP.
"""
