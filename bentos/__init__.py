"""The two model services as BentoML runs them: HTTP in, `pipelines.segmentation` inside, no rules of their own."""
