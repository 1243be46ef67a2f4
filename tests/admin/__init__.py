"""
Tests for `msgbus.admin`.
"""
