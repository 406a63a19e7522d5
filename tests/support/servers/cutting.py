"""A TCP proxy that cuts every connection after a random number of bytes."""

import random
import socket

from tests.support.servers.outage import FaultyProxy


class CuttingProxy(FaultyProxy):
    """Passes connections on to a port of 127.0.0.1, and resets each of them after so many bytes
    from the client, until :attr:`most` is None.

    :param least: the smallest number of bytes.
    :param most: the largest one.
    :ivar cuts: how many connections were cut.
    """

    def __init__(self, target: int, least: int, most: int, seed: int = 0):
        self.least, self.most, self.cuts = least, most, 0
        self._random = random.Random(seed)
        super().__init__(target)

    def _pump(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        if not down and self.most:
            source = _Limited(self, source, self._random.randint(self.least, self.most))
        super()._pump(source, sink, down)


class _Limited:
    """A socket that is reset after some number of bytes."""

    def __init__(self, proxy: CuttingProxy, sock: socket.socket, left: int):
        self._proxy, self._socket, self._left = proxy, sock, left

    def recv(self, size: int) -> bytes:
        if not self._left:
            self._proxy.cuts += 1
            raise ConnectionResetError
        data = self._socket.recv(min(size, self._left))
        self._left -= len(data)
        return data

    def shutdown(self, how: int) -> None:
        self._proxy._reset(self._socket)
