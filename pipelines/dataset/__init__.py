"""From annotations to published dataset versions: files, index masks, checks, split, DVC and git."""
