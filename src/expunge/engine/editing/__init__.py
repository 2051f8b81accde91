"""Editing one association at a time: what is asked, what is to be said, where it is written.

    associations   rows -> prompts with the place of the subject, and what is to be said instead
    values         the value that makes a prompt lead there, found by gradient descent
    keys           what an MLP looks a value up by, and the second moment of all such keys
    writing        a matrix that turns keys into values, put into the weights

`rome`, `memit`, `alphaedit` and whatever edits with other objectives are built from these.
"""
