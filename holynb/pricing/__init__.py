"""What things cost: list prices, estimates, spending, and own GPUs compared."""
