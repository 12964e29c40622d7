"""The pure core. Nothing here reads a clock, does I/O, awaits, logs or draws a random number.

Time, ids and randomness arrive as parameters, so a four-hour hold runs in a millisecond and a
failure replays from its seed.
"""
