"""What a device's driver can do: asked of the kernel by generic netlink and by ethtool's ioctl."""

import ctypes
import fcntl
import os
import socket
import struct

from turn.kernel.rtnetlink import ERROR, REQUEST, attribute, attributes, messages

GENERIC_NETLINK = 16
"""NETLINK_GENERIC, which Python does not name."""
# genlmsghdr; the controller of <linux/genetlink.h>.
GENERIC = struct.Struct("=BBxx")
CONTROLLER, GET_FAMILY, FAMILY_ID, FAMILY_NAME = 16, 3, 1, 2
# <linux/netdev.h>: NETDEV_CMD_DEV_GET; NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES.
GET_DEVICE, DEVICE_INDEX, XDP_FEATURES = 1, 1, 3
# enum netdev_xdp_act. Many drivers can do the last only once they have a program.
TO_RUN = {1: "run a program", 2: "let it send on"}
TO_SEND = {4: "send others' frames"}
# <linux/ethtool.h>
SIOCETHTOOL = 0x8946
GET_STRINGS, GET_SIZES, GET_FEATURES = 0x1B, 0x37, 0x3A
FEATURE_NAMES, NAME_BYTES = 4, 32
STRIPS_TAGS, FILTERS_TAGS = "rx-vlan-hw-parse", "rx-vlan-filter"
ROOM = 1 << 16


def lacking(device: int, *, is_attached: bool) -> str | None:
    """What a driver cannot do that XDP needs, in words; None: nothing.

    :param is_attached: it has a program.
    :raises OSError: the kernel does not tell (before Linux 6.3).
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, GENERIC_NETLINK) as sock:
        sock.bind((0, 0))
        named = attribute(FAMILY_NAME, b"netdev\0")
        family = _ask(sock, CONTROLLER, GET_FAMILY, named)[FAMILY_ID]
        index = attribute(DEVICE_INDEX, struct.pack("=I", device))
        found = _ask(sock, int.from_bytes(family, "little"), GET_DEVICE, index)
    features = int.from_bytes(found.get(XDP_FEATURES, b""), "little")
    needed = TO_RUN | TO_SEND if is_attached else TO_RUN
    return next((words for bit, words in needed.items() if not features & bit), None)


def _ask(sock: socket.socket, family: int, command: int, body: bytes) -> dict[int, bytes]:
    content = GENERIC.pack(command, 1) + body
    sock.send(struct.pack("=IHHII", 16 + len(content), family, REQUEST, 1, 0) + content)
    for _, kind, answer in messages(sock.recv(ROOM)):
        if kind == ERROR:
            number = -struct.unpack_from("=i", answer)[0]
            raise OSError(number, os.strerror(number))
        return attributes(answer, GENERIC.size)
    return {}


def offloads(name: str) -> set[str]:
    """What a device does by itself now, as ``ethtool -k`` names it within the kernel.

    :raises OSError: the device is gone.
    """
    sizes = _ethtool(name, struct.pack("=IxxxxQI", GET_SIZES, 1 << FEATURE_NAMES, 0))
    count = struct.unpack_from("=I", sizes, 16)[0]
    names = _ethtool(
        name, struct.pack("=III", GET_STRINGS, FEATURE_NAMES, count) + bytes(NAME_BYTES * count)
    )
    blocks = (count + 31) // 32
    states = _ethtool(name, struct.pack("=II", GET_FEATURES, blocks) + bytes(16 * blocks))
    return {
        names[12 + NAME_BYTES * at :][:NAME_BYTES].split(b"\0", 1)[0].decode()
        for at in range(count)
        # available, requested, active, never changed
        if struct.unpack_from("=I", states, 8 + 16 * (at // 32) + 8)[0] >> at % 32 & 1
    }


def _ethtool(name: str, command: bytes) -> bytes:
    room = ctypes.create_string_buffer(command, len(command))
    request = struct.pack("16sP16x", os.fsencode(name), ctypes.addressof(room))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, request)
    return room.raw
