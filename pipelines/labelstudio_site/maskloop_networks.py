"""The private networks that Label Studio may not call, whatever address somebody writes down.

Label Studio's own list cannot be made smaller, only switched off, and the models live on a private network. Used
by the local stack, and as a program in Label Studio's container: `python3 -m maskloop_networks 192.168.213.0/24`.
"""

import sys
from collections.abc import Iterable
from ipaddress import ip_network

# IPv6 has several ways to write an IPv4 address down; a name may resolve to any of them.
PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96",
    "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip


def banned_networks(open_ones: Iterable[str]) -> list[str]:
    """Give the private networks less these: networks or addresses, such as `192.168.213.0/24` or `127.0.0.1`."""
    banned = [ip_network(one) for one in PRIVATE]
    for kept in map(ip_network, open_ones):
        parts = []
        for network in banned:
            if network.version != kept.version or not network.overlaps(kept):
                parts.append(network)
            elif not network.subnet_of(kept):  # type: ignore[arg-type]  # both are of one version
                parts += network.address_exclude(kept)  # type: ignore[arg-type]  # likewise
        banned = parts
    return [str(network) for network in banned]


if __name__ == "__main__":
    sys.stdout.write(",".join(banned_networks(sys.argv[1:])))
