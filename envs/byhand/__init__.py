"""Recording by hand: what a person does on any device becomes a recording."""
