"""One inference library for training and for both services: transforms, masks, models, prompts."""
