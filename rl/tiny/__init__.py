"""The recipe of the small models that come with the package."""
