"""The rail: recorded episodes, the judge that compares actions, and the walk along them."""
