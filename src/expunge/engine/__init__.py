"""Drivers, one per kind of method, and the slots a gradient method is a choice over.

The way through this room for a gradient method::

    rows --views--> named views of a step --step--> forget and retain terms
         --slots/combine--> one gradient --slots/mask--> what may move --trainer--> new weights
         --change--> a folder that loads anywhere and can be reverted

Importing this package imports no torch; `expunge.engine.check` stays free of it.
"""
