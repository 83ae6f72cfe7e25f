"""What is removed after a while, and what never is: `maskloop gc`.

`rule` decides by age and number alone. A module per kind of thing says what is in use, how many bytes it takes and how
it is removed; `collect` plans and removes all kinds, one after the other.
"""
