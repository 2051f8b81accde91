"""Models of known state, small enough that two hundred of them can be built and audited.

What an audit is worth shows on models about which the truth is known: some never saw the forget
rows, some know them, some know and hide them, some are in ruins. `world` invents the people,
`models` builds the models, `study` audits them and counts.
"""
