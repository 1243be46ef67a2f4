"""
The parts of `soak.py`: `ledger` knows what was published and checks what readers got,
`connection` is how clients speak HTTP, `publishers` and `readers` are those who behave, and
`strangers` those who do not.  `counted_twistd.py` runs the bus.
"""
