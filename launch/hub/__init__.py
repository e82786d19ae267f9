"""Trained models as others load them: merged, described by a card, on the Hub."""
