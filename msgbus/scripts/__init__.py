"""
The tools of the command line, on the clients.
"""
