"""Small stand-ins for the apps that AndroidWorld's tasks use. What they store is real: SQLite and other files on the phone.

`store` reads and changes databases, `schemas` has their tables, `tables` draws any app that is a list with a form, and
`catalogue` describes those apps. The other modules are apps that are more than a list.
"""
