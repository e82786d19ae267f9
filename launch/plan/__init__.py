"""Memory, hours and cost of a training run before a machine is rented. Plain numbers: nothing here imports torch."""
