"""What happens when the policy and the expert disagree."""
