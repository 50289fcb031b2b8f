"""What a capture says: who sent how much to whom, and what it looked like. Pure but for reading the file.

The judge of the wire tests. A packet that it cannot read is not left out but named: what is not understood
is no proof of anything.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import dpkt

TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446: a record of type 22, and the legacy major version


@dataclass(frozen=True, slots=True)
class Packet:
    """One IPv4 packet. Ports are 0 where the protocol has none. `sequence` is TCP's, of the first byte."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    flags: str
    sequence: int
    payload: bytes

    @property
    def flow(self) -> tuple[str, int, str, int]:
        """One direction of one connection."""
        return self.source, self.source_port, self.destination, self.destination_port


_FLAGS = (("S", dpkt.tcp.TH_SYN), ("A", dpkt.tcp.TH_ACK), ("F", dpkt.tcp.TH_FIN), ("R", dpkt.tcp.TH_RST))


def read_frames(file: BinaryIO) -> Iterator[bytes]:
    """The frames of a pcap file."""
    for _, frame in dpkt.pcap.Reader(file):
        yield bytes(frame)


def parse(frames: Iterable[bytes]) -> list[Packet]:
    """The IP packets. ARP is left out: it names addresses and carries nothing. ValueError for the rest."""
    found = []
    for frame in frames:
        ethernet = dpkt.ethernet.Ethernet(frame)
        if ethernet.type == dpkt.ethernet.ETH_TYPE_ARP:
            continue
        ip = ethernet.data
        if not isinstance(ip, dpkt.ip.IP):
            raise ValueError(f"a frame of type {ethernet.type:#06x}: expected IPv4 and ARP only")
        source, destination = (str(ipaddress.IPv4Address(each)) for each in (ip.src, ip.dst))
        inner = ip.data
        if isinstance(inner, dpkt.tcp.TCP):
            flags = "".join(letter for letter, bit in _FLAGS if inner.flags & bit)
            ports = (inner.sport, inner.dport)
            found.append(Packet(source, destination, *ports, flags, inner.seq, bytes(inner.data)))
        elif isinstance(inner, dpkt.udp.UDP):
            ports = (inner.sport, inner.dport)
            found.append(Packet(source, destination, *ports, "", 0, bytes(inner.data)))
        else:
            found.append(Packet(source, destination, 0, 0, "", 0, bytes(inner)))
    return found


def read(path: Path) -> list[Packet]:
    """The IP packets of a pcap file."""
    with path.open("rb") as file:
        return parse(read_frames(file))


def between(packets: Iterable[Packet], sources: Iterable[str], destinations: Iterable[str]) -> list[Packet]:
    """What any of these addresses sent to any of those."""
    senders, receivers = frozenset(sources), frozenset(destinations)
    return [p for p in packets if p.source in senders and p.destination in receivers]


def payload_bytes(packets: Iterable[Packet]) -> int:
    """Bytes above TCP and UDP, sent again or not."""
    return sum(len(p.payload) for p in packets)


def streams(packets: Iterable[Packet]) -> Mapping[tuple[str, int, str, int], bytes]:
    """What each direction of each connection carried, put in order, each byte once.

    A gap, which a capture that begins late or a lost packet leaves, is closed up. Sequence numbers are taken
    relative to the first packet seen, modulo 2^32.
    """
    pieces: defaultdict[tuple[str, int, str, int], list[Packet]] = defaultdict(list)
    for packet in packets:
        if packet.payload:
            pieces[packet.flow].append(packet)
    return {flow: _in_order(sent) for flow, sent in pieces.items()}


def _in_order(sent: list[Packet]) -> bytes:
    if not sent[0].flags:  # not TCP: datagrams have no order but that of their coming
        return b"".join(p.payload for p in sent)
    first, half = sent[0].sequence, 1 << 31
    stream = bytearray()
    at: int | None = None
    placed = [(((p.sequence - first + half) % (1 << 32)) - half, p.payload) for p in sent]
    for offset, payload in sorted(placed, key=lambda each: each[0]):
        if at is None or offset >= at:
            stream += payload
            at = offset + len(payload)
        elif offset + len(payload) > at:
            stream += payload[at - offset :]
            at = offset + len(payload)
    return bytes(stream)


def holding(packets: Iterable[Packet], text: str) -> list[tuple[str, int, str, int]]:
    """The directions of connections in which this text can be read, however it was cut into packets."""
    return [flow for flow, carried in streams(packets).items() if text.encode() in carried]


def not_tls(packets: Iterable[Packet]) -> list[tuple[str, int, str, int]]:
    """The directions of connections that do not begin with a TLS handshake.

    Of those alone whose beginning was captured: where a SYN was.
    """
    seen = list(packets)
    begun = {p.flow for p in seen if "S" in p.flags}
    return [flow for flow, carried in streams(seen).items() if flow in begun and carried[:2] != TLS_HANDSHAKE]
