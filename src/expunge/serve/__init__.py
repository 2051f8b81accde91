"""The gateway: one door in front of any model, with the guards behind it.

The way through this room::

    bytes --door--> body --bodies--> exchange --dialogue (guards, backend, guards)--> answers
    admin's body --holding--> store (sealed, on the disk first) and guards at work

No module here imports torch where it is read; `local` does when a model of this process is served.
"""
