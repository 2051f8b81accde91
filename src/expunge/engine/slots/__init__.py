"""The seven slots: shared choices for what a method file does not define itself.

``select`` which rows; ``forget`` and ``retain`` the two terms; ``combine`` their gradients;
``mask`` what may move; ``sample`` how roles are paired; ``stop`` when to end.
"""
