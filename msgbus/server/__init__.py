"""
`twistd msgbus`: its options, and the start and stop of the process that serves a bus.

What is served is up to `web`.

Read `plugin` first, which puts the parts together; then `options`, which may be in a file
(`config_file`), `settings` (those of them that can change while the bus runs), `listen`
(where the bus listens, as endpoint strings, with the help of the reactors of `tls` and
`adopting`), `logging` (where the log goes: to a `line_file`, folded by `log_folding`, as
`log_lines`), `service` (starts and stops everything in order, with the help of
`cannot_start`, `signals`, `systemd`, and `status`, its line there; at a port,
`out_of_files` counts what cannot be accepted, and `memory` notices when that runs out), and
`guards`, which decide who may use the bus: `users` (the users and rules, which are read
from files by `access_files`, also while the bus runs), `grant_files` (the same for the keys
of links and tokens), and `certificates` (the same for the keys and certificates of TLS).

With `--admin`, `admin` serves what an operator wants to see, beside the bus.

With `--workers`, `service` runs in several processes.  `workers` is their parent, which has
a `worker_process` for each of them; in each of them, `worker` is its tie to the parent.
"""
