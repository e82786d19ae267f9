"""Who acts: the policy's vocabulary and voice."""
