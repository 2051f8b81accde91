"""Editing one association at a time: what is asked, what is to be said, where it is written.

    associations   rows -> prompts with the place of the subject, and what is to be said instead
    wording        what that is, and short texts to put in front
    values         the value that makes a prompt lead there, found by gradient descent
    keys           what an MLP looks a value up by, and the second moment of all such keys
    locating       the place in the prompt and the block at which values are found most easily
    writing        a matrix that turns keys into values, put into the weights
    spreading      several blocks, each closing its share of what is missing
    editors        one association after the other, or all at once
    null_space     all at once, where no key of other text points
    concepts       the value vectors that hold a concept, and noise for them

`rome`, `memit`, `alphaedit` and whatever edits with other objectives are built from these.
"""
