"""
The tools of the command line, on top of the clients; `sign` needs no bus.

Each of `msgsend`, `msgdump`, `msgchat`, `bridge`, `sign`, `testpub` and
`testsub` is one tool.
They share `command` (options, and how a tool ends) and `terminal` (what may be printed to
one). The last three also share `reactor` (a tool as a Twisted program).  The two that
measure a bus, `testpub` and `testsub`, share `numbered` (messages that can be counted) and
`latencies` (how long they took).

`passwd`, which edits the file of a bus's users, needs no bus.  It leaves to `replace_file`
how a file is written so that it is never seen half written.
"""
