"""Families beyond their contract: by the names that files give, the laws of all, and toys for tests."""
