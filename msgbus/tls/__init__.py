"""
TLS of connections, as OpenSSL does it on their sockets.

Read `openssl` first, then `transport`.
"""
