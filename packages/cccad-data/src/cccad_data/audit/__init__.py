"""What is said of a set of histories: its faults, and its page."""
