"""Which tasks come next, which of them get masks, and asking the model services for these."""
