"""Style "phone": pages of Pocket as an Android phone shows them, in density-independent pixels (dp, 360 to a width)."""
