"""Read run folders, and show what is in them as tables and pages."""
