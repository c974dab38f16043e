"""Settings on their way to a worker, certificate and key as the bytes that were found good.

So all workers have the same settings whatever happens to the files meanwhile, also one that is
started much later.
"""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from config.schema import LogSettings
from config.section import StartError
from config.turn import TurnSettings
from turn.assemble import Certificate

FILES = ("tls_certificate", "tls_key")


class Thawed(NamedTuple):
    """Settings that can be used."""

    turn: TurnSettings
    log: LogSettings


def freeze(turn: TurnSettings, log: LogSettings) -> bytes:
    """The settings as bytes; secret. :raises StartError: the certificate is not usable, or no
    more files may be opened.
    """
    paths = [getattr(turn, name) for name in FILES]
    try:
        contents = [path.read_bytes() if path else b"" for path in paths]
    except OSError as error:
        raise StartError(f"turn.tls_certificate, turn.tls_key: {error}") from None
    frozen = pickle.dumps((turn, log, contents))
    try:
        with thawed(frozen) as (settings, _):
            if settings.listen_tls or settings.listen_dtls:
                certificate = Certificate(settings)
                if settings.listen_dtls:
                    certificate.dtls(settings)
    except OSError as error:
        raise StartError(f"turn.workers: {error.strerror}") from None
    return frozen


def with_turn(frozen: bytes, turn: TurnSettings) -> bytes:
    """The same with other settings of the relay, whose certificate is the one of before."""
    _, log, contents = pickle.loads(frozen)  # noqa: S301 - as below
    return pickle.dumps((turn, log, contents))


@contextmanager
def thawed(frozen: bytes) -> Iterator[Thawed]:
    """The settings again. Their files can be read until the end of the block."""
    turn, log, contents = pickle.loads(frozen)  # noqa: S301 - the pool's own, over its own socket
    descriptors = []
    try:
        changes = {}
        for name, content in zip(FILES, contents, strict=True):
            if content:
                descriptors.append(os.memfd_create(name, os.MFD_CLOEXEC))
                with open(descriptors[-1], "wb", closefd=False) as file:
                    file.write(content)
                changes[name] = Path(f"/proc/self/fd/{descriptors[-1]}")
        yield Thawed(turn.model_copy(update=changes), log)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
