"""Icebroker, and in its process a witness of what no metric says: tasks and objects.

``python -m tests.churn.witness SOCKET SECONDS serve -c FILE``: the relay remembers for so many
seconds what it has answered.
"""

import asyncio
import gc
import json
import socket
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque

from turn.allocation import replies
from turn.kernel.ways import Table

CONTAINERS = {dict, list, set, deque, OrderedDict, defaultdict, Counter}


def testify(listener: socket.socket) -> None:
    """Answer each connection with what is alive in this process."""
    while True:
        connection, _ = listener.accept()
        with connection:
            gc.collect()
            alive = gc.get_objects()
            kinds = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in alive)
            tasks = sum(isinstance(each, asyncio.Task) and not each.done() for each in alive)
            items = sum(len(each) for each in alive if type(each) in CONTAINERS)
            # The places of ways that ended last: there are never more than so many.
            items -= sum(len(each._recent) for each in alive if isinstance(each, Table))
            del alive
            testimony = {
                "tasks": tasks,
                "objects": sum(kinds.values()),
                "items": items,
                "kinds": dict(kinds),
            }
            connection.sendall(json.dumps(testimony).encode())


def main() -> None:
    """Start the witness, then Icebroker."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv.pop(1))
    replies.REPLY_LIFETIME = float(sys.argv.pop(1))
    listener.listen()
    threading.Thread(target=testify, args=(listener,), daemon=True).start()

    from icebroker import main as icebroker  # noqa: PLC0415 - the witness is there before it

    icebroker()


if __name__ == "__main__":
    main()
