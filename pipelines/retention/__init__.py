"""What is removed after a while, and what never is: `maskloop gc`.

`rule` decides by age and number alone. A module per kind of thing says what is in use, what it takes and how it is
removed: `versions` and `objects` (datasets), `models`, `photos` (embeddings and copies), `pages`, `local`. `collect` plans
and removes all kinds, one after the other.
"""
