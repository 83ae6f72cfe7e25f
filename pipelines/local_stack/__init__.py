"""The local stack: the services of the Procfile on one machine, started, watched, checked and ended."""
