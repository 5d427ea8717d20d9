"""Other programs, written plainly, that speed is compared with."""
