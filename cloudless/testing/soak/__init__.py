"""Break a whole cluster at random for as long as there is time: no lie, no lost task, no growth; see `scripts/soak`.

`faults` breaks and mends, `oracles` judges after each round, `growth` judges over all rounds, `soak` drives them.
"""
