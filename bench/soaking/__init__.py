"""
The parts of `soak.py`: `ledger` knows what was published and checks what readers got,
`connection` is how clients speak HTTP, `publishers` and `readers` are those who behave,
`strangers` those who do not, and `admin` has the operator, who looks at all that.
`counted_twistd.py` runs the bus.
"""
