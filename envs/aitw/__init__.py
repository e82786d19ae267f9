"""Android in the Wild: its live tasks, and the judge that decides them."""
