"""The client that posts orders: it counts what was accepted, and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from benchmarks.running import CannotMeasure
from benchmarks.web import HOST, _Client

ACCEPTED = b"HTTP/1.1 202 ACCEPTED\r\nServer: x\r\nContent-Length: 4\r\n\r\n{ }\n"


@contextmanager
def server(pieces: Sequence[bytes]) -> Iterator[int]:
    """Answers the first request on each connection with these, one after the other; its port."""
    listening = socket.create_server((HOST, 0))

    def serve() -> None:
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            with link:
                link.recv(65536)
                for piece in pieces:
                    link.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def asked(pieces: Sequence[bytes]) -> int:
    """How many of two requests were accepted."""
    with server(pieces) as port:
        client = _Client(port, 2, b"POST / HTTP/1.1\r\n\r\n")
        try:
            while client.waiting:
                client.turn(again=False)
        finally:
            client.close()
        return len(client.took)


@pytest.mark.parametrize("cut", [len(ACCEPTED), 1, 20, len(ACCEPTED) - 2])
def test_an_answer_is_read_in_whatever_pieces_it_comes(cut: int) -> None:
    assert asked([ACCEPTED[:cut], ACCEPTED[cut:]]) == 2


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 503 AWAY\r\nContent-Length: 0\r\n\r\n", ACCEPTED[:-2], b"", b"HTTP/1.1 202 "]
)
def test_anything_but_a_whole_202_ends_it(answer: bytes) -> None:
    with pytest.raises(CannotMeasure):
        asked([answer])
