"""``icebroker doctor``: tries a server as its clients do, and says in words what fails and why.

It is a client: nothing here is part of the relay, and nothing of the relay imports it.
"""
