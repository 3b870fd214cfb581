"""Any Gymnasium environment as a family of tasks: what makes a task, how its rows are played, what returns mean.

Letters in shapes: `t` env steps, `e` rows of a vector environment, `o` observation features, `s` states, `a` actions.
"""
