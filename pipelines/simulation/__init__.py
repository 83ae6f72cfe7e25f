"""What rounds would pay, on photos whose masks are known: no server, no people, the loop's own code."""
