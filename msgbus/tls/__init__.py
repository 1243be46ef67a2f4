"""
TLS between connections and their sockets: as Twisted does it, with a fast way for what is
sent and received most.

Read `openssl` first, then `connection` and `transport`.
"""
