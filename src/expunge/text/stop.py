"""English function words: they say nothing about what a text is about."""

_WORDS = """
a an the this that these those some any each every no all both either neither such own other another
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it
its itself we us our ours ourselves they them their theirs themselves one who whom whose which what
when where why how am is are was were be been being do does did doing done have has had having will
would shall should can could may might must ought and or but nor so yet if then else because as
until while although though since unless of at by for with about against between into through during
before after above below to from up down in out on off over under again further once upon within
without among per not only very too just than more most less least few same also there here now ever
never always often s t d ll re ve m don didn doesn isn aren wasn weren
"""

STOP_WORDS = frozenset(_WORDS.split())
"""Lower case; the ends of contractions as most tokenizers cut them included."""
