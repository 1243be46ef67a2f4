"""
`twistd msgbus`: the options of an operator, and the life of the process that serves a bus.

What is served is up to `web`.

Read `plugin` first, which puts the parts together; then `options`, `listen` (where to, as
endpoint strings), and `service` (start, readiness, and a stop in order).
"""
