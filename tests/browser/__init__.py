"""
Tests in real browsers.
"""
