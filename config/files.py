"""Why a file cannot be read, in words that say what to do."""

import os
import pwd


def reason(error: OSError) -> str:
    """What an operator is told of it; where rights lack, whose."""
    text = error.strerror or str(error)
    if not isinstance(error, PermissionError):
        return text
    return f"{text} for user {user()} (let its group have it: chgrp, chmod 640; the folder: 750)"


def user() -> str:
    """The name of whoever runs this, or the number: of a container's user, or systemd's own."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
