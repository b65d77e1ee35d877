"""How much of an evaluation stands in the text that a model was trained on.

`words` says what a word is, `passages` what is looked for, `index` finds it in a stream of texts,
`findings` counts it and sets scores beside it. Which texts a model has read is not known here:
`train/contamination.py` hands them in.
"""
