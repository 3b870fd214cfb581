"""What is minimised: one file for each objective, and the parts that they share."""
