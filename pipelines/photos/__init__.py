"""The one reading of a photo that every consumer shares, and reading many of them in bounded memory."""
