"""Client of the service, sync and async: `Client` and `AsyncClient`.

clients    the two faces
calls      arguments -> one call, and how to read its answer; no I/O
exchange   one call -> its result, with retries and checks; written once for both
links      the two ways to move bytes
sources, sinks, results, options, errors   what passes between them

It imports neither the codec nor the server, and needs httpx2 and tenacity: `pip install 'bijou[client]'`.
"""

from service.client.clients import AsyncClient, Client
from service.client.errors import (
    ClientError,
    ForeignAnswerError,
    IntegrityError,
    OverloadedError,
    ProblemError,
    RefusedError,
    ServerFaultError,
    UnreachableError,
)
from service.client.options import DecodeOptions, EncodeOptions, ReEncodeOptions, Retries, Transfer
from service.client.results import Image, Section, Stream, StreamInfo

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "DecodeOptions",
    "EncodeOptions",
    "ForeignAnswerError",
    "Image",
    "IntegrityError",
    "OverloadedError",
    "ProblemError",
    "ReEncodeOptions",
    "RefusedError",
    "Retries",
    "Section",
    "ServerFaultError",
    "Stream",
    "StreamInfo",
    "Transfer",
    "UnreachableError",
]
