"""Names of the strategies, which the command line reads before it imports what they need."""

STRATEGIES = ("auto", "random", "clusters", "typiclust", "coreset", "margin", "clue")
"""Names of the strategies of `suggest`."""

NEED_MODEL = ("margin", "clue")
