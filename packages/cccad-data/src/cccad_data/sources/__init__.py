"""Source algorithms: whatever produces learning histories. Each module offers one spec."""
