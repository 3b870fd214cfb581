"""What a trained agent's memory holds and is good for."""
