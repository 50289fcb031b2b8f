"""Writes what crosses a lab's bridge into a pcap file. Started by lab.py in the namespace of the bridge.

    python -m tests.support.hosts.capture FILE

Every frame is taken once: where it comes in from a host, before the bridge and its faults. So what a host
sent is there even if nobody got it. It says when it listens, and ends when its standard input does: it reads
what is still queued, and says how many frames it wrote and how many the kernel had no room for. A capture
that missed a frame proves nothing, and its reader has to look at that number.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import sys
import time

import dpkt

from tests.support.hosts import namespaces

ETH_P_ALL = 0x0003  # linux/if_ether.h
# linux/if_packet.h
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 64 * 1024 * 1024
SNAP_BYTES = 256 * 1024  # more than the largest frame between two hosts whose cards cut none


def main() -> None:
    namespaces.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:  # in a user namespace the machine's limit holds
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    listening.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    listening.setblocking(False)
    written = 0
    with open(sys.argv[1], "wb") as file:
        pcap = dpkt.pcap.Writer(file, snaplen=SNAP_BYTES)
        print(json.dumps({"listening": True}), flush=True)
        going_on = True
        while going_on:
            ready, _, _ = select.select([listening, sys.stdin], [], [])
            going_on = sys.stdin not in ready
            # After the end of input once more, for what is queued by then.
            while True:
                try:
                    frame, (port, _, kind, *_) = listening.recvfrom(SNAP_BYTES)
                except BlockingIOError:
                    break
                if port.startswith("port") and kind != PACKET_OUTGOING:
                    pcap.writepkt_time(frame, time.time())
                    written += 1
    _, missed = struct.unpack("II", listening.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(json.dumps({"written": written, "missed": missed}), flush=True)


if __name__ == "__main__":
    main()
