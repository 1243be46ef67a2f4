"""
Messages to bytes and back: the formats in which a bus sends messages and takes them.

Pure: no I/O, no clock, and no Twisted, because the clients share it.  Who gets the bytes
is up to `fanout`.

Read `framing` first, which says what each format has to provide; then
`multipart_framing`, the default, and `multipart`, which reads it (with `repeated_head`);
`caching`, how long a message may be kept; `coding`, which undoes content codings;
`lines`, which cuts a stream into lines; `envelope`, a message as JSON, and the formats
that use it, `eventstream`, `ndjson` and `websocket_frames`; `publication`, which reads
JSON that was sent to be published, from a WebSocket client or as an envelope; and
`stream_formats`, the list of all formats that a subscriber can ask for.
"""
