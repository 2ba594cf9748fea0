"""The pure heart of cloudless: values in, values out.

Nothing below this package reads a clock, the network, a file or a random number, logs, waits or
starts a thread. Everything it needs comes as an argument; everything it wants done leaves as a value.
"""
