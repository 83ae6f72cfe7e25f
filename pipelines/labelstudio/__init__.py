"""Everything that knows how Label Studio writes tasks, predictions and annotations."""
