"""Guards at work: what stands between a client and a model, in one pipeline.

The way through this room::

    rows --targets--> targets --fitting--> state (an entry for each target, what they share)
    exchange --ladder--> hits --desk--> a guard's enter, the model, its leave --pipeline--> reply

A guard's file says what it stores of a target and what it does with an exchange; finding out which
targets an exchange is about, failing closed and keeping rows apart is done here. Only `passing` and
`guarded`, which reach into a model, import torch where they are read.
"""
