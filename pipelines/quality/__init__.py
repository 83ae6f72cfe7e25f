"""How far labels can be trusted.

`folds` and `label_errors` rank masks that look wrong, `agreement` compares annotators, `planted` measures who accepts
planted errors, and `review` shows the results to people.
"""
