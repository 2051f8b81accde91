"""Methods that draw answers from the model and learn from how they are rewarded.

A method of kind ``reinforcement`` defines

    lessons(task, params) -> Sequence[Lesson]         the prompts, each with what judges an answer
    REWARDS = {"name": reward, ...}                   reward(said, lesson, task, params) -> float,
                                                      or None where it does not judge the lesson
    steering(task, params, lessons) -> Sequence[Row]  what a warm start trains on
    passes(rows, params, seed) -> int                 how many lessons there are, for estimates
    refuse(rows, params)                              raises what makes a request impossible

and of the slots of a gradient method ``prepare``, ``mask`` and ``stop``. The policy gradient is
TRL's `GRPOTrainer`; draws, rewards and the reference come from here.
"""
