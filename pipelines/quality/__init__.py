"""How far labels can be trusted: annotations that look wrong, and how well people agree."""
