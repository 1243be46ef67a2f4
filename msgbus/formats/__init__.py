"""
Messages to bytes and back: one module for each form of a stream.

Pure: no I/O, no clock, and no Twisted, because the clients share it.  Who gets the bytes
is up to `fanout`.

Read `framing` first, which says what a form has to provide; then `multipart_framing`, the
form that everybody gets who asks for no other, and `multipart`, which reads it; `envelope`,
a message as JSON, and the forms that use it, `eventstream`, `ndjson` and
`websocket_frames`; `publication`, what somebody sends as JSON to have it published; and
`stream_formats`, the list of all forms that a subscriber can ask for.
"""
