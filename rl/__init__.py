"""How the agent learns and how it is scored."""
