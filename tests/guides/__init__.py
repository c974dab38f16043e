"""The guides in ``deploy/docs``: what in them is made from the code, and what is tried."""
