"""The cables of a lab: one bridge, one veth pair a host, and what goes wrong on them.

Runs in the holder (holder.py), which is in the namespace of the bridge. Netlink through pyroute2, so that
neither `ip` nor `nft` has to be installed.

A fault is a rule of nftables where frames cross the bridge, told by source and destination address. A frame
that meets one vanishes: the sender hears nothing, no reset and no ICMP, and ARP still works, as behind a
router that loses packets. What a host sent is in the capture all the same, since that listens before the
bridge. Each rule counts what it took away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.nfnetlink.nftsocket import Cmp, Regs
from pyroute2.nftables.expressions import genex, ipv4addr, verdict
from pyroute2.nftables.main import NFTables

from tests.support.hosts.namespaces import inside, without_ipv6

BRIDGE = "mesh"
INTERFACE = "eth0"  # of every host
PREFIX = 16
_FAMILY_BRIDGE = 7  # linux/netfilter.h: NFPROTO_BRIDGE
_DROP, _ACCEPT = 0, 1
_TABLE, _CHAIN = "faults", "forward"


class Wire:
    """Bridge, cables and faults of one lab, in the namespace of the thread that makes it."""

    def __init__(self, hosts: Mapping[str, tuple[int, str]]) -> None:
        """`hosts`: for each name the descriptor of its namespace and its address."""
        self._hosts = dict(hosts)
        without_ipv6()
        with IPRoute() as netlink:
            netlink.link("add", ifname=BRIDGE, kind="bridge")
            _up(netlink, "lo")
            _up(netlink, BRIDGE)
            (bridge,) = netlink.link_lookup(ifname=BRIDGE)
            for number, (namespace, address) in enumerate(self._hosts.values(), 1):
                port = f"port{number}"
                peer = {"ifname": INTERFACE, "net_ns_fd": namespace}
                with inside(namespace):
                    without_ipv6()
                netlink.link("add", ifname=port, kind="veth", peer=peer)
                netlink.link("set", ifname=port, master=bridge)
                _up(netlink, port)
                with inside(namespace), IPRoute() as host:
                    _up(host, "lo")
                    (cable,) = host.link_lookup(ifname=INTERFACE)
                    host.addr("add", index=cable, address=address, prefixlen=PREFIX)
                    _up(host, INTERFACE)
        self._rules = NFTables(nfgen_family=_FAMILY_BRIDGE)
        self._rules.table("add", name=_TABLE)
        self._rules.chain("add", table=_TABLE, name=_CHAIN, hook="forward", type="filter", policy=_ACCEPT)

    def lose(self, source: str, destination: str, one_in: int = 1) -> None:
        """From now on frames from one host to another vanish: all, or one in so many at random."""
        addresses = (self._hosts[source][1], self._hosts[destination][1])
        rule = [ipv4addr(src=addresses[0], dst=addresses[1])]
        if one_in > 1:
            draw = {"dreg": Regs.NFT_REG_1, "modulus": one_in, "type": 1, "offset": 0}
            is_zero = {"sreg": Regs.NFT_REG_1, "op": Cmp.NFT_CMP_EQ}
            zero = {"data": {"attrs": [("NFTA_DATA_VALUE", bytes(4))]}}
            # "NG", as netlink abbreviates this one expression's attributes
            chance = genex("ng", draw)
            chance["attrs"][0] = ("NFTA_EXPR_NAME", "numgen")
            rule.append([chance, genex("cmp", {**is_zero, **zero})])
        rule += [[genex("counter", {"bytes": 0, "packets": 0})], verdict(_DROP)]
        self._rules.rule("add", table=_TABLE, chain=_CHAIN, expressions=rule)

    def delay(self, hosts: Sequence[str], milliseconds: int) -> None:
        """What these hosts send arrives so much later. RuntimeError where the kernel has no netem."""
        for name in hosts:
            with inside(self._hosts[name][0]), IPRoute() as host:
                (cable,) = host.link_lookup(ifname=INTERFACE)
                try:
                    host.tc("add", "netem", cable, "1:", delay=milliseconds * 1000)
                except NetlinkError as error:
                    raise RuntimeError(f"this kernel has no netem ({error})") from error

    def lost(self) -> int:
        """How many frames the faults in force have taken away."""
        total = 0
        for rule in self._rules.get_rules():
            if rule.get_attr("NFTA_RULE_TABLE") != _TABLE:
                continue
            for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS") or ():
                if expression.get_attr("NFTA_EXPR_NAME") == "counter":
                    data: Any = expression.get_attr("NFTA_EXPR_DATA")
                    total += data.get_attr("NFTA_COUNTER_PACKETS")
        return total

    def heal(self) -> None:
        """Every cable is whole again."""
        self._rules.rule("del", table=_TABLE, chain=_CHAIN)
        for namespace, _ in self._hosts.values():
            with inside(namespace), IPRoute() as host:
                (cable,) = host.link_lookup(ifname=INTERFACE)
                with contextlib.suppress(NetlinkError):  # there was no delay
                    host.tc("del", index=cable, root=True)


def _up(netlink: IPRoute, name: str) -> None:
    netlink.link("set", ifname=name, state="up")
