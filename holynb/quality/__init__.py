"""How good answers are, in numbers: agreement with labels and with each other, and how sure that is. Pure; knows no run."""
