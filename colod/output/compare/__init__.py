"""Compare what two running copies of a guest send (COLO). Pure: no I/O, no clock, no chance."""
