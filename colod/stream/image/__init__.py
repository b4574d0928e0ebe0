"""Point-in-time images of a replica: what `xl save` would have written of its newest checkpoint.

A replication stream never holds a whole image: after the first copy it brings only what changed.
`ImageKeeper` follows the acknowledged stream and keeps each page's newest contents in a file, and
beside it the few records that every checkpoint writes anew. Between two epochs that is the guest at
one moment, and `Export` writes it as an ordinary image.
"""
