"""Ports of workers: checks whether they are open, and a packet filter that restricts them to one address."""

import contextlib
import ctypes
import os
import socket
import stat
import struct

_SO_ATTACH_FILTER = 26  # Socket option of Linux.
_TIMEOUT = 5  # Seconds.
_ACCEPT, _DROP = 0xFFFFFFFF, 0
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: offsets from here are into the IP header.
_LOAD_BYTE, _LOAD_WORD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x06


def split(address):
    """Split `host:port` into (host, port); IPv6 addresses may have brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def listens(address):
    """Return whether a server accepts connections at `host:port`."""
    try:
        socket.create_connection(split(address), _TIMEOUT).close()
    except OSError:
        return False
    return True


def confine(address):
    """Restrict the socket of this process that listens on the port of `address` to that address.

    A TensorFlow server listens on all addresses of the machine, and has no option to change that. A packet filter on
    the socket makes the kernel drop what is sent to other addresses. It needs no privileges. Connections are accepted
    for a few milliseconds before the filter is attached.

    Returns:
        A warning if that is not possible, otherwise None.
    """
    host, port = split(address)
    everywhere = f"port {port} is open at every address of this machine"
    try:
        found = {(family, str(ip[0])) for family, *_, ip in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        for family, ip in found:
            with socket.socket(family) as probe:
                probe.bind((ip, 0))
    except OSError:
        return f"{host} is not an address of this machine: {everywhere}"
    program = [line for family, ip in found for line in _pass(socket.inet_pton(family, ip))] + [(_RETURN, 0, 0, _DROP)]
    confined = False
    try:
        for one in _listening(port):
            with one:
                _attach(one, program)
                confined = True
    except OSError as error:
        return f"{everywhere}: {error.strerror}"
    return None if confined else everywhere


def _pass(ip):
    """Return the lines of a filter that accept packets to the address `ip` (4 or 16 bytes) and pass others on.

    A line is (code, lines to skip if true, lines to skip if false, k).
    """
    version, offset = (0x40, 16) if len(ip) == 4 else (0x60, 24)
    words = struct.unpack(f"!{len(ip) // 4}I", ip)
    to_end = 2 * len(words) + 1
    lines = [(_LOAD_BYTE, 0, 0, _NETWORK_HEADER), (_AND, 0, 0, 0xF0), (_JUMP_IF_EQUAL, 0, to_end, version)]
    for number, word in enumerate(words):
        lines.append((_LOAD_WORD, 0, 0, _NETWORK_HEADER + offset + 4 * number))
        lines.append((_JUMP_IF_EQUAL, 0, to_end - 2 - 2 * number, word))
    return [*lines, (_RETURN, 0, 0, _ACCEPT)]


def _attach(one, program):
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    one.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(instructions))
    )


def _listening(port):
    """Yield duplicates of the sockets of this process that listen on `port`."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # The descriptor of the listing itself is closed already.
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            one = socket.socket(fileno=os.dup(int(name)))
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and one.getsockname()[1] == port:
                yield one
            else:
                one.close()
