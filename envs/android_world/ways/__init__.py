"""Scripted ways through the stand-in apps of `envs.pocket.standins`, one module per kind of app.

A way sees what accessibility reports and the task's parameters, and yields one action at a time. Where a question is asked
it reads the answer from the screen; where content comes from a picture or a video, the parameters say it.
"""
