"""
Messages to bytes and back: one module for each form of a stream.

Pure: no I/O, no clock, and no Twisted, because the clients share it.  Who gets the bytes
is up to `fanout`.

Read `framing` first, which says what a form has to provide; then `multipart`, the form
that everybody gets who asks for nothing else; `envelope`, a message as JSON, and the forms
that stand on it, `eventstream`, `ndjson` and `websocket_frames`; and `stream_formats`, the
list of all forms that a subscriber can ask for.
"""
