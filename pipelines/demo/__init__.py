"""Everything the demo needs that a real archive would bring: photos, masks, a catalogue and simulated people."""
