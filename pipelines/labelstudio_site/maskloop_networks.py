"""The private networks that Label Studio must not call, whatever address somebody enters.

Label Studio's own list cannot be shortened, only switched off, and the models run on a private network. Used by the
local stack, and as a program in Label Studio's container: `python3 -m maskloop_networks 192.168.213.0/24`.
"""

import sys
from collections.abc import Iterable
from ipaddress import ip_network

# IPv6 has several notations for an IPv4 address; a name may resolve to any of them.
PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96",
    "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip


def banned_networks(allowed: Iterable[str]) -> list[str]:
    """Return the private networks without the allowed ones.

    `allowed` holds networks or addresses, such as `192.168.213.0/24` or `127.0.0.1`. Raises ValueError for other text.
    """
    banned = [ip_network(network) for network in PRIVATE]
    for hole in map(ip_network, allowed):
        parts = []
        for network in banned:
            if network.version != hole.version or not network.overlaps(hole):
                parts.append(network)
            elif not network.subnet_of(hole):  # type: ignore[arg-type]  # both are of one version
                parts += network.address_exclude(hole)  # type: ignore[arg-type]  # likewise
        banned = parts
    return [str(network) for network in banned]


if __name__ == "__main__":
    sys.stdout.write(",".join(banned_networks(sys.argv[1:])))
