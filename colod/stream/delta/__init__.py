"""Page deltas: libxl's stream in few bytes, for a receiver that has the guest's earlier pages.

The sender's `Encoder` replaces each page of libxc's PAGE_DATA records by what the other side does
not have yet; every other byte goes through as it is. The receiver's `Decoder` gives back the
stream bit for bit. Both keep a `PageStore` and change it in the same order, so that they agree
without a word about it.

Only `terms` is to be imported before both sides have agreed on deltas: numpy, which the rest
needs, costs a session a tenth of a second at its start.
"""
