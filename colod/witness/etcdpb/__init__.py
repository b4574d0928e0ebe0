"""Messages and services generated from proto/ by `make proto`; not for editing."""
