"""A name server on loopback: one name -> the addresses of the replicas, as an orchestrator's DNS answers.

Format: RFC 1035. It answers A questions for its one name and says of everything else that there is nothing.
"""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self

ADDRESS_TYPE, INTERNET, ANSWER_FLAGS, POINTER_TO_QUESTION = 1, 1, 0x8580, 0xC00C
SECONDS_TO_LIVE = 1


class NameServer:
    """Answers until it is closed; a context manager.

    Args:
        name: The one name it knows.
        addresses: What it is known by; may be changed at any time.
    """

    def __init__(self, name: str, addresses: list[str]) -> None:
        self._wire_name = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """host:port."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                query, sender = self._socket.recvfrom(4096)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 1
        name, question = query[12:end], query[12 : end + 4]
        wanted = struct.unpack("!HH", query[end : end + 4]) == (ADDRESS_TYPE, INTERNET)
        known = list(self.addresses) if wanted and name.lower() == self._wire_name else []
        head = query[:2] + struct.pack("!5H", ANSWER_FLAGS, 1, len(known), 0, 0)
        fixed = struct.pack("!HHHIH", POINTER_TO_QUESTION, ADDRESS_TYPE, INTERNET, SECONDS_TO_LIVE, 4)
        return head + question + b"".join(fixed + socket.inet_aton(address) for address in known)
