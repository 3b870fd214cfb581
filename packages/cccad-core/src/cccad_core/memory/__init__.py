"""What a policy carries from one decision to the next."""
